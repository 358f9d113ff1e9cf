"""How a transaction that is going to write begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from signal_patch.dispatch import backends
from signal_patch.dispatch.values.columns import concrete

if TYPE_CHECKING:
    from django.db.models import Field

# Each is of the kind that the operation executes: a view's INSTEAD OF triggers may accept no other kind.
UPDATE = "UPDATE {table} SET {column} = {column} WHERE 0"
INSERT = "INSERT INTO {table} ({column}) SELECT NULL WHERE 0"
DELETE = "DELETE FROM {table} WHERE 0"


def begin_write(using: str, statement: str, field: Field[Any, Any]) -> None:
    """Take the lock that the current transaction needs for writing, before anything is read.

    It may fail if the caller's transaction has read before, as Django's own statement may.

    `statement` is one of this module's constants, and `field` a column that the operation writes.
    """
    connection: Any = connections[using]
    if backends.of(connection).begins_with_statement(connection):
        table, column = map(connection.ops.quote_name, (concrete(field.model)._meta.db_table, field.column))
        with connection.cursor() as cursor:
            cursor.execute(statement.format(table=table, column=column))
