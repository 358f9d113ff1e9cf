"""A throw-away database, and the rows in it."""

from __future__ import annotations

import datetime
import os
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

from tests.database import VARIABLE, databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .models import Columns

# This many rows are inserted from Python. The database then doubles them until there are enough.
SEED = 1000
# The packages for receivers.py, which is left out if one of them is missing.
PACKAGES = ("django.contrib.contenttypes", "django.contrib.auth", "auditlog", "simple_history")


def has_packages() -> bool:
    return all(map(find_spec, ("auditlog", "simple_history", "redis")))


# The stored values of the columns that not all models of parcels have.
EXTRA = {
    "details": '{"colour": "red", "size": 3, "tags": ["fragile", "express"], "insured": true}',
    "picture": "parcels/photo.png",
    "place": "13.4 52.5",
}


@contextmanager
def throwaway(chosen: str) -> Iterator[None]:
    """Set Django up on a new database, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        settings.configure(
            DATABASES={"default": _configuration(chosen, Path(directory))},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            INSTALLED_APPS=["tests.benchmarks", *(PACKAGES if has_packages() else ())],
            # Tables of models without migrations are made first, and refer to those of others.
            MIGRATION_MODULES={package.rpartition(".")[2]: None for package in PACKAGES},
            USE_TZ=True,
        )
        django.setup()
        from django.db import connection

        name = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0, autoclobber=False, serialize=False)
        try:
            yield
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)


def _configuration(chosen: str, directory: Path) -> dict[str, Any]:
    os.environ[VARIABLE] = chosen
    # Two runs at the same time must not share a database.
    os.environ["SIGNAL_PATCH_DB_NAME"] = f"signal_patch_benchmarks_{os.getpid()}"
    configuration = databases()["default"]
    if chosen == "sqlite":
        configuration["TEST"] = {"NAME": str(directory / "benchmarks.sqlite3")}
        # The disk is not what is measured.
        configuration["OPTIONS"] = {"init_command": "PRAGMA synchronous = OFF"}
    return configuration


def describe() -> str:
    """Return the database's name and version."""
    from django.db import connection

    version = connection.get_database_version()
    name = "MariaDB" if getattr(connection, "mysql_is_mariadb", False) else connection.display_name
    return f"{name} {'.'.join(map(str, version))}"


def fill(rows: int) -> None:
    """Make sure that there are this many pristine rows, with the keys from 1 on."""
    from .models import Pristine

    present = Pristine.objects.count()
    if not present:
        Pristine.objects.bulk_create([Pristine(**values(key), id=key) for key in range(1, SEED + 1)])
        present = SEED
    while present < rows:
        _double(present, rows)
        present = min(2 * present, rows)


def values(key: int) -> dict[str, Any]:
    """Return the values of the row with this key, without the key."""
    return {
        "name": f"Parcel number {key}",
        "code": f"P-{key:08}",
        "status": "new",
        "stock": key % 100,
        "price": f"{key % 1000}.50",
        "rating": key / 8,
        "active": key % 2 == 1,
        "created": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        + datetime.timedelta(seconds=key),
    }


def _double(present: int, rows: int) -> None:
    from django.db import connection

    from .models import Pristine

    table, columns = _table(Pristine), _columns(Pristine)
    others = ", ".join(columns[1:])
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (id, {others}) SELECT id + {present}, {others} FROM {table}"
            f" WHERE id <= {rows - present}"
        )


def reset(rows: int, model: type[Columns] | None = None) -> None:
    """Put back the parcels with the keys from 1 to `rows`, and no others.

    Columns that only this model of parcels has get the same value in all rows.
    """
    from django.core.management.color import no_style
    from django.db import connection

    from .models import Parcel, Pristine

    parcels = model or Parcel
    table, pristine = _table(parcels), _table(Pristine)
    columns, own = _columns(Pristine), _columns(parcels)
    quote = connection.ops.quote_name
    extra = {quote(name): text for name, text in EXTRA.items() if quote(name) in own}
    flush = connection.ops.sql_flush(no_style(), [parcels._meta.db_table], reset_sequences=True)
    connection.ops.execute_sql_flush(flush)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join([*columns, *extra])})"
            f" SELECT {', '.join([*columns, *['%s'] * len(extra)])} FROM {pristine} WHERE id <= {rows}",
            [*extra.values()],
        )
        # Otherwise the first reader of the new rows would do this work for all later ones.
        for statement in _AFTER_INSERTS.get(connection.vendor, ()):
            cursor.execute(statement.format(table=table))
            cursor.fetchall() if cursor.description else None


_AFTER_INSERTS = {"postgresql": ("VACUUM (ANALYZE) {table}",), "mysql": ("ANALYZE TABLE {table}",)}


def _table(model: type[Columns]) -> str:
    from django.db import connection

    return connection.ops.quote_name(model._meta.db_table)


def _columns(model: type[Columns]) -> list[str]:
    from django.db import connection

    return [connection.ops.quote_name(str(field.column)) for field in model._meta.concrete_fields]
