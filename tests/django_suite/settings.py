"""The settings for one run of Django's tests; `runtests.py` adds apps, middleware and the rest.

Parallel workers import the settings too, so what is turned on here is on in every process.
"""

from __future__ import annotations

import os

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

# The settings that Django ships for this very run, on the path because `runtests.py` is.
from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403

# Only upper-case names are settings, and one test of Django's wants to find no others.
mode = os.environ["DJANGO_SUITE_MODE"]
database = os.environ["DJANGO_SUITE_DATABASE"]
name = os.environ["DJANGO_SUITE_NAME"]

servers: dict[str, dict[str, object]] = {
    "sqlite": {"ENGINE": "django.db.backends.sqlite3"},
    "postgres": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("POSTGRES_HOST", "127.0.0.1"),
        "PORT": os.environ.get("POSTGRES_PORT", "5432"),
        "USER": os.environ.get("POSTGRES_USER", "root"),
        "PASSWORD": os.environ.get("POSTGRES_PASSWORD", ""),
    },
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
        "PORT": os.environ.get("MYSQL_PORT", "3306"),
        "USER": os.environ.get("MYSQL_USER", "root"),
        "PASSWORD": os.environ.get("MYSQL_PASSWORD", ""),
        "TEST": {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_general_ci"},
    },
}
# SQLite's test databases are in memory unless they are named.
names = {"default": name, "other": f"{name}_other"}
DATABASES = {
    alias: servers[database] | ({} if database == "sqlite" else {"NAME": names[alias]})
    for alias in names
}

TEST_RUNNER = "tests.django_suite.recorder.RecordingRunner"


def do_nothing(sender: object, **arguments: object) -> None:
    """Listen to everything: what the library does, it does because somebody listens."""


if mode != "vanilla":
    for signal in (pre_save, post_save, pre_delete, post_delete):
        signal.connect(do_nothing)
if mode == "patched":
    import signal_patch

    signal_patch.enable()
