"""The line of code from which an operation is called."""

from __future__ import annotations

import asyncio
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from django.utils.functional import SimpleLazyObject

from signal_patch import callers
from signal_patch.callers import Site, call_site, definition_site

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HERE = "tests/test_callers.py"


def module(filename: str, code: str) -> Any:
    """Return a module that has this code, as if it came from the file."""
    made = types.ModuleType("made")
    exec(compile(code, filename, "exec"), vars(made))
    return made


INSTALLED = "/srv/venv/lib/python3/site-packages/shop/jobs.py"
CALLING = "def call(function):\n    return function()\n"


def test_the_site_is_the_line_that_calls() -> None:
    site = call_site()

    assert site is not None
    assert site.line == test_the_site_is_the_line_that_calls.__code__.co_firstlineno + 1
    assert str(site) == f"{HERE}:{site.line} in test_the_site_is_the_line_that_calls"
    assert site.filename == __file__
    assert site.module == __name__


def test_django_the_standard_library_and_site_packages_are_passed_over() -> None:
    site = module(INSTALLED, CALLING).call(lambda: str(SimpleLazyObject(call_site)))

    assert site.startswith(f"{HERE}:")
    assert "lambda" in site
    assert str(module(INSTALLED, CALLING).call(call_site)).endswith(
        "in test_django_the_standard_library_and_site_packages_are_passed_over"
    )


def test_without_project_code_on_the_stack_it_is_the_innermost_line_of_a_library() -> None:
    with ThreadPoolExecutor(1) as other:
        # Only the standard library is beneath it there.
        assert other.submit(call_site).result() is None
        found = other.submit(module(INSTALLED, CALLING).call, call_site).result()
    assert found == Site(INSTALLED, 2, "made", "call")


def test_without_project_code_in_the_thread_the_site_is_the_line_that_awaits() -> None:
    awaiting = Site("orders.py", 5, "orders", "expire")

    async def main() -> list[Site | None]:
        with callers.awaited_at(awaiting):
            found = [
                await asyncio.to_thread(call_site),
                await asyncio.to_thread(module(INSTALLED, CALLING).call, call_site),
                call_site(),
            ]
        return [*found, await asyncio.to_thread(call_site)]

    first, library, here, after = asyncio.run(main())

    assert first == library == awaiting
    assert here is not None
    assert here.filename == __file__
    assert after is None


def test_a_definition_may_be_in_a_library() -> None:
    assert module(INSTALLED, CALLING).call(definition_site) == Site(INSTALLED, 2, "made", "call")


def test_a_path_is_shown_as_an_import_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "shop" / "jobs.py")
    site = Site(file, 3, "shop.jobs", "run")

    monkeypatch.setattr(sys, "path", ["", "/nowhere"])
    assert str(site) == f"{file}:3 in run"
    monkeypatch.chdir(tmp_path)
    assert str(site) == "shop/jobs.py:3 in run"
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "shop")])
    assert str(site) == "jobs.py:3 in run"


def test_a_site_is_within_its_module_and_what_is_around_it() -> None:
    site = Site("jobs.py", 3, "shop.jobs", "Job.run")

    assert all(map(site.is_within, ["shop", "shop.jobs", "shop.jobs.Job", "shop.jobs.Job.run"]))
    assert not any(
        map(site.is_within, ["sho", "shop.job", "shop.jobs.Job.ru", "other", "shop.jobs.Job.run.x"])
    )
