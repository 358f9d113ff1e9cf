"""One expression for the values of many rows."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db.models import F, Value
from django.db.models.expressions import Col, Expression

from signal_patch.dispatch.backends.base import are_numbers
from signal_patch.dispatch.rows.keys import case_over_key, params_of_key
from signal_patch.dispatch.values import columns, json_null
from signal_patch.dispatch.values.expressions import Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import Field, Model

    ModelField = Field[Any, Any]


# With fewer branches than the square of this, they are not grouped.
FEW = 8
# PostgreSQL's text types; `char` without a length has one character.
_TEXT_WITH_LENGTH = re.compile(r"(varchar|character varying|char|character|bpchar)\s*(\(\d+\))?")


class PerRow(Expression):
    """The value that a column gets in each of some rows; in other rows it gets `otherwise`.

    It is a single CASE over the primary key. Django's own Case and When take longer to build and compile than
    the statement takes to run.
    """

    def __init__(
        self, model: type[Model], column: ModelField, values: dict[Any, Any], otherwise: Any = None
    ) -> None:
        super().__init__(output_field=column)
        self.model = model
        self.column = column
        self.values = values
        self.otherwise = F(column.attname) if otherwise is None else otherwise
        # A receiver may assign an expression such as F("hits") + 1, as before a save().
        self.computed = [key for key, value in values.items() if hasattr(value, "resolve_expression")]

    def get_source_expressions(self) -> list[Any]:
        return [self.otherwise, *(self.values[key] for key in self.computed)]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.otherwise, *resolved = exprs
        self.values = {**self.values, **dict(zip(self.computed, resolved, strict=True))}

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        params: list[Any] = []
        branch = self._branch(compiler, connection, params)
        otherwise, otherwise_params = self._compiled(self.otherwise, compiler)
        operand, _ = case_over_key(self.model, connection)
        case = f"CASE {operand}" if operand else "CASE"
        end = f"ELSE {otherwise} END"
        parts = [case, *map(branch, self.values)] if not (groups := self._groups()) else ["CASE"]
        for keys in groups:
            params.append(keys[-1])
            parts += [f"WHEN {operand} <= %s THEN {case}", *map(branch, keys), end]
            params += otherwise_params
        params += otherwise_params
        return self._typed(" ".join([*parts, end]), connection), tuple(params)

    def _groups(self) -> list[list[Any]]:
        """Return the keys in ascending groups, or nothing if they are not to be grouped.

        A database tries the branches of a CASE in turn. If the keys are numbers, the outer CASE therefore has
        one branch for each group, with a CASE of its own. Each of these repeats the value for other rows.
        """
        size = math.isqrt(len(self.values))
        keys = [*self.values]
        if (
            size < FEW
            or not isinstance(self.otherwise, (Col, Value))
            or not are_numbers(columns.target_field(self.model._meta.pk), keys)
        ):
            return []
        keys.sort()
        return [keys[start : start + size] for start in range(0, len(keys), size)]

    def _branch(self, compiler: Any, connection: Any, params: list[Any]) -> Callable[[Any], str]:
        """Return a function that gives the WHEN of a key, and adds its parameters."""
        _, condition = case_over_key(self.model, connection)
        key_params = params_of_key(self.model, connection)
        prepare = self.column.get_db_prep_save
        # By the value's class, which SQLite's cast depends on (Value.as_sqlite(), Django 5.2 to 6.1).
        known: dict[type, str] = {}
        has_own_sql = hasattr(self.column, "get_placeholder") or hasattr(self.column, "get_placeholder_sql")

        def branch(key: Any) -> str:
            value = self.values[key]
            params.extend(key_params(key))
            sql = known.get(type(value))
            if sql is not None and (prepared := prepare(value, connection)) is not None:
                params.append(prepared)
                return sql
            compiled, value_params = self._compiled(value, compiler)
            params.extend(value_params)
            sql = f"WHEN {condition} THEN {compiled}"
            if len(value_params) == 1 and not has_own_sql and not hasattr(value, "resolve_expression"):
                known[type(value)] = sql
            return sql

        return branch

    def _compiled(self, value: Any, compiler: Any) -> Any:
        value = json_null.saved(self.column, value)
        if not hasattr(value, "resolve_expression"):
            value = Saved(value, output_field=self.column)
        try:
            return compiler.compile(value)
        except EmptyResultSet:
            # A subquery of none() is NULL in its own row only, as in Django's Case.
            return "NULL", ()

    def _typed(self, sql: str, connection: Any) -> str:
        if not connection.features.requires_casted_case_in_updates:
            return sql
        db_type = self.column.cast_db_type(connection)
        if _TEXT_WITH_LENGTH.fullmatch(db_type or ""):
            # A cast to a length would cut a string that is too long; an assignment refuses it.
            db_type = "text"
        return f"({sql})::{db_type}" if db_type else sql
