"""What expressions read, and some expressions of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db.models import Value
from django.db.models.expressions import Col

if TYPE_CHECKING:
    from django.db.models import Field


def nodes(expression: Any) -> Iterator[Any]:
    """Yield a resolved expression and all inside it, conditions too, which have no `flatten()`.

    A query, which is no expression, is where to stop.
    """
    yield expression
    for source in (part for part in expression.get_source_expressions() if part is not None):
        yield from nodes(source)


def columns_of(resolved: Any) -> list[Col]:
    """Return the columns in a resolved expression, those of joined tables too."""
    return [node for node in nodes(resolved) if isinstance(node, Col)]


def read_by(resolved: Any) -> set[Field[Any, Any]]:
    """Return the fields that a resolved expression reads of its row."""
    return {column.target for column in columns_of(resolved)}


class Saved(Value):
    """A value as the field would save it, in a SELECT too."""

    for_save = True

    def resolve_expression(self, *args: Any, **keywords: Any) -> Any:
        resolved = super().resolve_expression(*args, **keywords)
        resolved.for_save = True
        return resolved
