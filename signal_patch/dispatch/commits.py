"""`atomic=False`: each batch is a transaction of its own and releases its locks when it commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction
from django.db.models import QuerySet

from signal_patch.callers import is_called_by_related_manager
from signal_patch.dispatch import transactions
from signal_patch.dispatch.progress import reporting
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.choosing import Choice
from signal_patch.dispatch.rows.keys import refuse_null
from signal_patch.dispatch.rows.ranges import between
from signal_patch.dispatch.signals import in_flight
from signal_patch.signals import logger

if TYPE_CHECKING:
    from django.db.models import Field

    from signal_patch.dispatch.progress import Report
    from signal_patch.options import Options


class Committed(NamedTuple):
    """What an operation had committed when it failed: the number of rows, and the last primary key."""

    rows: int = 0
    key: Any = None

    def __str__(self) -> str:
        return f"{self.rows} rows, up to the primary key {self.key!r}" if self.rows else "no row"


def are_asked_for(options: Options, using: str) -> bool:
    """Return whether an operation must commit batch by batch; RuntimeError if it cannot.

    Operations of receivers and related managers inside a transaction belong to that transaction. The
    transaction of a TestCase does not count, as for `atomic(durable=True)`
    (BaseDatabaseWrapper.atomic_blocks and Atomic._from_testcase, Django 5.2 to 6.1).
    """
    if options.atomic:
        return False
    connection: Any = connections[using]
    if connection.in_atomic_block:
        if connection.atomic_blocks and connection.atomic_blocks[-1]._from_testcase:
            return True
    elif connection.get_autocommit():
        return True
    if in_flight.is_anything_in_flight(using) or is_called_by_related_manager():
        return False
    raise RuntimeError(
        f"atomic=False commits each batch, which is not possible inside a transaction of {using!r}: an "
        "atomic() block, ATOMIC_REQUESTS, or autocommit turned off"
    )


def refuse(queryset: QuerySet[Any], operation: str, reasons: Iterable[str]) -> None:
    """Raise a ValueError if there are reasons why an operation cannot be done batch by batch."""
    if found := "; ".join(reasons):
        label = queryset.model._meta.label
        raise ValueError(f"{label}.{operation}() is not possible with atomic=False: {found}")


def chosen(queryset: QuerySet[Any], using: str, *, lock: bool = False) -> Any:
    """Return a queryset of the rows, each once, in the order of their keys; `lock` locks them."""
    choice = Choice(using, lock=lock, computes=False)
    return choice.with_lock(choice.rows(queryset))


@dataclass(eq=False, repr=False)
class Batches:
    """The rows of an operation. Each batch is selected and committed before the next is selected.

    `statement` is one of those in the module `transactions`; `field` is a column that it may use.
    """

    name: str
    queryset: QuerySet[Any]
    using: str
    options: Options
    statement: str
    field: Field[Any, Any]
    done: int = 0
    key: Any = None
    committed: Committed = dataclass_field(default_factory=Committed)

    def run(self, change: Callable[[list[Any], Any], int], batch_size: int) -> None:
        """Change and commit batch after batch, and report progress after each commit.

        `change` gets the keys of the batch and the last key before them, or None, and returns the number of
        rows. If there are no rows, it is called once with an empty list. An exception gets the attribute
        `bulk_committed`, which says what has been committed.
        """
        model = self.queryset.model
        size = min(batch_size, querysets.largest_batch(self.using, model))
        with reporting(self.name, model, self.using, self.options.progress) as report:
            total = QuerySet.count(chosen(self.queryset, self.using)) if report.needs_total else 0
            report.begin(total)
            try:
                while self._commit_one(change, size):
                    report(self.done, max(total, self.done + 1), self.key)
                report(self.done, self.done, self.key)
            except BaseException as error:
                self._say_what_is_committed(error, report)
                raise

    def _commit_one(self, change: Callable[[list[Any], Any], int], size: int) -> bool:
        """Change and commit the next rows, and return whether there were more."""
        in_testcase = connections[self.using].in_atomic_block
        with transaction.atomic(using=self.using, durable=True):
            if not in_testcase:
                # Registered before the hooks of receivers: if one of them fails, the batch stays committed.
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
        rows = chosen(between(self.queryset, self.key, None), self.using)
        rows.query.set_limits(high=limit)
        keys = querysets.keys_of(rows)
        refuse_null(self.queryset.model, keys)
        return keys

    def _say_what_is_committed(self, error: BaseException, report: Report) -> None:
        """Say what has been committed: in an attribute, in a note (from Python 3.11) and in the log."""
        error.bulk_committed = self.committed  # type: ignore[attr-defined]  # documented in the README
        message = f"{report.name} with atomic=False has failed; committed before: {self.committed}"
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(message)
        logger.warning("%s", message)
