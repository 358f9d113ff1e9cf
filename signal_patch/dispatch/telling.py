"""The two rounds of signals of a batch, around its write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.db import connections
from django.db.models import QuerySet
from django.db.models.signals import post_save, pre_save

from . import fields, rounds, rows, sending
from .changes import Changes, Watch

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from ..options import Options

    ModelField = Field[Any, Any]
    # Instances, and what `post_save` says of their saves: `update_fields` and `created`.
    Told = list[tuple[Model, frozenset[str] | None, bool]]

# How many rows are looked for at first, once a receiver has deleted some.
FEW = 10


class Teller:
    """Sends the saves of one bulk operation's instances, batch by batch.

    `update_fields` are the names of the fields that the caller writes.
    """

    def __init__(
        self,
        senders: Collection[type[Model]],
        using: str,
        options: Options,
        update_fields: frozenset[str],
        written: Iterable[ModelField],
    ) -> None:
        self.using = using
        self.options = options
        self.update_fields = update_fields
        self.written = set(written)
        self.connection = connections[using]
        self.senders = senders
        self.rounds = rounds.Rounds(using, options, senders)
        self.watches: dict[type[Model], Watch] = {}

    @property
    def hears_post_save(self) -> bool:
        """Whether somebody listens by now: a receiver may have connected another."""
        return sending.is_heard(post_save, self.senders)

    def before(self, pairs: list[tuple[Any, Model]]) -> dict[Any, Changes]:
        """Send `pre_save` for each instance, and return what receivers changed, by key."""
        self.rounds.begin_batch(instance for _, instance in pairs)
        if not sending.is_heard(pre_save, self.senders):
            return {}
        # A hop between this thread and an event loop costs more than all the rest of a row.
        awaited = sending.is_awaited(pre_save, self.senders)
        if awaited or rounds.has_list_receivers(pre_save, self.senders):
            return self._before_in_steps(pairs, awaited=awaited)
        with self.rounds.open(pre_save):
            return self._before_one_by_one(pairs)

    def _before_one_by_one(self, pairs: list[tuple[Any, Model]]) -> dict[Any, Changes]:
        changes: dict[Any, Changes] = {}
        using, update_fields, watches = self.using, self.update_fields, self.watches
        for key, instance in pairs:
            watch = watches.get(type(instance)) or self._watch(type(instance))
            snapshot = watch.snapshot(instance)
            sending.send_pre_save(instance, using, update_fields)
            if watch.may_differ(instance, snapshot):
                changed = watch.changes(instance, snapshot)
                if changed:
                    changes[key] = changed
        return changes

    def _before_in_steps(self, pairs: list[tuple[Any, Model]], *, awaited: bool) -> dict[Any, Changes]:
        """Do as `before`, but compare when all signals are sent.

        A coroutine sends them all, and comparing may query the database, so it happens in this thread. And
        receivers of lists change the instances at the end.
        """
        snapshots = [self._watch(type(instance)).snapshot(instance) for _, instance in pairs]

        async def send() -> None:
            for _, instance in pairs:
                await sending.asend_pre_save(instance, self.using, self.update_fields)

        with self.rounds.open(pre_save):
            if awaited:
                async_to_sync(send)()
            else:
                for _, instance in pairs:
                    sending.send_pre_save(instance, self.using, self.update_fields)
        found = {
            key: self._watch(type(instance)).changes(instance, snapshot)
            for (key, instance), snapshot in zip(pairs, snapshots, strict=True)
        }
        return {key: changed for key, changed in found.items() if changed}

    def _watch(self, model: type[Model]) -> Watch:
        if model not in self.watches:
            watched = fields.writable_fields(model)
            if not self.options.write_back:
                watched = [field for field in watched if field.name in self.update_fields]
            self.watches[model] = Watch(watched, self.connection)
        return self.watches[model]

    def settle(
        self,
        pairs: list[tuple[Any, Model]],
        changes: dict[Any, Changes],
        unsure: Iterable[ModelField],
        *,
        all_there: bool,
    ) -> Told:
        """Make instances tell what their rows hold after the write.

        Returns those that have a row, with the names of the fields that were saved. `unsure`
        are the fields of which only the row knows the value.
        """
        if not self.hears_post_save:
            return []
        wanted = self._wanted(changes, unsure)
        instances = [instance for _, instance in pairs]
        for key, instance in pairs if changes else ():
            self._settle_changes(instance, changes.get(key, {}))
        if not all_there or any(map(wanted, set(map(type, instances)))):
            present = reread(instances, self.using, wanted)
            pairs = [(key, instance) for key, instance in pairs if id(instance) in present]
        if not changes:
            return [(instance, self.update_fields, False) for _, instance in pairs]
        return [(instance, self._saved(changes.get(key)), False) for key, instance in pairs]

    def settle_by(
        self,
        stored: Mapping[Any, Sequence[Any]],
        pairs: list[tuple[Any, Model]],
        asked: Sequence[ModelField],
    ) -> Told:
        """Do as `settle` where the write has told the `asked` fields of its rows, by key."""
        attnames = [field.attname for field in asked]
        fields.leave_unmeasured((instance for key, instance in pairs if key in stored), asked)
        told: Told = []
        for key, instance in pairs:
            values = stored.get(key)
            # A row that is gone is not told of.
            if values is not None:
                for attname, value in zip(attnames, values, strict=True):
                    setattr(instance, attname, value)
                told.append((instance, self.update_fields, False))
        return told

    def _settle_changes(self, instance: Model, changes: Changes) -> None:
        for field, value in changes.items():
            if fields.holds_files(field):
                # Where there is no file, its row has ''.
                value.name = value.name or ""
            elif not _is_unsure(field, value):
                setattr(instance, field.attname, fields.row_value(field, value, self.connection))

    def _wanted(
        self, changes: dict[Any, Changes], unsure: Iterable[ModelField]
    ) -> Callable[[type[Model]], list[ModelField]]:
        changed = [item for by_field in changes.values() for item in by_field.items()]
        open_ = dict.fromkeys([*unsure, *(f for f, v in changed if _is_unsure(f, v))])
        written = self.written.union(field for field, _ in changed)

        def wanted(model: type[Model]) -> list[ModelField]:
            columns = set(model._meta.concrete_fields)
            mine = [field for field in open_ if field in columns]
            return [*mine, *fields.generated_from(model, written)]

        return wanted

    def _saved(self, changed: Changes | None) -> frozenset[str]:
        if not changed:
            return self.update_fields
        return self.update_fields | {field.name for field in changed}

    def after(self, told: Told, flight: sending.Flight) -> int:
        """Send `post_save`, and return how many rows a receiver deleted before their turn."""
        awaited = sending.is_awaited(post_save, self.senders)
        with self.rounds.open(post_save):
            return tell_after(told, self.using, flight, awaited=awaited)


def tell_after(told: Told, using: str, flight: sending.Flight, *, awaited: bool) -> int:
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
    there = reread((instance for instance, *_ in told), using, lambda model: [])
    gone.update(_row_of(instance) for instance, *_ in told if id(instance) not in there)
    return [row for row in told if id(row[0]) in there]


def _send(told: Told, using: str, flight: sending.Flight) -> int:
    """Send `post_save` until a receiver deletes a row, any row, and return how often."""
    for count, (instance, names, created) in enumerate(told, 1):
        sending.send_post_save(instance, using, names, created)
        if flight.deletions:
            return count
    return len(told)


async def _await_sent(told: Told, using: str, flight: sending.Flight) -> int:
    """Do as `_send`, all in one coroutine."""
    for count, (instance, names, created) in enumerate(told, 1):
        await sending.asend_post_save(instance, using, names, created)
        if flight.deletions:
            return count
    return len(told)


def _row_of(instance: Any) -> Any:
    """Return what tells an instance's row from others: its key, unless a receiver's `delete()` took it."""
    return (instance.pk,) if instance._is_pk_set() else id(instance)


def _is_unsure(field: ModelField, value: Any) -> bool:
    return hasattr(value, "resolve_expression") or not fields.is_predictable(field)


def reread(
    instances: Iterable[Model], using: str, wanted: Callable[[type[Model]], list[ModelField]]
) -> set[int]:
    """Set the wanted fields to what the rows hold, and return the `id()` of the instances that have a row.

    `wanted` gives the fields by the class of an instance.
    """
    by_class: dict[type[Model], list[Model]] = defaultdict(list)
    for instance in instances:
        by_class[type(instance)].append(instance)
    present: set[int] = set()
    for model, members in by_class.items():
        mine = wanted(model)
        attnames = [field.attname for field in mine]
        keys = sending.stored_keys(model, map(rows.key_getter(model), members))
        found = _stored(model, using, keys, attnames)
        there = [instance for key, instance in zip(keys, members, strict=True) if key in found]
        present.update(map(id, there))
        fields.leave_unmeasured(there, mine)
        for key, instance in zip(keys, members, strict=True):
            # A row that is gone has no values to set.
            for attname, value in zip(attnames, found.get(key, (None,))[1:], strict=False):
                setattr(instance, attname, value)
    return present


def _stored(
    model: type[Model], using: str, keys: list[Any], attnames: list[str]
) -> dict[Any, tuple[Any, ...]]:
    """Return the rows with the given keys, by key: the key itself, then the attributes."""
    everything: QuerySet[Any] = QuerySet(model, using=using)
    return {row[0]: row for row in rows.at(everything, keys).values_list("pk", *attnames)}
