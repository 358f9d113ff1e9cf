"""What each database does differently: the only package that asks a connection for its vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signal_patch.dispatch.backends.base import Backend
from signal_patch.dispatch.backends.mysql import MySQL
from signal_patch.dispatch.backends.postgresql import PostgreSQL
from signal_patch.dispatch.backends.sqlite import SQLite

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

UNKNOWN_DATABASE = Backend()
# By `connection.vendor`, which is "mysql" for MariaDB, too.
BACKENDS: dict[str, Backend] = {"mysql": MySQL(), "postgresql": PostgreSQL(), "sqlite": SQLite()}


def of(connection: BaseDatabaseWrapper) -> Backend:
    """Return the answers for a connection's database, or the cautious ones for an unknown database."""
    return BACKENDS.get(connection.vendor, UNKNOWN_DATABASE)
