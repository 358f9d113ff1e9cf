"""What a job does to the rows of a range, and why some operations cannot be done range by range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import QuerySet

from signal_patch import bulk_signals, no_bulk_signals
from signal_patch.dispatch.rows import ranges

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
        """Return the rows with `after < key <= upto`; None as `after` means no lower limit."""
        return ranges.between(self.queryset.using(self.using), after, upto)

    def keys(self) -> QuerySet[Any, Any]:
        return in_key_order(self.queryset.using(self.using))

    def keys_between(self, after: Any, upto: Any) -> QuerySet[Any, Any]:
        return in_key_order(self.between(after, upto))

    def run(self, rows: QuerySet[Any]) -> int:
        """Change these rows, send their signals, and return the number of rows of the model itself."""
        with bulk_signals(self.model, **self.options):
            return self.change(rows)

    def sql(self) -> str:
        """Describe the operation by its SQL. Operations with the same description do the same."""
        return f"{self.describe_change()}\n{self._select()}"

    def fingerprint(self) -> str:
        return sha256(self.sql().encode()).hexdigest()

    def refusals(self) -> Iterator[str]:
        """Yield the reasons why the rows cannot be processed range by range."""
        if self.model._meta.is_composite_pk:
            yield "the model has a composite primary key, and a lane is a range of one column"
        if not self.options.get("atomic", True):
            yield "signal_options has atomic=False, and a step is one transaction"
        yield from ranges.refusals(self.queryset)

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
            # Without rows, Django's update() changes nothing but still raises its own errors.
            QuerySet.update(QuerySet.none(self.queryset), **self.values)
        yield from ranges.refusals_of_values(self.queryset, self.values)

    def _resolved(self, expression: Any) -> Any:
        return expression.resolve_expression(self.queryset.query.chain(), allow_joins=False, for_save=True)

    def _compiled(self, name: str) -> str:
        """Return the SQL of a value as it appears in the statement of update() (Django 5.2 to 6.1)."""
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


def in_key_order(queryset: QuerySet[Any]) -> QuerySet[Any, Any]:
    return queryset.order_by("pk").values_list("pk", flat=True)


def _with_parameters(sql: str, parameters: Any) -> str:
    shown = ", ".join(repr(getattr(parameter, "obj", parameter)) for parameter in parameters)
    return f"{sql} [{shown}]"
