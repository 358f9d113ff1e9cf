"""The tests of Django's own that may end otherwise with the library on, each with its reason.

Only tests that count statements, capture SQL or look into `Signal.receivers` belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY_DJANGO = frozenset({"5.2", "6.0", "6.1"})
EVERY_DATABASE = frozenset({"sqlite", "postgres", "mariadb"})


@dataclass(frozen=True)
class Allowed:
    """One test that may differ, and the versions and databases on which it does."""

    test: str
    reason: str
    django: frozenset[str] = EVERY_DJANGO
    databases: frozenset[str] = EVERY_DATABASE


ALLOWED: list[Allowed] = []


def allowed_on(series: str, database: str) -> dict[str, str]:
    """Return test id -> reason for one Django series and one database."""
    return {
        entry.test: entry.reason
        for entry in ALLOWED
        if series in entry.django and database in entry.databases
    }
