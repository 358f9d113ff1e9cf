from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.apps import apps
from django.db import connections
from django.db.models import AutoField
from hypothesis import settings

from tests.parity import profiles  # noqa: F401  # registers them before the option is read

if TYPE_CHECKING:
    from pytest_django.plugin import DjangoDbBlocker

# Examples give smaller keys than this.
FIRST_GENERATED_KEY = 1000


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(config.getoption("--hypothesis-profile") or "fixed")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Let the databases generate keys that no example gives.

    MariaDB and PostgreSQL do not roll their counters back, so the two runs of an example get different keys,
    and only one of them might meet a given key. SQLite's counters start anew for both.
    """
    with django_db_blocker.unblock():
        for alias in connections:
            for model in apps.get_app_config("parity").get_models():
                if isinstance(model._meta.pk, AutoField) and model._meta.can_migrate(alias):
                    _start_counter(alias, model._meta.db_table, model._meta.pk.column)


def _start_counter(alias: str, table: str, column: str | None) -> None:
    connection = connections[alias]
    statements = {
        "mysql": "ALTER TABLE {table} AUTO_INCREMENT = {first}",
        "postgresql": "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {first})",
    }
    if connection.vendor in statements:
        name = connection.ops.quote_name(table)
        with connection.cursor() as cursor:
            cursor.execute(
                statements[connection.vendor].format(table=name, column=column, first=FIRST_GENERATED_KEY)
            )
