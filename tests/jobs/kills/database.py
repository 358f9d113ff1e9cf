"""The database that the workers share, and its rows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.database import VARIABLE, databases


@contextmanager
def new_database(db: str) -> Iterator[None]:
    """Make a new database, and set Django up on it, here and in the processes that are started."""
    os.environ[VARIABLE] = db
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.jobs.kills.settings"
    with tempfile.TemporaryDirectory() as folder:
        name = f"{os.environ.get('SIGNAL_PATCH_DB_NAME', 'signal_patch')}_kills"
        os.environ["JOBS_DATABASE"] = str(Path(folder, name)) if db == "sqlite" else name
        _create_database(db, name)
        # Their imports read the settings.
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", run_syncdb=True, verbosity=0)
        yield


def new_items(engine: str, rows: int) -> None:
    """Make this many unchanged items, and remove the messages of earlier jobs."""
    from tests.jobs.models import Audit, Item

    Audit.objects.all().delete()
    Item.objects.all().delete()
    Item.objects.bulk_create([Item() for _ in range(rows)], batch_size=2000)
    if engine.startswith("celery"):
        from tests.jobs.kills.celery_app import app

        app.control.purge()


def _create_database(db: str, name: str) -> None:
    settings = databases()["default"]
    if db == "postgres":
        import psycopg

        where = {"host": settings["HOST"], "port": settings["PORT"], "user": settings["USER"]}
        with psycopg.connect(
            **where, password=settings["PASSWORD"], dbname="postgres", autocommit=True
        ) as server:
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            server.execute(f'CREATE DATABASE "{name}"')
    if db == "mariadb":
        import MySQLdb  # type: ignore[import-untyped]  # it has no stubs

        server = MySQLdb.connect(
            host=settings["HOST"],
            port=int(settings["PORT"]),
            user=settings["USER"],
            password=settings["PASSWORD"],
        )
        server.query(f"DROP DATABASE IF EXISTS `{name}`")
        server.query(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        server.close()
