"""Profiles: ``fixed`` runs the same examples each time; ``--hypothesis-profile=deep`` looks for new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

settings.register_profile(
    "fixed",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=500,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("deep", settings.get_profile("fixed"), derandomize=False, max_examples=20_000)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("fixed")
