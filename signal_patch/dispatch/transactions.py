"""How a transaction that is going to write begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from .fields import concrete

if TYPE_CHECKING:
    from django.db.models import Field

# Of the kind that the operation will execute: a view with INSTEAD OF triggers takes no other.
UPDATE = "UPDATE {table} SET {column} = {column} WHERE 0"
INSERT = "INSERT INTO {table} ({column}) SELECT NULL WHERE 0"
DELETE = "DELETE FROM {table} WHERE 0"


def begin_write(using: str, statement: str, field: Field[Any, Any]) -> None:
    """Take the lock that the transaction under way needs to write, before it reads anything.

    Only SQLite has such a lock, on the whole database. A transaction that has read can't take it while
    another one holds it: that would fail at once with "database is locked", whatever the timeout, and what
    was read would be out of date with a write-ahead log. A statement that matches no row takes the lock and
    writes nothing. Where the caller's transaction has read before, it may fail, as Django's own would.

    `statement` is one of this module's, and `field` a column that the operation writes.
    """
    connection: Any = connections[using]
    # With these modes BEGIN has taken it (DatabaseWrapper.transaction_mode of SQLite, Django 5.2 to 6.1).
    if connection.vendor != "sqlite" or connection.transaction_mode in ("IMMEDIATE", "EXCLUSIVE"):
        return
    table, column = map(connection.ops.quote_name, (concrete(field.model)._meta.db_table, field.column))
    with connection.cursor() as cursor:
        cursor.execute(statement.format(table=table, column=column))
