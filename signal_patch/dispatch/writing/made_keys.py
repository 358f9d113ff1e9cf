"""The keys that the database makes for new rows, where INSERT has no RETURNING (MySQL)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db.models.sql import InsertQuery

from signal_patch.dispatch import backends

if TYPE_CHECKING:
    from django.db.models import Field


def are_known(connection: Any) -> bool:
    """Return whether the keys of all rows of a multi-row INSERT can be known."""
    return (
        connection.features.can_return_rows_from_bulk_insert
        or backends.of(connection).made_keys_question() is not None
    )


def of_last_insert(field: Field[Any, Any], count: int, connection: Any) -> list[Any]:
    """Return the keys of the `count` rows that the last INSERT has made."""
    with connection.cursor() as cursor:
        cursor.execute(backends.of(connection).made_keys_question())
        first, step = cursor.fetchone()
    return as_read(field, range(first, first + step * count, step), connection)


def as_read(field: Field[Any, Any], values: Iterable[Any], connection: Any) -> list[Any]:
    """Convert values that come straight from the driver as Django's queries convert them."""
    compiler: Any = InsertQuery(field.model).get_compiler(connection=connection)
    converters = compiler.get_converters([field.get_col(field.model._meta.db_table)])
    return [value for (value,) in compiler.apply_converters(([value] for value in values), converters)]
