"""Django's source distribution, which holds its tests: downloaded once, never committed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

# Not test modules, or (`gis_tests`) only for spatial backends: as in Django's `runtests.py`.
NOT_LABELS = frozenset({"import_error_package", "test_runner_apps", "gis_tests"})


def source_tree(version: str, cache: Path) -> Path:
    """Return the unpacked sources of exactly this Django, downloading them if need be."""
    tree = cache / f"django-{version}"
    if not tree.exists():
        unpack(download(version, cache), tree)
    return tree


def download(version: str, cache: Path) -> Path:
    """Fetch the sdist with pip, which knows the user's indexes and checks the hash."""
    archive = cache / f"django-{version}.tar.gz"
    if not archive.exists():
        options = ["--no-binary", ":all:", "--no-deps", "--quiet", "--dest", str(cache)]
        command = [sys.executable, "-m", "pip", "download", *options, f"django=={version}"]
        subprocess.run(command, check=True)
    return archive


def unpack(archive: Path, tree: Path) -> None:
    """Unpack next to the final place and rename, so that an interrupted run leaves no half-unpacked tree."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        (Path(scratch) / tree.name).rename(tree)


def all_labels(tree: Path) -> list[str]:
    """Return every label that `runtests.py` runs when it is given none."""
    packages = (path.parent.name for path in (tree / "tests").glob("*/__init__.py"))
    return sorted(set(packages) - NOT_LABELS)


def weight(tree: Path, label: str) -> int:
    """Return a rough measure of how long a label takes: the size of its Python files."""
    folder = tree / "tests" / label.partition(".")[0]
    return sum(path.stat().st_size for path in folder.rglob("*.py"))
