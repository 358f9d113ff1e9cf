"""`atomic=False`: each batch in a transaction of its own, so that no lock is held for longer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction
from django.db.models import QuerySet

from signal_patch.callers import is_related_manager
from signal_patch.dispatch import transactions
from signal_patch.dispatch.progress import reporting
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.choosing import Choice
from signal_patch.dispatch.rows.keys import refuse_null
from signal_patch.dispatch.rows.ranges import beyond
from signal_patch.dispatch.signals import in_flight
from signal_patch.signals import logger

if TYPE_CHECKING:
    from django.db.models import Field

    from signal_patch.dispatch.progress import Report
    from signal_patch.options import Options


class Committed(NamedTuple):
    """What an operation had committed when it failed: so many rows, up to this primary key."""

    rows: int
    key: Any

    def __str__(self) -> str:
        return f"{self.rows} rows, up to the primary key {self.key!r}" if self.rows else "no row"


def are_asked_for(options: Options, using: str) -> bool:
    """Return whether an operation is to commit batch by batch; RuntimeError where it cannot.

    What a receiver or a related manager does inside a transaction belongs to that transaction. That of a
    TestCase is none, as for `atomic(durable=True)` (BaseDatabaseWrapper.atomic_blocks and
    Atomic._from_testcase, Django 5.2 to 6.1).
    """
    if options.atomic:
        return False
    connection: Any = connections[using]
    if connection.in_atomic_block:
        if connection.atomic_blocks and connection.atomic_blocks[-1]._from_testcase:
            return True
    elif connection.get_autocommit():
        return True
    if in_flight.is_anything_in_flight(using) or is_related_manager():
        return False
    raise RuntimeError(
        f"atomic=False commits each batch, which is not possible inside a transaction of {using!r}: an "
        "atomic() block, ATOMIC_REQUESTS, or autocommit turned off"
    )


def refuse(queryset: QuerySet[Any], operation: str, reasons: Iterable[str]) -> None:
    """Raise a ValueError with the reasons why an operation cannot be done batch by batch, if any."""
    if found := "; ".join(reasons):
        label = queryset.model._meta.label
        raise ValueError(f"{label}.{operation}() is not possible with atomic=False: {found}")


def chosen(queryset: QuerySet[Any], using: str, *, lock: bool = False) -> Any:
    """Return a queryset of the rows, once each and in the order of their keys; locked, if asked."""
    choice = Choice(using, lock=lock, computes=False)
    rows = choice.rows(queryset)
    return querysets.locked(rows, choice.locked_tables[:1]) if lock else rows


class Batches:
    """The rows of an operation, each batch chosen and committed before the next is looked for.

    `statement` is one of the module `transactions`, `field` a column that it may name.
    """

    def __init__(
        self,
        name: str,
        queryset: QuerySet[Any],
        using: str,
        options: Options,
        statement: str,
        field: Field[Any, Any],
    ) -> None:
        self.name = name
        self.queryset = queryset
        self.model = queryset.model
        self.using = using
        self.options = options
        self.statement = statement
        self.field = field
        self.done = 0
        self.key: Any = None
        self.committed = Committed(0, None)

    def run(self, change: Callable[[list[Any], Any], int], batch_size: int) -> None:
        """Have each batch changed, and tell of it when it is committed.

        `change` gets the keys of the batch, and the last key before them or None, and returns how many rows
        there were. It is called once with no keys if there is no row. Whatever it raises, `bulk_committed`
        of the exception is what has been committed.
        """
        size = min(batch_size, querysets.largest_batch(self.using, self.model))
        with reporting(self.name, self.model, self.using, self.options.progress) as report:
            total = self._count() if report.needs_total else 0
            report.begin(total)
            try:
                while self._commit_one(change, size):
                    report(self.done, max(total, self.done + 1), self.key)
                report(self.done, self.done, self.key)
            except BaseException as error:
                self._tell(error, report)
                raise

    def _commit_one(self, change: Callable[[list[Any], Any], int], size: int) -> bool:
        """Change and commit the next rows, and return whether there were more."""
        in_testcase = connections[self.using].in_atomic_block
        with transaction.atomic(using=self.using, durable=True):
            if not in_testcase:
                # Before the hooks of receivers: one that fails does not undo the commit.
                transaction.on_commit(self._note, using=self.using)
            transactions.begin_write(self.using, self.statement, self.field)
            keys = self._keys(size + 1)
            rows, following = keys[:size], keys[size:]
            self.done += change(rows, self.key)
            if rows:
                self.key = rows[-1]
        if in_testcase:
            self._note()
        return bool(following)

    def _note(self) -> None:
        self.committed = Committed(self.done, self.key)

    def _keys(self, limit: int) -> list[Any]:
        rows = chosen(self.queryset if self.key is None else beyond(self.queryset, self.key), self.using)
        rows.query.set_limits(high=limit)
        keys = querysets.keys_of(rows)
        refuse_null(self.model, keys)
        return keys

    def _count(self) -> int:
        return QuerySet.count(chosen(self.queryset, self.using))

    def _tell(self, error: BaseException, report: Report) -> None:
        """Say what has been committed: as an attribute, in the traceback and, for all Pythons, in the log."""
        error.bulk_committed = self.committed  # type: ignore[attr-defined]  # documented in the README
        message = f"{report.name} with atomic=False has failed; committed before: {self.committed}"
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(message)
        logger.warning("%s", message)
