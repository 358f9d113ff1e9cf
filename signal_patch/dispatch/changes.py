"""What receivers changed on the instances, and how it gets into the rows."""

from __future__ import annotations

import re
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db.models import F, JSONField
from django.db.models.base import DEFERRED
from django.db.models.expressions import Expression

from . import fields, snapshots
from .expressions import JsonNull, Saved, is_json_null

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.models import Field, Model

    ModelField = Field[Any, Any]

Changes = dict["ModelField", Any]

# Of PostgreSQL; `char` without a length is of one character.
_TEXT_WITH_LENGTH = re.compile(r"(varchar|character varying|char|character|bpchar)\s*(\(\d+\))?")


class Watch:
    """Compares the instances of one class before and after their `pre_save`.

    Looked at are the given fields only. A comparison of two tuples is enough for most; of those whose
    values may change in place, snapshots are compared. Only instances that the caller gave, and not those
    loaded from rows, `may_hold_expressions`.
    """

    def __init__(
        self, watched: Collection[ModelField], connection: Any, *, may_hold_expressions: bool
    ) -> None:
        self.may_hold_expressions = may_hold_expressions
        self.plain = [field for field in watched if not fields.may_change_in_place(field)]
        others = [field for field in watched if fields.may_change_in_place(field)]
        self.snapshots = [snapshots.of_field(field, connection) for field in others]
        self.attnames = [field.attname for field in self.plain]
        # With one name, itemgetter would not return a tuple.
        self.state = itemgetter(*self.attnames, *self.attnames[:1]) if self.plain else _nothing

    def snapshot(self, instance: Model) -> Any:
        """Return what `changes` needs to know of an instance as it is now."""
        attributes = instance.__dict__
        try:
            state = self.state(attributes)
        except KeyError:  # the caller's own instance, with deferred fields
            state = tuple(attributes.get(name, DEFERRED) for name in self.attnames)
        if not self.snapshots:
            return state, ()
        return state, [of_field.take(instance) for of_field in self.snapshots]

    def may_differ(self, instance: Model, snapshot: Any) -> bool:
        """Return False if `changes` would find none, in next to no time."""
        state, taken = snapshot
        try:
            new = self.state(instance.__dict__)
        except KeyError:  # deferred before, or by a receiver
            return True
        if new != state or (self.may_hold_expressions and not all(map(is_, new, state))):
            return True
        # No generator: this is done for each row.
        for of_field, value in zip(self.snapshots, taken, strict=True):
            if of_field.may_differ(instance, value):
                return True
        return False

    def changes(self, instance: Model, snapshot: Any) -> Changes:
        """Return the fields that were changed since, with what `Field.pre_save` gives."""
        state, taken = snapshot
        changed = self._different(instance, state)
        changed += [
            of_field.field
            for of_field, value in zip(self.snapshots, taken, strict=True)
            if of_field.differs(instance, value)
        ]
        return {field: field.pre_save(instance, False) for field in changed}

    def _different(self, instance: Model, before: tuple[Any, ...]) -> list[ModelField]:
        # getattr() brings back a value that a receiver has deferred, as save() would.
        return [
            field
            for field, old in zip(self.plain, before, strict=False)
            if not _is_deferred_still(instance, field, old)
            and not snapshots.is_same(getattr(instance, field.attname), old)
        ]


def _nothing(_: dict[str, Any]) -> tuple[()]:
    return ()


def _is_deferred_still(instance: Model, field: ModelField, old: Any) -> bool:
    return old is DEFERRED and field.attname not in instance.__dict__


class PerRow(Expression):
    """The value that a column gets in each of some rows; other rows keep `otherwise`.

    One simple CASE over the primary key, written in one go: Django's own Case and When
    cost more to build and to compile than the statement takes to run.
    """

    def __init__(
        self,
        model: type[Model],
        column: ModelField,
        values: dict[Any, Any],
        otherwise: Any = None,
    ) -> None:
        super().__init__(output_field=column)
        self.model = model
        self.column = column
        self.values = values
        self.otherwise = F(column.attname) if otherwise is None else otherwise

    def get_source_expressions(self) -> list[Any]:
        return [self.otherwise, *(self.values[key] for key in self._expressions())]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.otherwise, *resolved = exprs
        self.values = {**self.values, **dict(zip(self._expressions(), resolved, strict=True))}

    def _expressions(self) -> list[Any]:
        # A receiver may set F("hits") + 1, as before a save().
        return [key for key, value in self.values.items() if hasattr(value, "resolve_expression")]

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        parts = ["CASE"]
        params: list[Any] = []
        if not self.model._meta.is_composite_pk:
            parts.append(connection.ops.quote_name(self.model._meta.pk.column))
        for key, value in self.values.items():
            condition, condition_params = self._is_row(key, connection)
            sql, sql_params = self._compiled(value, compiler)
            parts.append(f"WHEN {condition} THEN {sql}")
            params += [*condition_params, *sql_params]
        otherwise, otherwise_params = self._compiled(self.otherwise, compiler)
        parts.append(f"ELSE {otherwise} END")
        params += otherwise_params
        return self._typed(" ".join(parts), connection), tuple(params)

    def _compiled(self, value: Any, compiler: Any) -> Any:
        try:
            return compiler.compile(self._to_save(value))
        except EmptyResultSet:
            # As in Django's Case, a subquery of none() leaves the other rows theirs.
            return "NULL", ()

    def _is_row(self, key: Any, connection: Any) -> tuple[str, list[Any]]:
        opts = self.model._meta
        if not opts.is_composite_pk:
            return "%s", [opts.pk.get_db_prep_value(key, connection)]
        columns = (connection.ops.quote_name(pk.column) for pk in opts.pk_fields)
        return " AND ".join(f"{column} = %s" for column in columns), [
            pk.get_db_prep_value(value, connection) for pk, value in zip(opts.pk_fields, key, strict=True)
        ]

    def _to_save(self, value: Any) -> Any:
        if isinstance(self.column, JSONField) and is_json_null(value):
            return JsonNull()
        if hasattr(value, "resolve_expression"):
            return value
        return Saved(value, output_field=self.column)

    def _typed(self, sql: str, connection: Any) -> str:
        if not connection.features.requires_casted_case_in_updates:
            return sql
        db_type = self.column.cast_db_type(connection)
        if _TEXT_WITH_LENGTH.fullmatch(db_type or ""):
            # The length would cut a string that is too long, where an assignment refuses it.
            db_type = "text"
        return f"({sql})::{db_type}" if db_type else sql
