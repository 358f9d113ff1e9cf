"""Every Python snippet of the README runs, inside a copy of the example shop."""

from __future__ import annotations

import dataclasses
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from signal_patch.options import Options
from tests.test_examples import EXAMPLES, ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SETTINGS = [snippet for snippet in SNIPPETS if snippet.startswith("# settings.py\n")]
CODE = [snippet for snippet in SNIPPETS if snippet not in SETTINGS]

# The shop before anybody has read the README: the snippets turn the patch on.
BARE_SHOP = """\
from settings import *
INSTALLED_APPS.remove("signal_patch")
del SIGNAL_PATCH
DATABASES["default"]["NAME"] = ":memory:"
# Creating the tables without migrations is faster.
MIGRATION_MODULES = dict.fromkeys(["admin", "auditlog", "auth", "contenttypes", "sessions"])
"""
SETUP = """\
import django
django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
"""


def run_in_shop(directory: Path, *, settings: str = "", code: str = "", then: str = "") -> None:
    shop = shutil.copytree(
        EXAMPLES / "shop", directory / "shop", ignore=shutil.ignore_patterns("__pycache__")
    )
    (shop / "readme_settings.py").write_text(BARE_SHOP + settings, encoding="utf-8")
    (shop / "catalogue" / "snippet.py").write_text(code, encoding="utf-8")
    setup = f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'readme_settings'\n{SETUP}"
    finished = run_python("-c", f"{setup}import catalogue.snippet\n{then}", cwd=shop)
    assert finished.returncode == 0, finished.stderr


def test_the_readme_has_snippets_of_both_kinds() -> None:
    assert len(SETTINGS) >= 2
    assert len(CODE) >= 4


@pytest.mark.parametrize("snippet", CODE, ids=range(len(CODE)))
def test_a_snippet_of_the_readme_runs(snippet: str, tmp_path: Path) -> None:
    run_in_shop(tmp_path, code=snippet)


@pytest.mark.parametrize("snippet", SETTINGS, ids=range(len(SETTINGS)))
def test_a_settings_snippet_of_the_readme_turns_the_patch_on(snippet: str, tmp_path: Path) -> None:
    check = "import signal_patch; assert signal_patch.is_enabled('catalogue.Product', 'update')"

    run_in_shop(tmp_path, settings=snippet, then=check)


def test_without_a_settings_snippet_the_patch_is_off(tmp_path: Path) -> None:
    check = "import signal_patch; assert not signal_patch.is_enabled()"

    run_in_shop(tmp_path, then=check)


def test_the_readme_lists_every_option_and_no_other() -> None:
    table = README[README.index("| option |") : README.index("An unknown model, option or operation")]

    listed = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)

    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(Options))


def test_the_readme_lists_every_check_and_no_other() -> None:
    source = (ROOT / "signal_patch" / "checks.py").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `(signal_patch\.\w+)` \|", README, flags=re.MULTILINE)) == sorted(
        set(re.findall(r"signal_patch\.[EW]\d+", source))
    )
