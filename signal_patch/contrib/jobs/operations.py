"""What a job does to the rows of a range, and why some of it cannot be done range by range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import QuerySet

from signal_patch import bulk_signals, no_bulk_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signal_patch.options import Keywords


class Operation(ABC):
    """A queryset and what is to happen to its rows."""

    def __init__(self, queryset: QuerySet[Any], options: Keywords) -> None:
        self.queryset = queryset
        self.model = queryset.model
        self.using = database_for_write(queryset)
        self.options = options

    def between(self, after: Any, upto: Any) -> QuerySet[Any]:
        """Return the rows with a key beyond `after`, unless it is None, and not beyond `upto`."""
        return between(self.queryset.using(self.using), after, upto)

    def keys(self) -> QuerySet[Any, Any]:
        return in_key_order(self.queryset.using(self.using))

    def keys_between(self, after: Any, upto: Any) -> QuerySet[Any, Any]:
        return in_key_order(self.between(after, upto))

    def run(self, rows: QuerySet[Any]) -> int:
        """Change these rows, with their signals, and return how many of the model's there were."""
        with bulk_signals(self.model, **self.options):
            return self.change(rows)

    def sql(self) -> str:
        """Describe the operation by its SQL: what is the same twice does the same twice."""
        return f"{self.describe_change()}\n{self._select()}"

    def fingerprint(self) -> str:
        return sha256(self.sql().encode()).hexdigest()

    def refusals(self) -> Iterator[str]:
        """Give the reasons why the rows cannot be dealt with range by range."""
        query = self.queryset.query
        if self.model._meta.is_composite_pk:
            yield "the model has a composite primary key, and a lane is a range of one column"
        if query.is_sliced:
            yield "the queryset is sliced, and a slice of each range is not a slice of the whole"
        if query.combinator:
            yield f"the queryset is a {query.combinator}(), which Django cannot narrow to a range"
        if query.distinct or query.distinct_fields:
            yield "the queryset has distinct(), which compares rows of different ranges"
        if query.order_by or query.extra_order_by:
            yield "the queryset has an explicit order; a job takes its rows in the order of the primary key"
        if query.group_by is not None:
            yield "the queryset has an aggregate, which is computed over rows of different ranges"
        if query.where.contains_over_clause:
            yield "the queryset filters by a window, which is computed over rows of different ranges"
        if query.extra_tables:
            yield "the queryset names other tables in extra(), which Django's update() does not take"

    @abstractmethod
    def change(self, rows: QuerySet[Any]) -> int: ...

    @abstractmethod
    def describe_change(self) -> str: ...

    def _select(self) -> str:
        try:
            sql, parameters = self.keys().query.get_compiler(self.using).as_sql()
        except EmptyResultSet:
            return "no row"
        return _with_parameters(sql, parameters)


class Update(Operation):
    def __init__(self, queryset: QuerySet[Any], values: dict[str, Any], options: Keywords) -> None:
        super().__init__(queryset, options)
        self.values = values

    def change(self, rows: QuerySet[Any]) -> int:
        return rows.update(**self.values)

    def describe_change(self) -> str:
        values = ", ".join(f"{name} = {self._compiled(name)}" for name in sorted(self.values))
        return f"UPDATE {self.model._meta.label} SET {values}"  # noqa: S608  # to be read, never to be run

    def refusals(self) -> Iterator[str]:
        reasons = list(super().refusals())
        yield from reasons
        if reasons:
            return
        if not self.values:
            yield "values() is empty"
        with no_bulk_signals():
            # With no row to change, Django refuses what it refuses anyway, with its own error.
            QuerySet.update(QuerySet.none(self.queryset), **self.values)
        for name in sorted(self.values):
            if self.model._meta.get_field(name).primary_key:
                yield f"{name!r} is the primary key: a row that moves may be visited twice, or not at all"
            elif self._reads_other_rows(self.values[name]):
                yield f"the value of {name!r} reads other rows, which steps before this one may have changed"

    def _reads_other_rows(self, value: Any) -> bool:
        if isinstance(value, QuerySet):
            return True
        if not hasattr(value, "resolve_expression"):
            return False
        # Joins, aggregates and windows Django has refused.
        return any(getattr(part, "subquery", False) for part in _parts(self._resolved(value)))

    def _resolved(self, expression: Any) -> Any:
        return expression.resolve_expression(self.queryset.query.chain(), allow_joins=False, for_save=True)

    def _compiled(self, name: str) -> str:
        """Return the SQL of a value as the statement of an update() has it (Django 5.2 to 6.1)."""
        field: Any = self.model._meta.get_field(name)
        value = self.values[name]
        connection = connections[self.using]
        if hasattr(value, "resolve_expression"):
            compiler = self.queryset.query.get_compiler(self.using)
            return _with_parameters(*compiler.compile(self._resolved(value)))
        if hasattr(value, "prepare_database_save"):
            value = value.prepare_database_save(field)
        return _with_parameters("%s", [field.get_db_prep_save(value, connection)])


class Delete(Operation):
    def change(self, rows: QuerySet[Any]) -> int:
        _, by_model = rows.delete()
        return by_model.get(self.model._meta.label, 0)

    def describe_change(self) -> str:
        return f"DELETE {self.model._meta.label}"


def database_for_write(queryset: Any) -> str:
    """Return the alias of the database that Django's own `update()` would write to (Django 5.2 to 6.1)."""
    clone = queryset._chain()
    clone._for_write = True
    return str(clone.db)


def between(queryset: QuerySet[Any], after: Any, upto: Any) -> QuerySet[Any]:
    """Narrow a queryset to the keys beyond `after`, unless it is None, and not beyond `upto`."""
    rows = queryset.filter(pk__lte=upto)
    return rows if after is None else rows.filter(pk__gt=after)


def in_key_order(queryset: QuerySet[Any]) -> QuerySet[Any, Any]:
    return queryset.order_by("pk").values_list("pk", flat=True)


def _parts(expression: Any) -> Iterator[Any]:
    yield expression
    for source in filter(None, expression.get_source_expressions()):
        yield from _parts(source)


def _with_parameters(sql: str, parameters: Any) -> str:
    shown = ", ".join(repr(getattr(parameter, "obj", parameter)) for parameter in parameters)
    return f"{sql} [{shown}]"
