"""What databases do differently: how a step begins, and which errors pass if it is tried again."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from django.db import Error, OperationalError

from signal_patch.contrib.jobs.models import Lane
from signal_patch.dispatch import backends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper


class Trouble(Enum):
    """An error that is nobody's fault and may not come again."""

    CONFLICT = "conflict"
    TIMEOUT = "timeout"
    LOST_CONNECTION = "lost connection"


_CODES: Final[dict[Any, Trouble]] = {
    # PostgreSQL's SQLSTATEs.
    "40001": Trouble.CONFLICT,  # serialization_failure
    "40P01": Trouble.CONFLICT,  # deadlock_detected
    "55P03": Trouble.TIMEOUT,  # lock_not_available: lock_timeout
    "57014": Trouble.TIMEOUT,  # query_canceled: statement_timeout
    "25P03": Trouble.LOST_CONNECTION,  # idle_in_transaction_session_timeout
    "57P01": Trouble.LOST_CONNECTION,  # admin_shutdown
    # MariaDB's and MySQL's error numbers.
    0: Trouble.LOST_CONNECTION,  # the driver's own: the connection is closed
    1020: Trouble.CONFLICT,  # record has changed since last read
    1213: Trouble.CONFLICT,  # deadlock
    1205: Trouble.TIMEOUT,  # innodb_lock_wait_timeout
    1969: Trouble.TIMEOUT,  # MariaDB: max_statement_time
    3024: Trouble.TIMEOUT,  # MySQL: max_execution_time
    **dict.fromkeys((1053, 1927, 2002, 2003, 2006, 2013, 2055, 4031), Trouble.LOST_CONNECTION),
    # SQLite's messages: Python 3.10 gives no code.
    "database is locked": Trouble.CONFLICT,
    "database table is locked": Trouble.CONFLICT,
}


def trouble(error: BaseException) -> Trouble | None:
    """Return the passing trouble that an error, or one that it was raised from, comes from; else None."""
    return next(filter(None, map(_trouble, _causes(error))), None)


def begin_to_write(connection: BaseDatabaseWrapper) -> None:
    """Send the first statement of a transaction that reads before it writes.

    SQLite cannot turn a transaction that reads into one that writes while another connection writes; begun
    with a write, it waits its turn. The others lock the rows that they read.
    """
    if not connection.features.has_select_for_update:
        Lane.objects.using(connection.alias).filter(pk=-1).update(done=True)


def begin_step(connection: BaseDatabaseWrapper, idle_seconds: float) -> None:
    """Send the first statements of a step's transaction.

    A database that can is told to end the session if the worker is silent for too long, so that a frozen
    worker gives back its lane and the locks on its rows.
    """
    begin_to_write(connection)
    backends.of(connection).limit_idle_time(idle_seconds, connection)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _trouble(error: BaseException) -> Trouble | None:
    if not isinstance(error, Error):
        return None
    # psycopg, psycopg2; the others give a number or a message.
    driver = error.__cause__
    state = getattr(driver, "sqlstate", getattr(driver, "pgcode", ""))
    if state is None and isinstance(error, OperationalError):
        # It does not come from the server.
        return Trouble.LOST_CONNECTION
    return _CODES.get(state or next(iter(error.args), None))
