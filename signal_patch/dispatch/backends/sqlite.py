"""SQLite: columns of any type, a single write lock for the whole database, JSON functions."""

from __future__ import annotations

import decimal
import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import F, Field, JSONField, Lookup, TextField
from django.db.models.functions import Cast

from signal_patch.dispatch.backends.base import Among, Backend, Selected, are_int64, are_numbers, are_texts

if TYPE_CHECKING:
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]

IN_JSON_ARRAY = "IN (SELECT value FROM json_each(%s))"


class SQLite(Backend):
    """The answers for SQLite."""

    def key_lookup(self, pk: ModelField, keys: Sequence[Any], connection: Any) -> Lookup[Any] | None:
        """SQLite's `json_each()` turns a JSON array into rows; it cuts a text at its first NUL character."""
        if not connection.features.supports_json_field:
            return None
        if are_numbers(pk, keys):
            return AmongJson(F("pk"), keys) if are_int64(keys) else None
        return AmongJson(F("pk"), keys) if are_texts(pk, keys) and "\0" not in "".join(keys) else None

    def max_parameters(self, connection: Any) -> int | None:
        """The limit belongs to the SQLite connection; Django 5.2 assumes the 999 of old SQLite versions."""
        connection.ensure_connection()
        # Python's sqlite3 can read it from Python 3.11 on.
        if not hasattr(connection.connection, "getlimit"):
            return super().max_parameters(connection)
        return int(connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))

    def as_column(self, expression: Any, field: ModelField) -> BaseExpression:
        """SQLite's columns hold values of any type, and a SELECT returns them unchanged.

        There is one exception: a number from inside a JSON value becomes text in a JSON column.
        """
        if isinstance(field, JSONField):
            expression = Cast(expression, output_field=TextField())
        return Undeclared(expression, output_field=field)

    def refuses_other_types(self) -> bool:
        """SQLite stores a value of any type in any column."""
        return False

    def rounding(self) -> str:
        """SQLite keeps all digits, and Django's converter rounds them half to even."""
        return decimal.ROUND_HALF_EVEN

    def sets_from_left_to_right(self) -> bool:
        """All expressions of an UPDATE in SQLite read the old row."""
        return False

    def ignoring_changes_values(self) -> bool:
        """INSERT OR IGNORE in SQLite inserts a row unchanged, or not at all."""
        return False

    def begins_with_statement(self, connection: Any) -> bool:
        """SQLite has one write lock for the whole database.

        A transaction that has already read cannot take the lock while another transaction holds it. It fails
        at once with "database is locked", whatever the timeout. With a write-ahead log, what it has read
        would be out of date. In two modes BEGIN takes the lock (DatabaseWrapper.transaction_mode, Django 5.2
        to 6.1).
        """
        return connection.transaction_mode not in ("IMMEDIATE", "EXCLUSIVE")

    def plain_table_question(self) -> str | None:
        """SQLite lists triggers and views in its schema tables."""
        return (
            "SELECT NOT EXISTS (SELECT 1 FROM (SELECT * FROM sqlite_master UNION ALL SELECT * FROM"
            " sqlite_temp_master) WHERE type IN ('trigger', 'view') AND tbl_name = %s COLLATE NOCASE)"
        )

    def reads_snapshots(self) -> bool:
        """SQLite has a single writer: nobody changes a row that this transaction is going to write."""
        return False


class Undeclared(Selected):
    """Hides the declared column type from sqlite3, so that the value arrives as it is stored.

    sqlite3 would convert a plain column, or a subquery of one, to the declared type of that column, which is
    not the column for which the value is meant.
    """

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = super().as_sql(compiler, connection)
        return f"+({sql})", params


class AmongJson(Among):
    """`IN`, with all values in one JSON array."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        # Unescaped, so that the driver refuses text that is not valid Unicode, as in an IN list.
        values = json.dumps(self.rhs, ensure_ascii=False)
        return f"{sql} {IN_JSON_ARRAY}", (*params, values)
