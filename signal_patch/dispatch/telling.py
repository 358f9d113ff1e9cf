"""The two rounds of signals of a batch, around its write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections
from django.db.models import QuerySet
from django.db.models.signals import post_save, pre_save

from . import fields, rows, sending
from .changes import Changes, Watch

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from ..options import Options

    ModelField = Field[Any, Any]
    Told = list[tuple[Model, frozenset[str]]]

Note = TypeVar("Note")


class Teller:
    """Sends the saves of one bulk operation's instances, batch by batch.

    `update_fields` are the names of the fields that the caller writes.
    """

    def __init__(
        self,
        queryset: QuerySet[Any],
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
        self.hears_pre_save = sending.has_listeners(pre_save, queryset)
        self.hears_post_save = sending.has_listeners(post_save, queryset)
        self.watches: dict[type[Model], Watch] = {}

    def before(self, pairs: list[tuple[Any, Model]]) -> dict[Any, Changes]:
        """Send `pre_save` for each instance, and return what receivers changed, by key."""
        if not self.hears_pre_save:
            return {}
        changes: dict[Any, Changes] = {}
        for key, instance in pairs:
            watch = self._watch(type(instance))
            snapshot = watch.snapshot(instance)
            sending.send_pre_save(instance, self.using, self.update_fields)
            if changed := watch.changes(instance, snapshot):
                changes[key] = changed
        return changes

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
        for key, instance in pairs:
            self._settle_changes(instance, changes.get(key, {}))
        wanted = self._wanted(changes, unsure)
        instances = [instance for _, instance in pairs]
        if not all_there or any(wanted(model) for model in {type(i) for i in instances}):
            present = reread(instances, self.using, wanted)
            pairs = [(key, instance) for key, instance in pairs if instance.pk in present]
        return [(instance, self._saved(changes.get(key))) for key, instance in pairs]

    def _settle_changes(self, instance: Model, changes: Changes) -> None:
        for field, value in changes.items():
            if not _is_unsure(field, value) and not fields.holds_files(field):
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
        gone = 0
        for instance, names in still_there(told, self.using, flight):
            if instance is None:
                gone += 1
            else:
                sending.send_post_save(instance, self.using, names)
        return gone


def still_there(
    told: list[tuple[Model, Note]], using: str, flight: sending.Flight
) -> Iterator[tuple[Model | None, Note]]:
    """Yield instances with what is noted of each, None for those whose row a receiver has
    deleted before their turn.
    """
    deletions = flight.deletions
    there: set[Any] | None = None
    for position, (instance, note) in enumerate(told):
        if flight.deletions != deletions:
            deletions = flight.deletions
            rest = [other for other, _ in told[position:]]
            there = reread(rest, using, lambda model: [])
        yield (instance if there is None or instance.pk in there else None), note


def _is_unsure(field: ModelField, value: Any) -> bool:
    return hasattr(value, "resolve_expression") or not fields.is_plain(field)


def reread(
    instances: Iterable[Model], using: str, wanted: Callable[[type[Model]], list[ModelField]]
) -> set[Any]:
    """Set the wanted fields to what the rows hold, and return the keys of the rows there are.

    `wanted` gives the fields by the class of an instance.
    """
    by_class: dict[type[Model], list[Model]] = defaultdict(list)
    for instance in instances:
        by_class[type(instance)].append(instance)
    present: set[Any] = set()
    for model, members in by_class.items():
        attnames = [field.attname for field in wanted(model)]
        found = _stored(model, using, [instance.pk for instance in members], attnames)
        present.update(found)
        for instance in members:
            for attname, value in zip(attnames, found.get(instance.pk, ()), strict=False):
                setattr(instance, attname, value)
    return present


def _stored(
    model: type[Model], using: str, keys: list[Any], attnames: list[str]
) -> dict[Any, tuple[Any, ...]]:
    everything: QuerySet[Any] = QuerySet(model, using=using)
    found = rows.at(everything, keys).values_list("pk", *attnames)
    return {key: tuple(values) for key, *values in found}
