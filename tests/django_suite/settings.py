"""The settings for one run of Django's tests; `runtests.py` adds apps, middleware and the rest.

Parallel workers import the settings too, so what is turned on here is on in every process.
"""

from __future__ import annotations

import os

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

MODE = os.environ["DJANGO_SUITE_MODE"]
DATABASE = os.environ["DJANGO_SUITE_DATABASE"]
NAME = os.environ["DJANGO_SUITE_NAME"]

SERVERS: dict[str, dict[str, object]] = {
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
    },
}
TEST: dict[str, object] = (
    {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_general_ci"} if DATABASE == "mariadb" else {}
)
# SQLite's test databases are in memory unless they are named.
NAMES: dict[str, str] = {} if DATABASE == "sqlite" else {"default": NAME, "other": f"{NAME}_other"}
DATABASES = {
    alias: {**SERVERS[DATABASE], "TEST": TEST} | ({"NAME": NAMES[alias]} if alias in NAMES else {})
    for alias in ("default", "other")
}

# As in the `test_sqlite.py` that Django ships.
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False

TEST_RUNNER = "tests.django_suite.recorder.RecordingRunner"


def do_nothing(sender: object, **arguments: object) -> None:
    """Listen to everything: what the library does, it does because somebody listens."""


if MODE != "vanilla":
    for signal in (pre_save, post_save, pre_delete, post_delete):
        signal.connect(do_nothing)
if MODE == "patched":
    import signal_patch

    signal_patch.enable()
