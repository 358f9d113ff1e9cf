"""The two rounds of signals of a batch, around its write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.db import connections
from django.db.models.signals import post_save, pre_save

from signal_patch.dispatch.signals import in_flight, rounds, sending
from signal_patch.dispatch.values import columns, files
from signal_patch.dispatch.values.expressions import UNKNOWN
from signal_patch.dispatch.values.tracking import Changes, ChangeTracker
from signal_patch.dispatch.writing.refresh import read_rows, refresh

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.options import Options

    ModelField = Field[Any, Any]
    # Instances, and what `post_save` says of their saves: `update_fields` and `created`.
    Told = list[tuple[Model, frozenset[str] | None, bool]]


# How many rows are looked for at first, once a receiver has deleted some.
FEW = 10


class Teller:
    """Sends the saves of one bulk operation's instances, batch by batch.

    `update_fields` are the names of the fields that the caller writes. Instances that the caller gave
    `may_hold_expressions`.
    """

    def __init__(
        self,
        senders: Collection[type[Model]],
        using: str,
        options: Options,
        update_fields: frozenset[str],
        written: Iterable[ModelField],
        *,
        may_hold_expressions: bool = False,
    ) -> None:
        self.using = using
        self.may_hold_expressions = may_hold_expressions
        self.options = options
        self.update_fields = update_fields
        self.written = set(written)
        self.connection = connections[using]
        self.senders = senders
        self.trackers: dict[type[Model], ChangeTracker] = {}

    @property
    def hears_post_save(self) -> bool:
        """Whether somebody listens by now: a receiver may have connected another."""
        return sending.is_heard(post_save, self.senders)

    def before(self, pairs: list[tuple[Any, Model]]) -> dict[Any, Changes]:
        """Send `pre_save` for each instance, and return what receivers changed, by key."""
        rounds.begin_batch(self.options, (instance for _, instance in pairs))
        if not sending.is_heard(pre_save, self.senders):
            return {}
        # A hop between this thread and an event loop costs more than all the rest of a row.
        awaited = sending.is_awaited(pre_save, self.senders)
        if awaited or rounds.has_list_receivers(pre_save, self.senders):
            return self._before_in_steps(pairs, awaited=awaited)
        changes: dict[Any, Changes] = {}
        using, update_fields, trackers = self.using, self.update_fields, self.trackers
        for key, instance in pairs:
            tracker = trackers.get(type(instance)) or self._tracker(type(instance))
            snapshot = tracker.snapshot(instance)
            sending.send_pre_save(instance, using, update_fields)
            if tracker.may_differ(instance, snapshot):
                changed = tracker.changes(instance, snapshot)
                if changed:
                    changes[key] = changed
        return changes

    def _before_in_steps(self, pairs: list[tuple[Any, Model]], *, awaited: bool) -> dict[Any, Changes]:
        """Do as `before`, but compare when all signals are sent.

        A coroutine sends them all, and comparing may query the database, so it happens in this thread. And
        receivers of lists change the instances at the end.
        """
        snapshots = [self._tracker(type(instance)).snapshot(instance) for _, instance in pairs]

        async def send() -> None:
            for _, instance in pairs:
                await sending.asend_pre_save(instance, self.using, self.update_fields)

        with rounds.opened(pre_save, self.senders):
            if awaited:
                async_to_sync(send)()
            else:
                for _, instance in pairs:
                    sending.send_pre_save(instance, self.using, self.update_fields)
        found = {
            key: self._tracker(type(instance)).changes(instance, snapshot)
            for (key, instance), snapshot in zip(pairs, snapshots, strict=True)
        }
        return {key: changed for key, changed in found.items() if changed}

    def _tracker(self, model: type[Model]) -> ChangeTracker:
        if model not in self.trackers:
            tracked = columns.writable_fields(model)
            if not self.options.write_back:
                tracked = [field for field in tracked if field.name in self.update_fields]
            self.trackers[model] = ChangeTracker(
                tracked, self.connection, may_hold_expressions=self.may_hold_expressions
            )
        return self.trackers[model]

    def settle(
        self,
        pairs: list[tuple[Any, Model]],
        changes: dict[Any, Changes],
        refresh_fields: Collection[ModelField],
        *,
        missing: int,
        unassigned: Collection[ModelField] = (),
    ) -> Told:
        """Make instances tell what their rows hold after the write.

        Returns those whose row was written, with the names of the fields that were saved. `refresh_fields`
        are the fields of which only the row knows the value; of those that are `unassigned`, instances
        have the old one. `missing` is how many rows fewer the statement has matched than it was sent.
        """
        if not self.hears_post_save:
            return []
        told = dict.fromkeys(refresh_fields)
        for key, instance in pairs if changes else ():
            told.update(dict.fromkeys(self._settle_changes(instance, changes.get(key, {}))))
        unknown: Collection[ModelField] = told
        if missing:
            pairs, unknown = self._written(pairs, changes, unknown, missing, unassigned)
        wanted = self._wanted(changes, unknown)
        instances = [instance for _, instance in pairs]
        if any(map(wanted, set(map(type, instances)))):
            present = refresh(instances, self.using, wanted)
            pairs = [(key, instance) for key, instance in pairs if id(instance) in present]
        if not changes:
            return [(instance, self.update_fields, False) for _, instance in pairs]
        return [(instance, self._saved(changes.get(key)), False) for key, instance in pairs]

    def _written(
        self,
        pairs: list[tuple[Any, Model]],
        changes: dict[Any, Changes],
        refresh_fields: Collection[ModelField],
        missing: int,
        unassigned: Collection[ModelField],
    ) -> tuple[list[tuple[Any, Model]], Collection[ModelField]]:
        """Return the instances whose rows were written, and the fields of which only the row knows the value.

        A row may be gone; or a trigger, or the row security of PostgreSQL, has left it as it was, and
        its values tell. As another trigger may have written other values, rows count as written if they
        hold what was sent in as many fields as leave enough of them: in all, in those that are not
        refresh_fields, or in none.
        """
        written = self.written.union(*changes.values())
        keys = {id(instance): key for key, instance in pairs}
        there: set[Any] = set()
        close: set[Any] = set()
        exact: set[Any] = set()
        for read, found in read_rows(
            (instance for _, instance in pairs),
            self.using,
            lambda model: [field for field in model._meta.concrete_fields if field in written],
        ):
            for instance, row in found:
                key = keys[id(instance)]
                differing = {
                    field
                    for field, value in zip(read, row, strict=True)
                    if not _holds(instance, field, value, field in unassigned)
                }
                there.add(key)
                if differing.issubset(refresh_fields):
                    close.add(key)
                if not differing:
                    exact.add(key)
        enough = len(set(keys.values())) - missing
        chosen = next((some for some in (exact, close) if len(some) >= enough), there)
        return (
            [(key, instance) for key, instance in pairs if key in chosen],
            refresh_fields if chosen is not there else [*refresh_fields, *written],
        )

    def settle_by(
        self,
        stored: Mapping[Any, Sequence[Any]],
        pairs: list[tuple[Any, Model]],
        returning_fields: Sequence[ModelField],
    ) -> Told:
        """Do as `settle` where the write has told the `returning_fields` fields of its rows, by key."""
        files.leave_unmeasured((instance for key, instance in pairs if key in stored), returning_fields)
        told: Told = []
        for key, instance in pairs:
            values = stored.get(key)
            # A row that is gone is not told of.
            if values is not None:
                for field, value in zip(returning_fields, values, strict=True):
                    columns.assign(instance, field, value)
                told.append((instance, self.update_fields, False))
        return told

    def _settle_changes(self, instance: Model, changes: Changes) -> list[ModelField]:
        """Make an instance hold what its row does, and return the fields of which only the row tells."""
        unknown = []
        for field, value in changes.items():
            if files.holds_files(field):
                # Where there is no file, its row has ''.
                value.name = value.name or ""
            elif (row_value := self._row_value(field, value)) is UNKNOWN:
                unknown.append(field)
            else:
                columns.assign(instance, field, row_value)
        return unknown

    def _row_value(self, field: ModelField, value: Any) -> Any:
        if hasattr(value, "resolve_expression") or not columns.is_predictable(field):
            return UNKNOWN
        return columns.predicted(field, value, self.connection)

    def _wanted(
        self, changes: dict[Any, Changes], refresh_fields: Iterable[ModelField]
    ) -> Callable[[type[Model]], list[ModelField]]:
        open_ = {field.attname for field in refresh_fields}
        written = self.written.union(*changes.values())

        def wanted(model: type[Model]) -> list[ModelField]:
            # By name: an instance may be of another model of the same table.
            mine = [field for field in model._meta.concrete_fields if field.attname in open_]
            return [*mine, *columns.generated_from(model, written)]

        return wanted

    def _saved(self, changed: Changes | None) -> frozenset[str]:
        if not changed:
            return self.update_fields
        return self.update_fields | {field.name for field in changed}

    def after(self, told: Told, flight: in_flight.Flight) -> int:
        """Send `post_save`, and return how many rows a receiver deleted before their turn."""
        awaited = sending.is_awaited(post_save, self.senders)
        with rounds.opened(post_save, self.senders):
            return tell_after(told, self.using, flight, awaited=awaited)


def tell_after(told: Told, using: str, flight: in_flight.Flight, *, awaited: bool) -> int:
    """Send `post_save`, and return how many rows a receiver deleted before their turn."""
    gone: set[Any] = set()
    doubtful: Told = []
    step = FEW
    while told or doubtful:
        flight.deletions = 0
        sent = async_to_sync(_await_sent)(told, using, flight) if awaited else _send(told, using, flight)
        # Where each receiver deletes something, to look for all the others each time would take the square.
        step = FEW if flight.deletions else step * 2
        rest = [*told[sent:], *doubtful]
        told, doubtful = _found(rest[:step], using, gone), rest[step:]
    return len(gone)


def _found(told: Told, using: str, gone: set[Any]) -> Told:
    """Return those that still have a row, and add the others to the rows that are gone."""
    there = refresh((instance for instance, *_ in told), using, lambda model: [])
    gone.update(_row_of(instance) for instance, *_ in told if id(instance) not in there)
    return [row for row in told if id(row[0]) in there]


def _send(told: Told, using: str, flight: in_flight.Flight) -> int:
    """Send `post_save` until a receiver deletes a row, any row, and return how often."""
    for count, (instance, names, created) in enumerate(told, 1):
        sending.send_post_save(instance, using, names, created)
        if flight.deletions:
            return count
    return len(told)


async def _await_sent(told: Told, using: str, flight: in_flight.Flight) -> int:
    """Do as `_send`, all in one coroutine."""
    for count, (instance, names, created) in enumerate(told, 1):
        await sending.asend_post_save(instance, using, names, created)
        if flight.deletions:
            return count
    return len(told)


def _row_of(instance: Any) -> Any:
    """Return what tells an instance's row from others: its key, unless a receiver's `delete()` took it."""
    return (instance.pk,) if instance._is_pk_set() else id(instance)


def _holds(instance: Model, field: ModelField, value: Any, is_unassigned: bool) -> bool:
    """Return whether the value in a row is what was sent; a value as it was before is not."""
    if field.attname not in instance.__dict__:
        return True
    return bool((instance.__dict__[field.attname] == value) is not is_unassigned)
