"""The migrations of the ledger."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from pytest_django import Settings

from signal_patch.contrib.jobs.models import FailedRow, Job, Lane


@pytest.fixture(autouse=True)
def _with_migrations(settings: Settings) -> None:
    """Undo `--no-migrations`."""
    settings.MIGRATION_MODULES = {}


@pytest.mark.django_db
def test_they_make_what_the_models_say() -> None:
    call_command("makemigrations", "signal_patch_jobs", check=True, dry_run=True)


@pytest.mark.django_db(transaction=True)
def test_they_apply() -> None:
    tables = [model._meta.db_table for model in (FailedRow, Lane, Job)]
    with connection.schema_editor() as editor:
        for table in tables:
            editor.execute(f"DROP TABLE {table}")
    MigrationExecutor(connection).migrate([("signal_patch_jobs", "0001_initial")])
    try:
        assert set(tables) <= set(connection.introspection.table_names())
        assert not Job.objects.exists()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE django_migrations")
