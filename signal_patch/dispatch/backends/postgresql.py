"""PostgreSQL: strict types, arrays, and system columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections
from django.db.models import DecimalField, F, Field, Lookup, TextField, UUIDField

from signal_patch.dispatch.backends.base import (
    Among,
    Backend,
    SelectedCast,
    are_int64,
    are_numbers,
    are_of_type,
    are_texts,
)

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]


class PostgreSQL(Backend):
    """The answers for PostgreSQL."""

    def key_lookup(self, pk: ModelField, keys: Sequence[Any], connection: Any) -> Lookup[Any] | None:
        """PostgreSQL can compare with all elements of an array: `= ANY(…)`."""
        if are_numbers(pk, keys):
            return AmongArray(F("pk"), keys) if are_int64(keys) else None
        takes = (
            are_texts(pk, keys)
            or (isinstance(pk, UUIDField) and are_of_type(keys, UUID))
            or (isinstance(pk, DecimalField) and are_of_type(keys, Decimal))
        )
        return AmongArray(F("pk"), keys) if takes else None

    def as_column(self, expression: Any, field: ModelField) -> BaseExpression:
        """A cast in PostgreSQL returns what assigning to a column of that type stores."""
        return CastToColumn(expression, output_field=field)

    def selects_stored_value(self) -> bool:
        """A cast in PostgreSQL rounds, pads and rewrites as the column does."""
        return True

    def stores_only_its_type(self) -> bool:
        """PostgreSQL's columns only hold values of their type."""
        return True

    def bytes_read(self, value: bytes) -> Any:
        """Psycopg returns the bytes of a binary column as a `memoryview`, and Django does not change that."""
        return memoryview(value)

    def keeps_order_in_json(self, connection: Any) -> bool:
        """PostgreSQL's jsonb stores an object's names in its own order."""
        return False

    def sets_from_left_to_right(self) -> bool:
        """All expressions of an UPDATE in PostgreSQL read the old row."""
        return False

    def ignoring_changes_values(self) -> bool:
        """ON CONFLICT DO NOTHING in PostgreSQL inserts a row unchanged, or not at all."""
        return False

    def has_declared_constraints(self) -> bool:
        """PostgreSQL supports all unique constraints that Django knows."""
        return True

    def inserted_marker(self, model: type[Model], connection: Any) -> ModelField | None:
        """PostgreSQL returns the system column `xmax`, except for partitioned tables and views."""
        if not _is_plain_table(connection.alias, model._meta.db_table):
            return None
        field: ModelField = Xmax()
        field.set_attributes_from_name("xmax")
        field.model = model
        return field

    def limit_idle_time(self, seconds: float, connection: Any) -> None:
        """PostgreSQL ends the session. The argument `true` limits the setting to this transaction."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
                [str(round(seconds * 1000))],
            )

    def plain_table_question(self) -> str | None:
        """PostgreSQL lists kinds of relations, rules, triggers and partitions in its catalogue."""
        return (
            "SELECT relkind = 'r' AND NOT relhasrules AND NOT EXISTS (SELECT 1 FROM pg_trigger WHERE"
            " tgrelid = c.oid AND NOT tgisinternal) AND NOT EXISTS (SELECT 1 FROM pg_inherits WHERE"
            " inhrelid = c.oid) FROM pg_class c WHERE oid = to_regclass(quote_ident(%s))"
        )

    def reads_snapshots(self) -> bool:
        """PostgreSQL shows committed rows; under REPEATABLE READ, locking a row that has changed fails."""
        return False


class CastToColumn(SelectedCast):
    """A cast whose values are converted like those of the column itself.

    Django converts the value of any other decimal expression once more.
    """

    def get_db_converters(self, connection: Any) -> list[Any]:
        return self.output_field.get_db_converters(connection)


class Xmax(TextField):  # type: ignore[type-arg]  # Django's class takes no arguments
    """The system column `xmax`, read as whether the statement itself has inserted the row.

    It holds the transaction that has locked or deleted this version of the row. Nobody has locked a version
    that the statement has just inserted. A row that the statement has updated was locked by it first.
    """

    def from_db_value(self, value: Any, *_: Any) -> bool:
        return str(value) == "0"


class AmongArray(Among):
    """`IN`, with all values in one array."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        if type(self.rhs[0]) is int:
            # A number that is too large for the column is in no row, and must not be an error.
            return f"{sql} = ANY(%s::bigint[])", (*params, _array(map(str, self.rhs)))
        # Without a cast, each value is read as the column's own type, as in an IN list, but without its
        # length, scale or precision; a cast would cut the value to these.
        items = map(_quoted, self.rhs) if type(self.rhs[0]) is str else map(str, self.rhs)
        return f"{sql} = ANY(%s)", (*params, _array(items))


def _array(items: Iterable[str]) -> str:
    # Written out here, because the driver would treat each item separately.
    return f"{{{','.join(items)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@cache
def _is_plain_table(using: str, table: str) -> bool:
    """Return whether this is an ordinary table. Cached, because no ALTER TABLE changes it."""
    plain = "SELECT FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'r'"
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS ({plain})", [connection.ops.quote_name(table)])
        return bool(cursor.fetchone()[0])
