"""Rehearsals: run Django's own statement, read the values that it writes, and roll it back.

Where SET works from left to right (MariaDB, MySQL), an expression reads columns that the same statement has
assigned before it, unless the statement also reads the table that it writes. Only the database knows the
resulting values. So Django's statement runs in a savepoint, its rows are read, and the savepoint is rolled
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.db import DataError, IntegrityError, connections, transaction
from django.db.models import F, QuerySet

from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import fields_of, of_parts
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.expressions import UNKNOWN, Tried

if TYPE_CHECKING:
    from django.db.models import Field, Model

    ModelField = Field[Any, Any]


def rehearse(
    statement: Callable[[], object],
    model: type[Model],
    using: str,
    keys: Sequence[Any],
    fields: Sequence[ModelField],
    new_keys: Mapping[ModelField, Any] = MappingProxyType({}),
    before_key: Callable[[], object] = lambda: None,
) -> dict[Any, tuple[Any, ...]]:
    """Return, by key, what the fields of these rows hold after a statement, and roll the statement back.

    `new_keys` are expressions for the parts of the key that the statement changes. They read the row as the
    statement `before_key` leaves it, which assigns what comes before the key. Returns nothing if the database
    refuses the values, because a receiver may still change them. Whatever else the database refuses is
    raised, as Django's statement would raise it.
    """
    all_rows: QuerySet[Any] = QuerySet(model, using=using)
    try:
        with in_flight.silence(model), _rolled_back(using):
            if new_keys:
                with _rolled_back(using):
                    before_key()
                    renamed = _renamed(all_rows, keys, new_keys)
            else:
                renamed = dict(zip(keys, keys, strict=True))
            statement()
            stored = _read(all_rows, list(renamed), fields)
    except (DataError, IntegrityError):
        return {}
    return {renamed[key]: row for key, row in stored.items()}


def try_out(statement: Callable[[], object], model: type[Model], using: str) -> None:
    """Run a statement and roll it back, so that the database's errors about the statement are raised.

    Errors about its values are suppressed, because a receiver may still change these.
    """
    with suppress(DataError, IntegrityError), in_flight.silence(model), _rolled_back(using):
        statement()


@contextmanager
def _rolled_back(using: str) -> Iterator[None]:
    with transaction.atomic(using=using):
        yield
        transaction.set_rollback(True, using=using)


def _renamed(
    all_rows: QuerySet[Any], keys: Sequence[Any], new_keys: Mapping[ModelField, Any]
) -> dict[Any, Any]:
    """Return the present keys of the rows, by their new keys."""
    aliases = {field: f"signal_patch_{field.attname}" for field in new_keys}
    names = [aliases.get(field, field.attname) for field in fields_of(all_rows.model)]
    annotations = {aliases[field]: expression for field, expression in new_keys.items()}
    found: dict[Any, Any] = {}
    for rows in _parts(all_rows, keys):
        for key, *new in querysets.keyed(rows.annotate(**annotations), *names):
            found[of_parts(new)] = key
    return found


def _read(
    all_rows: QuerySet[Any], keys: Sequence[Any], fields: Sequence[ModelField]
) -> dict[Any, tuple[Any, ...]]:
    connection = connections[all_rows.db]
    annotations = {
        f"signal_patch_{field.attname}": Tried(columns.as_precomputed(F(field.attname), field, connection))
        for field in fields
    }
    return {
        key: tuple(values)
        for rows in _parts(all_rows, keys)
        # A plain SELECT may show an older version of a row that the statement did not change.
        for key, *values in querysets.keyed(querysets.current(rows.annotate(**annotations)), *annotations)
        # Values that a field cannot read are left to the statement.
        if all(value is not UNKNOWN for value in values)
    }


def _parts(all_rows: QuerySet[Any], keys: Sequence[Any]) -> Iterator[QuerySet[Any]]:
    size = min(querysets.LOCKED_AT_ONCE, querysets.largest_batch(all_rows.db, all_rows.model))
    for start in range(0, len(keys), size):
        yield querysets.with_keys(all_rows, keys[start : start + size])
