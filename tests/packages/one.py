"""Run one package in this process: `python -m tests.packages.one NAME`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import django
from django.conf import settings

from tests.database import VARIABLE, databases

from .apps import RUN
from .known import PACKAGES, Package


def main(name: str) -> int:
    os.environ[RUN] = f"tests.packages.runs.{name}"
    configure(PACKAGES[name])
    from django.db import connection

    database = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        claims = [*import_module(os.environ[RUN]).run()]
    finally:
        connection.creation.destroy_test_db(database, verbosity=0)
    for claim in claims:
        print(claim)
    return 0 if claims and all(claim.holds for claim in claims) else 1


def configure(package: Package) -> None:
    """Set Django up as a project that uses this package."""
    os.environ[VARIABLE] = package.database
    os.environ["SIGNAL_PATCH_DB_NAME"] = f"signal_patch_packages_{os.getpid()}"
    database = databases()["default"] | package.connection
    # Tables of models without migrations are made first, and may refer to those of others.
    database["TEST"] = {"MIGRATE": package.migrate}
    defaults: dict[str, Any] = {
        "DATABASES": {"default": database},
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "INSTALLED_APPS": [
            "django.contrib.contenttypes",
            "django.contrib.auth",
            *package.apps,
            "tests.packages",
        ],
        "SECRET_KEY": "for the runs only",
        "STATIC_URL": "static/",
        "USE_TZ": True,
    }
    settings.configure(**defaults | package.settings)
    django.setup()


sys.exit(main(sys.argv[1]))
