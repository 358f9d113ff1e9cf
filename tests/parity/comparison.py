"""Compares what two runs left behind."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import isclose
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldError, ValidationError
from django.db import DatabaseError

from tests.parity.rows import frozen
from tests.parity.scenario import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parity.receivers import Sent

Frozen = tuple[str, object]

# The errors with which Django refuses values and references without asking the database.
REFUSALS = (FieldError, TypeError, ValidationError, ValueError)


@dataclass(frozen=True)
class Allowed:
    """Any of these values."""

    values: tuple[Frozen, ...]

    def allows(self, seen: Frozen) -> bool:
        return seen in self.values

    def like(self, seen: Frozen) -> bool:
        """Return whether the value is of the right type at least."""
        return seen[0] in {kind for kind, _ in self.values}


@dataclass(frozen=True)
class Anything:
    def allows(self, seen: Frozen) -> bool:
        return True

    like = allows


@dataclass(frozen=True)
class Near:
    """This value, or one that the column would round to it."""

    value: Any

    def allows(self, seen: Frozen) -> bool:
        if seen == frozen(self.value):
            return True
        if seen[0] != type(self.value).__name__:
            return False
        seen_value = type(self.value)(str(seen[1]).removeprefix("Decimal('").removesuffix("')"))
        if isinstance(self.value, Decimal):
            # An equal number in another form, such as 15 for 15.00, was not rounded by the column.
            unit = Decimal(1).scaleb(int(self.value.as_tuple().exponent))
            return bool(0 < abs(seen_value - self.value) <= unit)
        return isclose(seen_value, self.value, rel_tol=1e-9)

    like = allows


Allowance = Allowed | Anything | Near


@dataclass(frozen=True)
class Outcome:
    """All that a run leaves behind."""

    result: object
    error: Exception | None
    log: list[Sent]
    tables: dict[str, dict[str, dict[str, Frozen]]]
    gone: set[str]


def differing_cells(scenario: Call, wanted: Outcome, seen: Outcome) -> list[str]:
    """Return a line for each cell that differs. Of a volatile column only the type is compared."""
    return list(_cells(scenario.volatile_columns(), wanted.tables, seen.tables))


def _cells(volatile: set[str], wanted: dict[str, Any], seen: dict[str, Any]) -> Iterator[str]:
    for table, rows in wanted.items():
        if rows.keys() != seen[table].keys():
            yield f"{table}: rows {sorted(rows)} expected, {sorted(seen[table])} found"
            continue
        for key, row in rows.items():
            for name, value in row.items():
                found = seen[table][key][name]
                if found[0] != value[0] or (found != value and name not in volatile):
                    yield f"{table} {key}.{name}: {value} expected, {found} found"


def differences(scenario: Call, wanted: Outcome, seen: Outcome) -> list[str]:
    """Return a line for each difference that the contract does not allow."""
    if wanted.error or seen.error:
        errors = list(_errors(scenario, wanted, seen))
        return errors + differing_cells(scenario, wanted, seen)
    lines = differing_cells(scenario, wanted, seen)
    if wanted.result != seen.result:
        lines.append(f"returned {wanted.result} expected, {seen.result} found")
    return lines + list(_logs(scenario, wanted, seen)) + list(_volatile(scenario, seen))


def _is_refused_earlier(wanted: Outcome, seen: Outcome) -> bool:
    """Return whether Django refused first, although its own statement met the database's refusal first.

    An update of several tables is several statements, and Django checks each of them when its turn comes.
    """
    return isinstance(wanted.error, DatabaseError) and isinstance(seen.error, REFUSALS) and not seen.log


def _is_refused_twice(scenario: Call, wanted: Outcome, seen: Outcome) -> bool:
    """Return whether the database refuses two things, so that in batches it may meet the other one first."""
    in_batches = scenario.batch_size < Call.batch_size
    return in_batches and isinstance(wanted.error, DatabaseError) and isinstance(seen.error, DatabaseError)


def _errors(scenario: Call, wanted: Outcome, seen: Outcome) -> Iterator[str]:
    if _is_refused_earlier(wanted, seen) or _is_refused_twice(scenario, wanted, seen):
        return
    if type(wanted.error) is not type(seen.error):
        yield f"{wanted.error!r} expected, {seen.error!r} found"
    elif not isinstance(wanted.error, DatabaseError):
        if str(wanted.error) != str(seen.error):
            yield f"message {wanted.error} expected, {seen.error} found"
        yield from _entries(scenario.volatile_columns(), wanted.log, seen.log)


def _logs(scenario: Call, wanted: Outcome, seen: Outcome) -> Iterator[str]:
    """Compare the signals. A row that a receiver deleted may or may not have been announced before."""
    gone = wanted.gone | seen.gone
    logs = [
        [sent for sent in outcome.log if not (sent.signal == "pre" and sent.key in gone)]
        for outcome in (wanted, seen)
    ]
    if not scenario.total_order:
        logs = [sorted(log, key=lambda sent: sent.key) for log in logs]
    return _entries(scenario.volatile_columns(), *logs)


def _entries(volatile: set[str], wanted: list[Sent], seen: list[Sent]) -> Iterator[str]:
    titles = [[(sent.signal, sent.sender, sent.key) for sent in log] for log in (wanted, seen)]
    if titles[0] != titles[1]:
        yield f"signals {titles[0]} expected, {titles[1]} found"
        return
    for title, want, saw in zip(titles[0], wanted, seen, strict=True):
        if want.arguments != saw.arguments:
            yield f"{title}: arguments {want.arguments} expected, {saw.arguments} found"
        if want.honest != saw.honest:
            yield f"{title}: {want.honest} expected, {saw.honest} found"
        if want.fields.keys() != saw.fields.keys():
            yield f"{title}: fields {sorted(want.fields)} expected, {sorted(saw.fields)} found"
            continue
        for name, value in want.fields.items():
            allowed = value if isinstance(value, Allowance) else Allowed((value,))
            found = saw.fields[name]
            if not allowed.allows(found) and not (name in volatile and allowed.like(found)):
                yield f"{title}: {name}={value} expected, {found} found"


def _volatile(scenario: Call, seen: Outcome) -> Iterator[str]:
    """At ``post_save`` a value that cannot be predicted is that of the row."""
    table: Any = scenario.model._meta.concrete_model
    rows = seen.tables[table.__name__]
    for sent in seen.log:
        if sent.signal == "post" and not scenario.hearing.actions:
            for name in scenario.volatile_columns():
                value = rows[sent.key][name]
                if sent.fields[name] != value:
                    yield f"post_save of {sent.key}: {name}={value} expected, {sent.fields[name]} found"
