"""Makes two runs that create rows comparable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db.models import AutoField

from tests.parity.comparison import Allowed, Outcome
from tests.parity.receivers import Boom

if TYPE_CHECKING:
    from django.db.models import Model

    from tests.parity.receivers import Sent

Numbers = dict[str, str]


def renumbered(found: Outcome, model: type[Model], known: set[str]) -> Outcome:
    """Number the keys that the database generated from one on, because each run gets other keys."""
    concrete: Any = model._meta.concrete_model
    key = concrete._meta.pk
    if not isinstance(key, AutoField):
        return found
    table = concrete.__name__
    rows = found.tables[table]
    new = {*rows, *(sent.key for sent in found.log)} - known - {"None"}
    numbers = {number: f"new {place}" for place, number in enumerate(sorted(new, key=int), 1)}
    renumbered = {
        numbers.get(number, number): _cells(row, key.attname, numbers) for number, row in rows.items()
    }
    error = found.error
    if isinstance(error, Boom):
        # The message contains the instance at which it was raised.
        error = Boom(numbers.get(str(error), str(error)))
    return replace(
        found,
        error=error,
        log=[_sent(sent, key.attname, numbers) for sent in found.log],
        tables={**found.tables, table: renumbered},
    )


def _sent(sent: Sent, name: str, numbers: Numbers) -> Sent:
    fields = _cells(sent.fields, name, numbers)
    return replace(sent, key=numbers.get(sent.key, sent.key), fields=fields)


def _cells(cells: dict[str, Any], name: str, numbers: Numbers) -> dict[str, Any]:
    return {**cells, name: _renumber(cells[name], numbers)}


def _renumber(value: Any, numbers: Numbers) -> Any:
    if isinstance(value, Allowed):
        return Allowed(tuple(_renumber(each, numbers) for each in value.values))
    kind, number = value
    return kind, numbers.get(number, number)


def alike(model: type[Model], wanted: Outcome, seen: Outcome) -> tuple[Outcome, Outcome]:
    """Remove from both logs what instances may or may not have, and what contains their addresses."""
    generated = {field.attname for field in model._meta.concrete_fields if field.generated}
    pairs = [_alike(generated, *pair) for pair in zip(wanted.log, seen.log, strict=False)]
    logs = [[pair[side] for pair in pairs] + run.log[len(pairs) :] for side, run in enumerate((wanted, seen))]
    return replace(wanted, log=logs[0]), replace(seen, log=logs[1])


def _alike(generated: set[str], want: Sent, saw: Sent) -> tuple[Sent, Sent]:
    # If an instance lacks a generated column, reading it queries the row.
    lacking = generated - (want.fields.keys() & saw.fields.keys())
    return _without(want, lacking), _without(saw, lacking)


def _without(sent: Sent, names: set[str]) -> Sent:
    fields = {name: _printed(value) for name, value in sent.fields.items() if name not in names}
    return replace(sent, fields=fields)


def _printed(value: Any) -> Any:
    is_default = isinstance(value, tuple) and value[0] == "DatabaseDefault"
    return ("DatabaseDefault", "") if is_default else value
