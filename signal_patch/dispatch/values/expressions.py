"""What expressions read, and some expressions of our own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from django.db.models import Field, Value
from django.db.models.expressions import Col, ExpressionWrapper
from django.db.models.sql import Query

from signal_patch.dispatch.backends.base import HashedByIdentity

if TYPE_CHECKING:
    _ExpressionWrapper = ExpressionWrapper[Any]
else:
    _ExpressionWrapper = ExpressionWrapper

# Stands for the value of a column where only the row can tell it, if that.
UNKNOWN = object()


def nodes(expression: Any) -> Iterator[Any]:
    """Yield a resolved expression and all inside it, conditions too, which have no `flatten()`.

    A query, which is no expression, is where to stop.
    """
    yield expression
    # Raw conditions have none.
    sources: list[Any] = getattr(expression, "get_source_expressions", list)()
    for source in (part for part in sources if part is not None):
        yield from nodes(source)


def resolved_to_save(value: Any, query: Query) -> Any:
    """Return an expression resolved as Django resolves the value of an UPDATE: twice.

    (UpdateQuery.add_update_fields and SQLUpdateCompiler.as_sql, Django 5.2 to 6.1.) The second time makes
    a column of an OuterRef.
    """
    once = value.resolve_expression(query, allow_joins=False, for_save=True)
    return once.resolve_expression(query, allow_joins=False, for_save=True)


def columns_of(resolved: Any) -> list[Col]:
    """Return the columns in a resolved expression, those of joined tables too."""
    return [node for node in nodes(resolved) if isinstance(node, Col)]


def read_by(resolved: Any) -> set[Field[Any, Any]]:
    """Return the fields that a resolved expression reads of its row, in its subqueries too."""
    outer = [node.get_external_cols() for node in nodes(resolved) if isinstance(node, Query)]
    return {column.target for column in chain(columns_of(resolved), *outer)}


class Saved(Value):
    """A value as the field would save it, in a SELECT too."""

    for_save = True

    def resolve_expression(self, *args: Any, **keywords: Any) -> Any:
        resolved = super().resolve_expression(*args, **keywords)
        resolved.for_save = True
        return resolved


class Tried(HashedByIdentity, _ExpressionWrapper):
    """An expression of which UNKNOWN comes where its field can't read what the database gives.

    Django's own converters belong to the kind of output field, hence one that has none here.
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
