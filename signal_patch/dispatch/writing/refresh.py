"""Makes instances equal their rows after the write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import QuerySet

from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import getter
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns, files
from signal_patch.dispatch.values.expressions import UNKNOWN

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.dispatch.values.tracking import Changes

    ModelField = Field[Any, Any]
    Pairs = list[tuple[Any, Model]]


@dataclass(slots=True, repr=False)
class Written:
    """The result of writing a batch.

    `matched` is the number of rows that the write has matched, and `missing` how many more it should have
    matched. Only the rows know the values of the `refresh_fields`. In the fields that are `unassigned`, the
    instances still have the old values. `changes` are what receivers of `pre_save` changed, by key.
    `inserted` are the instances that an INSERT gave a row, each with whether the row is new.
    """

    matched: int
    changes: Mapping[Any, Changes] = dataclass_field(default_factory=dict)
    missing: int = 0
    refresh_fields: Sequence[ModelField] = ()
    unassigned: Collection[ModelField] = ()
    inserted: Sequence[tuple[Model, bool]] = ()


class Refresh:
    """Makes the instances of a batch equal their rows after some fields were written."""

    def __init__(self, using: str, fields: Iterable[ModelField], written: Written) -> None:
        self.using = using
        self.connection = connections[using]
        self.written = written
        self.changes = written.changes
        self.fields = set(fields).union(*written.changes.values())

    def run(self, pairs: Pairs) -> Pairs:
        """Refresh the instances of the pairs, and return the pairs whose row was written."""
        unknown = dict.fromkeys(self.written.refresh_fields)
        for key, instance in pairs if self.changes else ():
            unknown.update(dict.fromkeys(self._assign_changes(instance, self.changes.get(key, {}))))
        refresh_fields = list(unknown)
        if self.written.missing:
            pairs, refresh_fields = self._matched(pairs, refresh_fields)
        instances = [instance for _, instance in pairs]
        wanted = self._wanted(refresh_fields)
        if any(map(wanted, set(map(type, instances)))):
            present = refresh(instances, self.using, wanted)
            pairs = [pair for pair in pairs if id(pair[1]) in present]
        return pairs

    def _assign_changes(self, instance: Model, changes: Changes) -> list[ModelField]:
        """Assign the changes as the row holds them; return the fields whose values only the row knows."""
        unknown = []
        for field, value in changes.items():
            if files.holds_files(field):
                # Without a file, the row holds ''.
                value.name = value.name or ""
            elif (row_value := self._row_value(field, value)) is UNKNOWN:
                unknown.append(field)
            else:
                columns.assign_if_different(instance, field, row_value)
        return unknown

    def _row_value(self, field: ModelField, value: Any) -> Any:
        if hasattr(value, "resolve_expression") or not columns.is_predictable(field):
            return UNKNOWN
        return columns.predicted(field, value, self.connection)

    def _matched(self, pairs: Pairs, refresh_fields: list[ModelField]) -> tuple[Pairs, list[ModelField]]:
        """Return the pairs whose row was written, and the fields whose values only the row knows.

        A row may no longer exist. Or a trigger or PostgreSQL's row security has left it unchanged; then it
        does not hold the values that were sent. But a trigger may also have written other values. So a row
        counts as written if it holds the sent values in all fields. If too few rows do, the `refresh_fields`
        are left out of the comparison. If these are still too few, all existing rows count.
        """
        keys = {id(instance): key for key, instance in pairs}
        there: set[Any] = set()
        close: set[Any] = set()
        exact: set[Any] = set()
        for read, found in read_rows(
            (instance for _, instance in pairs),
            self.using,
            lambda model: [field for field in model._meta.concrete_fields if field in self.fields],
        ):
            for instance, row in found:
                key = keys[id(instance)]
                differing = {
                    field
                    for field, value in zip(read, row, strict=True)
                    if not self._holds_sent(instance, field, value)
                }
                there.add(key)
                if differing.issubset(refresh_fields):
                    close.add(key)
                if not differing:
                    exact.add(key)
        enough = len(set(keys.values())) - self.written.missing
        chosen = next((some for some in (exact, close) if len(some) >= enough), there)
        return (
            [pair for pair in pairs if pair[0] in chosen],
            refresh_fields if chosen is not there else [*refresh_fields, *self.fields],
        )

    def _holds_sent(self, instance: Model, field: ModelField, value: Any) -> bool:
        """Return whether the value in a row is the value that was sent."""
        if field.attname not in instance.__dict__:
            return True
        is_unassigned = field in self.written.unassigned
        return bool((instance.__dict__[field.attname] == value) is not is_unassigned)

    def _wanted(self, refresh_fields: Iterable[ModelField]) -> Callable[[type[Model]], list[ModelField]]:
        """Return a function that gives the fields to read for a class of instances."""
        # Compared by name, because an instance may be of another model of the same table.
        attnames = {field.attname for field in refresh_fields}

        def wanted(model: type[Model]) -> list[ModelField]:
            mine = [field for field in model._meta.concrete_fields if field.attname in attnames]
            return [*mine, *columns.generated_from(model, self.fields)]

        return wanted


def refresh(
    instances: Iterable[Model], using: str, wanted: Callable[[type[Model]], list[ModelField]]
) -> set[int]:
    """Set the wanted fields to the values in the rows; return the `id()` of the instances that have a row.

    `wanted` returns the fields for a class of instances.
    """
    present: set[int] = set()
    for mine, found in read_rows(instances, using, wanted):
        there = [instance for instance, _ in found]
        present.update(map(id, there))
        files.leave_unmeasured(there, mine)
        for place, field in enumerate(mine):
            columns.assign_each_if_different(there, field, [row[place] for _, row in found])
    return present


def read_rows(
    instances: Iterable[Model], using: str, wanted: Callable[[type[Model]], list[ModelField]]
) -> Iterator[tuple[list[ModelField], list[tuple[Model, tuple[Any, ...]]]]]:
    """Yield, for each class, the wanted fields, and the instances that have a row with the row's values."""
    by_class: dict[type[Model], list[Model]] = defaultdict(list)
    for instance in instances:
        by_class[type(instance)].append(instance)
    for model, members in by_class.items():
        mine = wanted(model)
        keys = in_flight.stored_keys(model, map(getter(model), members))
        found = _stored(model, using, keys, [field.attname for field in mine])
        yield (
            mine,
            [(instance, found[key][1:]) for key, instance in zip(keys, members, strict=True) if key in found],
        )


def _stored(
    model: type[Model], using: str, keys: list[Any], attnames: list[str]
) -> dict[Any, tuple[Any, ...]]:
    """Return the rows with these keys, by key: the key itself, then the attributes."""
    # If the UPDATE did not change a row, a plain SELECT may show an older version of it.
    all_rows = querysets.with_keys(querysets.current(QuerySet(model, using=using)), keys)
    try:
        return {row[0]: row for row in all_rows.values_list("pk", *attnames)}
    except Exception:  # noqa: BLE001  # whatever a conversion raises: SQLite may store what a field cannot read
        present = querysets.keys_of(all_rows)
    columns = [_readable(model, using, present, attname) for attname in attnames]
    return {key: (key, *(column.get(key, UNKNOWN) for column in columns)) for key in present}


def _readable(model: type[Model], using: str, keys: list[Any], attname: str) -> dict[Any, Any]:
    """Return one attribute of the rows with these keys, by key, as far as the field can read the column."""
    all_rows = querysets.with_keys(querysets.current(QuerySet(model, using=using)), keys)
    try:
        return dict(all_rows.values_list("pk", attname))
    except Exception:  # noqa: BLE001  # whatever a conversion raises
        middle = len(keys) // 2
    halves = (keys[:middle], keys[middle:]) if middle else ()
    return {key: value for half in halves for key, value in _readable(model, using, half, attname).items()}
