"""Every Python snippet of the README runs, inside a copy of the example shop."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import signal_patch.callers
from signal_patch.conf import _VALID, Settings
from signal_patch.options import Options
from tests.packages.known import PACKAGES
from tests.test_examples import EXAMPLES, ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SETTINGS = [snippet for snippet in SNIPPETS if snippet.startswith("# settings.py\n")]
# Others that begin with the path of a file belong there.
FILES = {path: snippet for snippet in SNIPPETS for path in re.findall(r"\A# (catalogue/\w+\.py)\n", snippet)}
CODE = [snippet for snippet in SNIPPETS if snippet not in (*SETTINGS, *FILES.values())]

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


def copy_of_the_shop(directory: Path, settings: str, files: dict[str, str]) -> Path:
    shop = shutil.copytree(
        EXAMPLES / "shop", directory / "shop", ignore=shutil.ignore_patterns("__pycache__")
    )
    for path, content in {"readme_settings.py": BARE_SHOP + settings, **files}.items():
        (shop / path).write_text(content, encoding="utf-8")
    return shop


def run_in_shop(directory: Path, *, settings: str = "", code: str = "", then: str = "") -> None:
    shop = copy_of_the_shop(directory, settings, {"catalogue/snippet.py": code})
    setup = f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'readme_settings'\n{SETUP}"
    finished = run_python("-c", f"{setup}import catalogue.snippet\n{then}", cwd=shop)
    assert finished.returncode == 0, finished.stderr


def test_the_readme_has_snippets_of_both_kinds() -> None:
    assert len(SETTINGS) >= 2
    assert len(CODE) >= 4
    assert sorted(FILES) == ["catalogue/bulk_jobs.py", "catalogue/test_update.py", "catalogue/tests.py"]


def test_code_in_the_readme_is_in_snippets_that_run() -> None:
    languages = set(re.findall(r"^```(.+)$", README, flags=re.MULTILINE))

    assert languages == {"console", "python", "sh", "text"}


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


def test_the_job_of_the_readme_runs(tmp_path: Path) -> None:
    path = "catalogue/bulk_jobs.py"
    settings = "if 'signal_patch.contrib.jobs' not in INSTALLED_APPS:\n"
    settings += "    INSTALLED_APPS.append('signal_patch.contrib.jobs')\n"
    code = """\
from django.core.management import call_command
from catalogue.models import Product
Product.objects.create(name="Mug", price=10)
Product.objects.create(name="Pen", price=10)
call_command("bulk_jobs", "run", "catalogue.RaisePrices", "--param", "name=Mug")
assert [*Product.objects.order_by("name").values_list("price", flat=True)] == [11, 10]
"""
    shop = copy_of_the_shop(tmp_path, settings, {path: FILES[path]})
    setup = f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'readme_settings'\n{SETUP}"

    finished = run_python("-c", setup + code, cwd=shop)

    assert finished.returncode == 0, finished.stderr


def test_the_tests_of_the_readme_pass(tmp_path: Path) -> None:
    path = "catalogue/tests.py"
    shop = copy_of_the_shop(tmp_path, "INSTALLED_APPS.append('signal_patch')\n", {path: FILES[path]})

    finished = run_python("manage.py", "test", "--settings", "readme_settings", cwd=shop)

    assert finished.returncode == 0, finished.stderr
    assert "Ran 2 tests" in finished.stderr


def test_the_tests_of_the_readme_for_pytest_pass(tmp_path: Path) -> None:
    path = "catalogue/test_update.py"
    shop = copy_of_the_shop(tmp_path, "INSTALLED_APPS.append('signal_patch')\n", {path: FILES[path]})
    arguments = ("-c", os.devnull, "--rootdir", str(shop), "--ds", "readme_settings", "--no-migrations")

    finished = run_python("-m", "pytest", "-p", "no:cacheprovider", *arguments, path, cwd=shop)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1 passed" in finished.stdout


def rows_of(first_head: str) -> list[list[str]]:
    """Return the cells of the rows of the table whose first head this is."""
    lines = README[README.index(f"\n| {first_head} |") :].strip().partition("\n\n")[0].splitlines()
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_the_readme_lists_every_option_and_no_other() -> None:
    listed = {name.strip("`"): default.strip("`") for name, default, _ in rows_of("option")}

    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(Options))
    assert listed.pop("operations") == "all"
    assert {name: ast.literal_eval(default) for name, default in listed.items()} == {
        field.name: field.default for field in dataclasses.fields(Options) if field.name in listed
    }


SETTING = [(cells[0].strip("`"), cells[-2], cells[-1].rstrip(" |")) for cells in rows_of("key")]


def test_the_readme_lists_every_key_of_the_setting_and_no_other() -> None:
    assert sorted(key for key, _, _ in SETTING) == sorted(_VALID)


@pytest.mark.parametrize(("key", "default", "example"), SETTING, ids=[key for key, _, _ in SETTING])
def test_the_default_and_the_example_of_a_key_are_right(key: str, default: str, example: str) -> None:
    assert read({key: evaluated(example)}) != read({})
    if default not in ("every model", "all four"):
        assert read({key: evaluated(default)}) == read({})


def evaluated(code: str) -> Any:
    return eval(code.strip("`"), {"signal_patch": signal_patch})


def read(given: dict[str, Any]) -> list[Any]:
    """Return all that the setting says."""
    settings = Settings(given)
    names = [name for name, value in vars(Settings).items() if isinstance(value, property)]
    values = [getattr(settings, name) for name in names if name != "options"]
    return [Options.from_keywords(settings.options), *values]


def test_the_readme_lists_every_check_and_no_other() -> None:
    source = (ROOT / "signal_patch" / "checks.py").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `(signal_patch\.\w+)` \|", README, flags=re.MULTILINE)) == sorted(
        set(re.findall(r"signal_patch\.[EW]\d+", source))
    )


def pinned() -> dict[str, str]:
    folder = ROOT / "tests" / "packages"
    lines = [
        line for path in sorted(folder.glob("requirements*.txt")) for line in path.read_text().splitlines()
    ]
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_readme_lists_the_packages_that_are_tried_in_the_versions_that_are_pinned() -> None:
    listed = {name: version for name, version, *_ in rows_of("package")}

    assert listed.keys() == {package.distribution for package in PACKAGES.values()}
    assert listed.items() <= pinned().items()


def test_the_links_within_the_readme_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}

    assert set(re.findall(r"\]\(#([^)]*)\)", README)) <= anchors
