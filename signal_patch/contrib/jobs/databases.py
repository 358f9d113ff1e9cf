"""Differences between databases: how a step begins, and which errors are temporary."""

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
    """A kind of temporary error: the step may succeed if it is tried again."""

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
    """Return the kind of temporary error that this error or one of its causes is, or None."""
    return next(filter(None, map(_trouble, _causes(error))), None)


def begin_to_write(connection: BaseDatabaseWrapper) -> None:
    """Send the first statement of a transaction that reads before it writes.

    On SQLite, a transaction that begins with a read cannot write while another connection writes. One that
    begins with a write waits for the other connection. On other databases, reads lock the rows instead.
    """
    if not connection.features.has_select_for_update:
        Lane.objects.using(connection.alias).filter(pk=-1).update(done=True)


def begin_step(connection: BaseDatabaseWrapper, idle_seconds: float) -> None:
    """Send the first statements of a step's transaction.

    If the database supports it, it ends the session of a worker that is silent for too long. A frozen worker
    then loses its lane and the locks on its rows.
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
    # psycopg has `sqlstate`, psycopg2 has `pgcode`; other drivers give a number or a message.
    driver = error.__cause__
    state = getattr(driver, "sqlstate", getattr(driver, "pgcode", ""))
    if state is None and isinstance(error, OperationalError):
        # The error does not come from the server.
        return Trouble.LOST_CONNECTION
    return _CODES.get(state or next(iter(error.args), None))
