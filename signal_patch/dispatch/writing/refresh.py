"""What rows hold after the write, read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet

from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import getter
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns, files
from signal_patch.dispatch.values.expressions import UNKNOWN

if TYPE_CHECKING:
    from django.db.models import Field, Model

    ModelField = Field[Any, Any]


def refresh(
    instances: Iterable[Model], using: str, wanted: Callable[[type[Model]], list[ModelField]]
) -> set[int]:
    """Set the wanted fields to what the rows hold, and return the `id()` of the instances that have a row.

    `wanted` gives the fields by the class of an instance.
    """
    present: set[int] = set()
    for mine, found in read_rows(instances, using, wanted):
        there = [instance for instance, _ in found]
        present.update(map(id, there))
        files.leave_unmeasured(there, mine)
        for instance, row in found:
            for field, value in zip(mine, row, strict=True):
                if value is not UNKNOWN:
                    columns.assign(instance, field, value)
    return present


def read_rows(
    instances: Iterable[Model], using: str, wanted: Callable[[type[Model]], list[ModelField]]
) -> Iterator[tuple[list[ModelField], list[tuple[Model, tuple[Any, ...]]]]]:
    """Yield, class by class, the wanted fields and the instances that have a row, with what it holds."""
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
    """Return the rows with the given keys, by key: the key itself, then the attributes."""
    # A row that the UPDATE has left as it was, a plain SELECT would show as another transaction found it.
    all_rows = querysets.with_keys(querysets.current(QuerySet(model, using=using)), keys)
    try:
        return {row[0]: row for row in all_rows.values_list("pk", *attnames)}
    except Exception:  # noqa: BLE001  # whatever a conversion raises: SQLite's columns take what fields can't read
        present = querysets.keys_of(all_rows)
    columns = [_readable(model, using, present, attname) for attname in attnames]
    return {key: (key, *(column.get(key, UNKNOWN) for column in columns)) for key in present}


def _readable(model: type[Model], using: str, keys: list[Any], attname: str) -> dict[Any, Any]:
    """Return one attribute of the rows with the given keys, by key, where the field can read the column."""
    all_rows = querysets.with_keys(querysets.current(QuerySet(model, using=using)), keys)
    try:
        return dict(all_rows.values_list("pk", attname))
    except Exception:  # noqa: BLE001  # as above
        middle = len(keys) // 2
    halves = (keys[:middle], keys[middle:]) if middle else ()
    return {key: value for half in halves for key, value in _readable(model, using, half, attname).items()}
