"""The example shop in a separate process, as `manage.py demo` serves it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.test_examples import EXAMPLES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Shop:
    """A shop whose database is in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            # The toolbar refuses to run under pytest, and coverage is slow.
            if not name.startswith(("COVERAGE_", "PYTEST_"))
        }
        self.environment = {
            **kept,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "SHOP_DATABASE": str(folder / "shop.sqlite3"),
        }

    @contextmanager
    def served(self, *options: str) -> Iterator[str]:
        """Serve the shop while the block runs, and yield its address."""
        errors = self.folder / "stderr"
        with (
            errors.open("w") as stderr,
            subprocess.Popen(
                [sys.executable, "manage.py", "demo", "--port", "0", *options],
                cwd=EXAMPLES / "shop",
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            ) as server,
        ):
            try:
                yield _address(server) or pytest.fail(f"the shop has not started: {errors.read_text()}")
            finally:
                server.terminate()

    def manage(self, *arguments: str) -> str:
        """Run a command of the shop's `manage.py`, and return its output, including errors."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=EXAMPLES / "shop",
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout


def _address(server: subprocess.Popen[str]) -> str | None:
    """Return the address that the server prints once it listens, or None if it ends."""
    assert server.stdout is not None
    found = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stdout)
    return next((address.group() for address in found if address), None)
