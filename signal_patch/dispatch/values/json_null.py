"""JSON's null and SQL's NULL: a JSONField reads both as None.

When None is saved, it becomes NULL. If an expression gives JSON's null, `JsonNull` represents it until it is
written; receivers see None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Field, JSONField, Value

from signal_patch.dispatch.backends.base import Selected

if TYPE_CHECKING:
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]


class JsonNull(Value):
    """JSON's null as an expression, for an UPDATE."""

    def __init__(self) -> None:
        super().__init__(None, output_field=JSONField())

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql: tuple[str, tuple[Any, ...]] = compiler.compile(
            Value(connection.ops.adapt_json_value(None, None))
        )
        return sql


class _WithJsonNull(Selected):
    """A JSON expression whose value is `JsonNull` for JSON's null, and None for NULL."""

    def get_db_converters(self, connection: Any) -> list[Any]:
        converters = super().get_db_converters(connection)

        def convert(value: Any, expression: Any, connection: Any) -> Any:
            if value is None:
                return None
            for converter in converters:
                value = converter(value, expression, connection)
            return JsonNull() if value is None else value

        return [convert]


def selected(column: BaseExpression, field: ModelField) -> BaseExpression:
    """Return a column to select so that its value can be written again: JSON's null becomes `JsonNull`."""
    return _WithJsonNull(column, output_field=field) if isinstance(field, JSONField) else column


def as_loaded(value: Any) -> Any:
    """Turn a value from a `selected()` column into the value that a loaded instance has."""
    return None if isinstance(value, JsonNull) else value


def saved(field: ModelField, value: Any) -> Any:
    """Return `JsonNull` for a value that an UPDATE saves as JSON's null, and any other value unchanged.

    (JSONField.get_db_prep_save, Django 5.2 to 6.1.)
    """
    if not isinstance(field, JSONField) or not isinstance(value, Value) or value.value is not None:
        return value
    return JsonNull() if isinstance(getattr(value, "_output_field_or_none", None), JSONField) else value


def places(
    fields: Iterable[ModelField], selected: Mapping[Any, Sequence[Any]]
) -> set[tuple[ModelField, Any]]:
    """Return the pairs of field and key for which a value from `selected()` columns is JSON's null."""
    return {
        (field, key)
        for place, field in enumerate(fields)
        if isinstance(field, JSONField)
        for key, values in selected.items()
        if isinstance(values[place], JsonNull)
    }
