"""MariaDB and MySQL: SET from left to right, snapshots, INSERT IGNORE."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.db.models import (
    AutoField,
    CharField,
    DateField,
    DecimalField,
    DurationField,
    Field,
    IntegerField,
    TextField,
    TimeField,
)
from django.db.models.functions import Cast
from django.db.models.sql import Query
from django.db.models.sql.where import WhereNode

from signal_patch.dispatch.backends.base import Backend, Selected, SelectedCast

if TYPE_CHECKING:
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]

_CAST = (AutoField, DateField, DecimalField, DurationField, IntegerField, TimeField)


class MySQL(Backend):
    """The answers for MariaDB and MySQL, which are a single vendor for Django."""

    def as_column(self, expression: Any, field: ModelField) -> BaseExpression:
        """MySQL and MariaDB can cast to numbers, times and text; other values stay as they are.

        A cast to a type with a length would cut text that is too long for its column.
        """
        if isinstance(field, _CAST):
            return SelectedCast(expression, output_field=field)
        if isinstance(field, (CharField, TextField)):
            expression = Cast(expression, output_field=TextField())
        return Selected(expression, output_field=field)

    def stores_only_its_type(self) -> bool:
        """MySQL and MariaDB convert values to the column's type, or refuse them."""
        return True

    def refuses_other_types(self) -> bool:
        """MySQL and MariaDB convert expressions of any type; they only refuse single values."""
        return False

    def keeps_order_in_json(self, connection: Any) -> bool:
        """MariaDB's JSON is text; MySQL sorts the names of an object."""
        return bool(connection.mysql_is_mariadb)

    def made_keys_question(self) -> str | None:
        """The keys of one INSERT follow one another in steps of `auto_increment_increment`.

        Where several servers write, the step is larger than 1, and each leaves out the keys of the others.
        """
        return "SELECT LAST_INSERT_ID(), @@auto_increment_increment"

    def orders_updates(self) -> bool:
        """MySQL and MariaDB have UPDATE … ORDER BY."""
        return True

    def plain_table_question(self) -> str | None:
        """MySQL and MariaDB only show triggers to users with the privilege TRIGGER, so that must be there."""
        return (
            "SELECT COUNT(*) FROM information_schema.tables t WHERE table_schema = DATABASE()"
            " AND table_name = %s AND table_type = 'BASE TABLE' AND NOT EXISTS (SELECT 1 FROM"
            " information_schema.triggers g WHERE g.event_object_schema = t.table_schema"
            " AND g.event_object_table = t.table_name) AND (EXISTS (SELECT 1 FROM"
            " information_schema.user_privileges WHERE privilege_type = 'TRIGGER') OR EXISTS (SELECT 1 FROM"
            " information_schema.schema_privileges WHERE privilege_type = 'TRIGGER'"
            " AND DATABASE() LIKE table_schema))"
        )

    def with_committed_subqueries(self, resolved: Any) -> Any:
        """MySQL and MariaDB read committed rows in share mode, which their UPDATE also uses for subqueries.

        The lock of an outer query does not extend to its subqueries.
        """
        return _in_share_mode(resolved)


def _in_share_mode(resolved: Any) -> Any:
    """Return a resolved expression whose subqueries, at any depth, lock the rows that they read."""
    if isinstance(resolved, Query):
        query: Any = resolved.clone()
        own: Any = type(query)
        query.__class__ = _sharing(own)
        query.where = _in_share_mode(query.where)
        query.annotations = {name: _in_share_mode(part) for name, part in query.annotations.items()}
        return query
    if isinstance(resolved, WhereNode):
        children = [_in_share_mode(child) for child in resolved.children]
        return resolved.create(children, resolved.connector, negated=resolved.negated)
    sources: list[Any] = getattr(resolved, "get_source_expressions", list)()
    if not sources:
        return resolved
    clone = resolved.copy()
    clone.set_source_expressions([part if part is None else _in_share_mode(part) for part in sources])
    return clone


@cache
def _sharing(query_class: Any) -> Any:
    return type(f"{query_class.__name__}InShareMode", (_InShareMode, query_class), {})


class _InShareMode:
    """Adds a shared lock to the SQL of a subquery; Django has no API for it on MySQL and MariaDB."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = super().as_sql(compiler, connection)  # type: ignore[misc]  # that of Query
        # The SQL of a subquery ends with a bracket.
        return f"{sql[:-1]} LOCK IN SHARE MODE)", params
