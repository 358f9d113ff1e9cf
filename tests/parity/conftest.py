from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings

from tests.parity import profiles  # noqa: F401  # registers them before the option is read

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(config.getoption("--hypothesis-profile") or "fixed")
