"""One expression for the values of many rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db.models import F
from django.db.models.expressions import Expression

from signal_patch.dispatch.rows.keys import case_over_key, params_of_key
from signal_patch.dispatch.values import json_null
from signal_patch.dispatch.values.expressions import Saved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Field, Model

    ModelField = Field[Any, Any]


# PostgreSQL's text types; `char` without a length has one character.
_TEXT_WITH_LENGTH = re.compile(r"(varchar|character varying|char|character|bpchar)\s*(\(\d+\))?")


class PerRow(Expression):
    """The value that a column gets in each of some rows; in other rows it gets `otherwise`.

    It is a single CASE over the primary key. Django's own Case and When take longer to build and compile than
    the statement takes to run.
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
        # A receiver may assign an expression such as F("hits") + 1, as before a save().
        return [key for key, value in self.values.items() if hasattr(value, "resolve_expression")]

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        operand, condition = case_over_key(self.model, connection)
        parts = ["CASE", operand] if operand else ["CASE"]
        params: list[Any] = []
        key_params = params_of_key(self.model, connection)
        for key, value in self.values.items():
            sql, sql_params = self._compiled(value, compiler)
            parts.append(f"WHEN {condition} THEN {sql}")
            params += [*key_params(key), *sql_params]
        otherwise, otherwise_params = self._compiled(self.otherwise, compiler)
        parts.append(f"ELSE {otherwise} END")
        params += otherwise_params
        return self._typed(" ".join(parts), connection), tuple(params)

    def _compiled(self, value: Any, compiler: Any) -> Any:
        try:
            return compiler.compile(self._to_save(value))
        except EmptyResultSet:
            # A subquery of none() is NULL in its own row only, as in Django's Case.
            return "NULL", ()

    def _to_save(self, value: Any) -> Any:
        value = json_null.saved(self.column, value)
        if hasattr(value, "resolve_expression"):
            return value
        return Saved(value, output_field=self.column)

    def _typed(self, sql: str, connection: Any) -> str:
        if not connection.features.requires_casted_case_in_updates:
            return sql
        db_type = self.column.cast_db_type(connection)
        if _TEXT_WITH_LENGTH.fullmatch(db_type or ""):
            # A cast to a length would cut a string that is too long; an assignment refuses it.
            db_type = "text"
        return f"({sql})::{db_type}" if db_type else sql
