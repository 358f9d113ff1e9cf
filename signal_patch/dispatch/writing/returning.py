"""UPDATE … RETURNING: the UPDATE itself returns what it has written, without a SELECT after it."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.models.sql import Query, UpdateQuery

from signal_patch.dispatch.rows.querysets import copied
from signal_patch.dispatch.values.columns import concrete, is_returned_as_selected

if TYPE_CHECKING:
    from django.db.models import Field, Model, QuerySet

    ModelField = Field[Any, Any]
    Rows = list[tuple[Any, ...]]


def is_possible(model: type[Model], fields: Collection[ModelField], connection: Any) -> bool:
    """Return whether an UPDATE can return all these fields of the rows that it writes.

    Django can do that from 6.0 on, if all the columns belong to a single table.
    """
    # If the first column of a table is REAL, SQLite returns the numbers in other columns as floats.
    first = model._meta.concrete_fields[0]
    return (
        getattr(connection.features, "can_return_rows_from_update", False)
        and not concrete(model)._meta.parents
        and all(is_returned_as_selected(field, connection) for field in (first, *fields))
    )


def returning(queryset: QuerySet[Any], fields: Collection[ModelField]) -> tuple[QuerySet[Any], Rows]:
    """Return a copy of the queryset, and a list that its `update()` fills with these fields of its rows."""
    rows: Rows = []
    answering = copied(queryset)
    answering.query = answering.query.chain(_ReturningQuery)
    answering.query.fields, answering.query.rows = [*fields], rows
    return answering, rows


class _ReturningQuery(Query):
    """The query of a queryset whose `update()` returns what it has written.

    Django's own `update()` turns it into an UpdateQuery, and takes the number of rows from its compiler
    (QuerySet.update, Query.chain, SQLUpdateCompiler.execute_returning_sql, Django 6.0 and 6.1).
    """

    def chain(self, klass: Any = None) -> Any:
        return super().chain(_ReturningUpdateQuery if klass is UpdateQuery else klass)


class _ReturningUpdateQuery(UpdateQuery):
    fields: list[ModelField]
    rows: Rows

    def get_compiler(self, *args: Any, **kwargs: Any) -> Any:
        compiler: Any = super().get_compiler(*args, **kwargs)
        compiler.execute_sql = partial(self._execute, compiler)
        return compiler

    def _execute(self, compiler: Any, _: object) -> int:
        found = compiler.execute_returning_sql(self.fields)
        self.rows += found
        return len(found)
