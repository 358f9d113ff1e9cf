"""What expressions read, and some expressions of this library's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.db.models import Field, Value
from django.db.models.expressions import Col
from django.db.models.sql import Query

from signal_patch.dispatch.backends.base import Selected

# The value of a column that only the row can tell, or that cannot be read.
UNKNOWN = object()


def nodes(expression: Any) -> Iterator[Any]:
    """Yield a resolved expression and everything inside it, also conditions, which have no `flatten()`.

    What is inside a query is not yielded.
    """
    yield expression
    # Raw conditions do not have this method.
    sources: list[Any] = getattr(expression, "get_source_expressions", list)()
    for source in (part for part in sources if part is not None):
        yield from nodes(source)


def resolved_to_save(value: Any, query: Query) -> Any:
    """Return an expression resolved as Django resolves the value of an UPDATE: twice.

    (UpdateQuery.add_update_fields and SQLUpdateCompiler.as_sql, Django 5.2 to 6.1.) The second time turns an
    OuterRef into a column.
    """
    once = value.resolve_expression(query, allow_joins=False, for_save=True)
    return once.resolve_expression(query, allow_joins=False, for_save=True)


def columns_of(resolved: Any) -> list[Col]:
    """Return the columns in a resolved expression, including those of joined tables."""
    return [node for node in nodes(resolved) if isinstance(node, Col)]


def read_by(resolved: Any) -> set[Field[Any, Any]]:
    """Return the fields that a resolved expression reads from its row, also inside its subqueries."""
    outer = [node.get_external_cols() for node in nodes(resolved) if isinstance(node, Query)]
    return {column.target for column in chain(columns_of(resolved), *outer)}


class Saved(Value):
    """A value that is prepared as for saving, even in a SELECT."""

    for_save = True

    def resolve_expression(self, *args: Any, **keywords: Any) -> Any:
        resolved = super().resolve_expression(*args, **keywords)
        resolved.for_save = True
        return resolved


class Tried(Selected):
    """An expression whose value is UNKNOWN if its field cannot read what the database returns.

    Django adds the converters of the output field, so this one has an output field without any.
    """

    def __init__(self, expression: Any) -> None:
        super().__init__(expression, output_field=Field())

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        return self.expression.select_format(compiler, sql, params)

    def get_db_converters(self, connection: Any) -> list[Any]:
        inner = self.expression
        converters = connection.ops.get_db_converters(inner) + inner.get_db_converters(connection)

        def convert(value: Any, _: Any, connection: Any) -> Any:
            try:
                for converter in converters:
                    value = converter(value, inner, connection)
            except Exception:  # noqa: BLE001  # whatever a converter raises
                return UNKNOWN
            return value

        return [convert]
