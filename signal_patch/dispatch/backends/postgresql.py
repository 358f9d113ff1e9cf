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
    _Lookup = Lookup[Any]
    _TextField = TextField[Any, Any]
else:
    _Lookup = Lookup
    _TextField = TextField


class PostgreSQL(Backend):
    """The answers for PostgreSQL."""

    def key_lookup(self, pk: ModelField, keys: Sequence[Any], connection: Any) -> Lookup[Any] | None:
        """PostgreSQL compares with all elements of an array: `= ANY(…)`."""
        if are_numbers(pk, keys):
            return AmongArray(F("pk"), keys) if are_int64(keys) else None
        takes = (
            are_texts(pk, keys)
            or (isinstance(pk, UUIDField) and are_of_type(keys, UUID))
            or (isinstance(pk, DecimalField) and are_of_type(keys, Decimal))
        )
        return AmongArray(F("pk"), keys) if takes else None

    def as_column(self, expression: Any, field: ModelField) -> BaseExpression:
        """PostgreSQL's cast to a type gives what an assignment to a column of that type stores."""
        return CastToColumn(expression, output_field=field)

    def selects_stored_value(self) -> bool:
        """PostgreSQL's cast rounds, pads and rewrites as the column does."""
        return True

    def stores_only_its_type(self) -> bool:
        """PostgreSQL's columns have values of their type only."""
        return True

    def bytes_read(self, value: bytes) -> Any:
        """Psycopg gives the bytes of a binary column as a `memoryview`, and Django leaves them so."""
        return memoryview(value)

    def keeps_order_in_json(self) -> bool:
        """PostgreSQL's jsonb keeps an object's names in an order of its own."""
        return False

    def returns_as_selected(self, field: ModelField) -> bool:
        """PostgreSQL's RETURNING gives what a SELECT gives."""
        return True

    def assigns_in_turn(self) -> bool:
        """PostgreSQL's UPDATE reads the old row throughout."""
        return False

    def ignoring_changes_values(self) -> bool:
        """PostgreSQL's ON CONFLICT DO NOTHING inserts a row as it is, or not at all."""
        return False

    def has_declared_constraints(self) -> bool:
        """PostgreSQL supports all unique constraints that Django knows."""
        return True

    def inserted_marker(self, model: type[Model], connection: Any) -> ModelField | None:
        """PostgreSQL returns the system column `xmax`, but not of a partitioned table or of a view."""
        if not _is_plain_table(connection.alias, model._meta.db_table):
            return None
        field: ModelField = Xmax()
        field.set_attributes_from_name("xmax")
        field.model = model
        return field

    def limit_idle_time(self, seconds: float, connection: Any) -> None:
        """PostgreSQL ends the session; `true` limits the setting to this transaction."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
                [str(round(seconds * 1000))],
            )

    def plain_table_question(self) -> str | None:
        """PostgreSQL lists relation kinds, rules, triggers and partitions in its catalogue."""
        return (
            "SELECT relkind = 'r' AND NOT relhasrules AND NOT EXISTS (SELECT 1 FROM pg_trigger WHERE"
            " tgrelid = c.oid AND NOT tgisinternal) AND NOT EXISTS (SELECT 1 FROM pg_inherits WHERE"
            " inhrelid = c.oid) FROM pg_class c WHERE oid = to_regclass(quote_ident(%s))"
        )

    def reads_snapshots(self) -> bool:
        """PostgreSQL shows what is committed; under REPEATABLE READ, to lock a newer version fails."""
        return False


class CastToColumn(SelectedCast):
    """A cast that is converted as the column itself is.

    Django turns the value of any other expression of a decimal field into a decimal once more.
    """

    def get_db_converters(self, connection: Any) -> list[Any]:
        return self.output_field.get_db_converters(connection)


class Xmax(_TextField):
    """The transaction that has locked or deleted a version of a row, read as whether there is none.

    Nobody has done so to a version that the statement itself has inserted; a row that it has updated, it has
    locked first.
    """

    def from_db_value(self, value: Any, *_: Any) -> bool:
        return str(value) == "0"


class AmongArray(_Lookup):
    """`IN`, with all values in one array."""

    lookup_name = "among"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        if type(self.rhs[0]) is int:
            # Too large a number for the column is in no row, and no error.
            return f"{sql} = ANY(%s::bigint[])", (*params, _array(map(str, self.rhs)))
        # Without a cast, each value is taken for one of the column's own type, as in an IN list, but
        # for its length, scale or precision, to which a cast would cut it.
        items = map(_quoted, self.rhs) if type(self.rhs[0]) is str else map(str, self.rhs)
        return f"{sql} = ANY(%s)", (*params, _array(items))


def _array(items: Iterable[str]) -> str:
    # Written out at once: the driver would look at each item by itself.
    return f"{{{','.join(items)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@cache
def _is_plain_table(using: str, table: str) -> bool:
    """Return whether a name is that of an ordinary table. Asked once, as no ALTER TABLE changes it."""
    plain = "SELECT FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'r'"
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS ({plain})", [connection.ops.quote_name(table)])
        return bool(cursor.fetchone()[0])
