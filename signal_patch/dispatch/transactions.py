"""How a transaction that is going to write begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from signal_patch.dispatch import backends
from signal_patch.dispatch.values.columns import concrete

if TYPE_CHECKING:
    from django.db.models import Field

# Of the kind that the operation will execute: a view with INSTEAD OF triggers takes no other.
UPDATE = "UPDATE {table} SET {column} = {column} WHERE 0"
INSERT = "INSERT INTO {table} ({column}) SELECT NULL WHERE 0"
DELETE = "DELETE FROM {table} WHERE 0"


def begin_write(using: str, statement: str, field: Field[Any, Any]) -> None:
    """Take the lock that the transaction under way needs to write, before it reads anything.

    (`Backend.begin_write`.) Where the caller's transaction has read before, this may fail, as Django's own
    statement would.

    `statement` is one of this module's, and `field` a column that the operation writes.
    """
    connection: Any = connections[using]
    table, column = map(connection.ops.quote_name, (concrete(field.model)._meta.db_table, field.column))
    backends.of(connection).begin_write(statement.format(table=table, column=column), connection)
