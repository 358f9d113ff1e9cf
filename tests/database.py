"""The database that the tests run on: pytest's option ``--db``, and what it means for the settings.

A pytest plugin of its own (``-p tests.database``), as the option must be read before the settings are.
"""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHOICES = ("sqlite", "postgres", "mariadb", "mysql")
DRIVERS = {"postgres": "psycopg", "mariadb": "MySQLdb", "mysql": "MySQLdb"}
# Through the environment, not a global: the workers of pytest-xdist and child processes inherit it.
VARIABLE = "SIGNAL_PATCH_DB"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--db",
        choices=CHOICES,
        default=os.environ.get(VARIABLE, "sqlite"),
        help="database to test on (default: sqlite, in memory)",
    )


# A wrapper, as pytest-django's own hook, which reads the settings, asks to be first among the others.
@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    os.environ[VARIABLE] = chosen = early_config.known_args_namespace.db
    if chosen != "sqlite":
        require(chosen)
    return (yield)


def is_mysql() -> bool:
    """Return whether it is MySQL itself: of MariaDB, too, the connection's vendor is "mysql"."""
    return os.environ.get(VARIABLE) == "mysql"


def require(chosen: str) -> None:
    """Fail before the first test, with one clear message, if the driver or the server is not there."""
    if not find_spec(DRIVERS[chosen]):
        raise pytest.UsageError(f"--db={chosen} needs {DRIVERS[chosen]}: pip install -e '.[{chosen}]'")
    settings = databases()["default"]
    address = settings["HOST"], int(settings["PORT"])
    try:
        socket.create_connection(address, timeout=10).close()
    except OSError as error:
        raise pytest.UsageError(f"--db={chosen}: no server at {address[0]}:{address[1]}: {error}") from error


def databases() -> dict[str, dict[str, Any]]:
    """Return the setting ``DATABASES`` for the chosen database: ``default``, and ``other`` beside it."""
    configure = {"sqlite": _sqlite, "postgres": _postgres, "mariadb": _mariadb, "mysql": _mysql}
    chosen = configure[os.environ.get(VARIABLE, "sqlite")]
    name = os.environ.get("SIGNAL_PATCH_DB_NAME", "signal_patch")
    return {"default": chosen(name), "other": chosen(f"{name}_other")}


def _sqlite(name: str) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


def _postgres(name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "PORT": os.environ.get("PGPORT", "5432"),
        "USER": os.environ.get("PGUSER", "postgres"),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
    }


def _mariadb(name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": name,
        "HOST": os.environ.get("MARIADB_HOST", "127.0.0.1"),
        "PORT": os.environ.get("MARIADB_PORT", "3306"),
        "USER": os.environ.get("MARIADB_USER", "root"),
        "PASSWORD": os.environ.get("MARIADB_PASSWORD", ""),
        "OPTIONS": {
            "charset": "utf8mb4",
            "init_command": "SET default_storage_engine = InnoDB, sql_mode = 'STRICT_TRANS_TABLES'",
        },
        "TEST": {"CHARSET": "utf8mb4"},
    }


def _mysql(name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": name,
        "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
        # MariaDB's server has MySQL's own.
        "PORT": os.environ.get("MYSQL_PORT", "3307"),
        "USER": os.environ.get("MYSQL_USER", "root"),
        "PASSWORD": os.environ.get("MYSQL_PASSWORD", ""),
        "OPTIONS": {"charset": "utf8mb4"},
        "TEST": {"CHARSET": "utf8mb4"},
    }
