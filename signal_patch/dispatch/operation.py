"""The arguments of every bulk operation, and the steps of those that save rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from django.db import connections, transaction
from django.db.models.signals import post_save, pre_save

from signal_patch.dispatch.progress import Report, in_receivers, reporting
from signal_patch.dispatch.rows.querysets import locks_rows
from signal_patch.dispatch.rows.selection import Batch
from signal_patch.dispatch.signals import in_flight, loops, rounds, sending
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.tracking import Changes, ChangeTracker
from signal_patch.dispatch.writing.refresh import Refresh, Written, refresh

if TYPE_CHECKING:
    from django.db.models import Field, Model, QuerySet

    from signal_patch.dispatch.signals.sending import SavedRow
    from signal_patch.options import Options

    ModelField = Field[Any, Any]
    Pairs = list[tuple[Any, Model]]
    ChangesByKey = dict[Any, Changes]

AnyBatch = TypeVar("AnyBatch", bound=Batch)

# How many rows are looked up at first, after a receiver has deleted one.
FEW = 10


@dataclass(eq=False, repr=False)
class Operation:
    """One call of a bulk operation.

    `senders` are the senders of its signals, `original` is Django's own method, unbound.
    """

    queryset: QuerySet[Any]
    using: str
    senders: Collection[type[Model]]
    options: Options
    original: Callable[..., Any]

    def __post_init__(self) -> None:
        self.model = self.queryset.model
        self.connection = connections[self.using]
        self.lock = locks_rows(self.options, self.using)


class BulkSave(Operation, ABC, Generic[AnyBatch]):
    """An operation that does in batches what a loop of `save()` does row by row.

    `name` is the operation's name. `fields` are the fields that the caller writes, and `update_fields` is the
    argument of the signals. `flight` holds the rows of the current batch, and `report` is the report of the
    whole operation.
    """

    name: ClassVar[str]
    fields: Collection[ModelField] = ()
    update_fields: frozenset[str] = frozenset()
    flight: in_flight.Flight
    report: Report

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rounds = rounds.Rounds(self.using, self.options, self.senders)
        self._trackers: dict[type[Model], ChangeTracker] = {}

    def execute(self) -> int:
        """Save all rows in one transaction, and return how many were matched."""
        with transaction.atomic(using=self.using, savepoint=False):
            self.begin()
            return loops.run(self.run, (pre_save, post_save), self.senders)

    @abstractmethod
    def begin(self) -> None:
        """Take the locks that the write needs, before anything is read."""

    def run(self) -> int:
        """Save batch after batch, and return how many rows were matched."""
        matched = done = 0
        with self.reporting() as report:
            self.report = report
            report.senders.update(dict.fromkeys(self.senders))
            for batch in self.batches():
                report.begin(self.total)
                if batch.keys:
                    matched += self.process(batch)
                done += len(batch.keys)
                report(done, self.total)
                # Free this batch before the next one is loaded.
                del batch
        return matched

    def reporting(self) -> AbstractContextManager[Report]:
        return reporting(self.name, self.model, self.using, self.options.progress)

    @abstractmethod
    def batches(self) -> Iterator[AnyBatch]:
        """Yield the rows in batches."""

    @property
    @abstractmethod
    def total(self) -> int:
        """The number of rows in all batches, known from the first batch on."""

    def process(self, batch: AnyBatch) -> int:
        """Save the rows of a batch with their signals, and return how many were matched."""
        # In a variable, too, because the context only has a weak reference.
        flight = self.flight = self.new_flight(batch)
        self.report.count_in_flight(len(batch.keys) - len(batch.to_signal))
        with in_flight.flying(flight):
            self.assign(batch)
            changes = self.send_pre_save(batch)
            written = self.write(batch, changes)
            saved = self.refresh(batch, written)
            return written.matched - self.send_post_save(saved)

    def new_flight(self, batch: AnyBatch) -> in_flight.Flight:
        """Return the rows of a batch as a flight, and choose the rows whose signals are sent.

        Nothing is sent for a row that is in flight already.
        """
        by_class = in_flight.keys_by_class(self.model, batch.keys, batch.instances)
        already_in_flight = in_flight.keys_in_flight_of(self.using, by_class)
        pairs = batch.pairs
        batch.to_signal = (
            [pair for pair in pairs if pair[0] not in already_in_flight] if already_in_flight else pairs
        )
        return in_flight.flight_of(self.using, by_class)

    @abstractmethod
    def assign(self, batch: AnyBatch) -> None:
        """Assign to the instances the values that receivers should see."""

    @in_receivers()
    def send_pre_save(self, batch: AnyBatch) -> ChangesByKey:
        """Send `pre_save` for each instance, and return what receivers changed, by key."""
        self.rounds.begin_batch(instance for _, instance in batch.to_signal)
        if not sending.has_receivers(pre_save, self.senders):
            return {}
        awaited = sending.has_only_async_receivers(pre_save, self.senders)
        if awaited or rounds.has_list_receivers(pre_save, self.senders):
            return self._send_then_compare(batch.to_signal)
        changes: ChangesByKey = {}
        with self.rounds.open(pre_save):
            sending.send_each(pre_save, self.senders, self.using, self._compared(batch.to_signal, changes))
        return changes

    def _compared(self, pairs: Pairs, changes: ChangesByKey) -> Iterator[SavedRow]:
        """Yield the arguments of each `pre_save`; after each signal, note what receivers have changed."""
        update_fields, trackers = self.update_fields, self._trackers
        for key, instance in pairs:
            tracker = trackers.get(type(instance)) or self._tracker(type(instance))
            snapshot = tracker.snapshot(instance)
            yield instance, update_fields, False
            if tracker.may_differ(instance, snapshot):
                changed = tracker.changes(instance, snapshot)
                if changed:
                    changes[key] = changed

    def _send_then_compare(self, pairs: Pairs) -> ChangesByKey:
        """Send `pre_save` for all instances, and compare them afterwards.

        Comparing may query the database, which a coroutine must not do. And receivers of lists, which run
        last, may change the instances as well.
        """
        snapshots = [self._tracker(type(instance)).snapshot(instance) for _, instance in pairs]
        with self.rounds.open(pre_save):
            saves = ((instance, self.update_fields, False) for _, instance in pairs)
            sending.send_each(pre_save, self.senders, self.using, saves)
        found = {
            key: self._tracker(type(instance)).changes(instance, snapshot)
            for (key, instance), snapshot in zip(pairs, snapshots, strict=True)
        }
        return {key: changed for key, changed in found.items() if changed}

    def _tracker(self, model: type[Model]) -> ChangeTracker:
        if model not in self._trackers:
            tracked = columns.writable_fields(model)
            if not self.options.write_back:
                # Compared by name, because an instance may be of another model of the same table.
                names = {field.name for field in self.fields}
                tracked = [field for field in tracked if field.name in names]
            self._trackers[model] = self.new_tracker(tracked)
        return self._trackers[model]

    def new_tracker(self, tracked: Collection[ModelField]) -> ChangeTracker:
        """Return a tracker of these fields for instances of one class."""
        return ChangeTracker(tracked, self.connection, may_hold_expressions=False)

    @abstractmethod
    def write(self, batch: AnyBatch, changes: ChangesByKey) -> Written:
        """Write the rows, with what receivers changed."""

    @property
    def hears_post_save(self) -> bool:
        """Whether `post_save` has receivers now; a receiver may have connected one."""
        return sending.has_receivers(post_save, self.senders)

    def refresh(self, batch: AnyBatch, written: Written) -> list[SavedRow]:
        """Make the instances equal their rows, and return those whose row was written."""
        if not self.hears_post_save:
            return []
        pairs = Refresh(self.using, self.fields, written).run(batch.to_signal)
        names, changes = self.update_fields, written.changes
        if not changes:
            return [(instance, names, False) for _, instance in pairs]
        return [(instance, _with_changed(names, changes.get(key)), False) for key, instance in pairs]

    @in_receivers()
    def send_post_save(self, saved: list[SavedRow]) -> int:
        """Send `post_save`, and return how many rows a receiver deleted before their turn."""
        flight = self.flight
        gone: set[Any] = set()
        doubtful: list[SavedRow] = []
        step = FEW
        with self.rounds.open(post_save):
            while saved or doubtful:
                flight.deletions = 0
                unsent = iter(saved)
                sending.send_each(post_save, self.senders, self.using, self._until_a_deletion(unsent))
                # The number doubles, so that the time is not quadratic if a receiver deletes at every row.
                step = FEW if flight.deletions else step * 2
                rest = [*unsent, *doubtful]
                saved, doubtful = self._found(rest[:step], gone), rest[step:]
        return len(gone)

    def _until_a_deletion(self, saved: Iterator[SavedRow]) -> Iterator[SavedRow]:
        """Yield the rows until a receiver has deleted any row."""
        flight = self.flight
        for row in saved:
            yield row
            if flight.deletions:
                return

    def _found(self, saved: list[SavedRow], gone: set[Any]) -> list[SavedRow]:
        """Return the rows that still exist, and add the others to `gone`."""
        there = refresh((instance for instance, *_ in saved), self.using, lambda model: [])
        gone.update(_identity(instance) for instance, *_ in saved if id(instance) not in there)
        return [row for row in saved if id(row[0]) in there]


def _with_changed(names: frozenset[str], changed: Changes | None) -> frozenset[str]:
    return names | {field.name for field in changed} if changed else names


def _identity(instance: Any) -> Any:
    """Return what identifies an instance's row: its key, or the instance if `delete()` has cleared that."""
    return (instance.pk,) if instance._is_pk_set() else id(instance)
