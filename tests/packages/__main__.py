"""Try signal_patch with other packages: `python -m tests.packages`, or with names for some of them.

First `pip install -r tests/packages/requirements.txt`. The packages that refuse its Django are in
requirements-5.2.txt, for an environment of their own. What is not installed is left out.

Each runs in a process of its own, as each has its own settings. Some need PostgreSQL or Redis. The README
names the variables for the one; REDIS_URL is for the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import django

from .known import PACKAGES


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.packages", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PACKAGES))
    given = parser.parse_args(arguments).names
    unknown = [name for name in given if name not in PACKAGES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(PACKAGES)}")
    chosen = given or PACKAGES
    names = [name for name in chosen if is_installed(name)]
    missing = [name for name in chosen if not is_installed(name)]
    failed = [name for name in names if not try_out(name)]
    print(f"\nDjango {django.__version__}: {len(names) - len(failed)} of {len(names)} packages as expected")
    if failed:
        print(f"Not as expected: {', '.join(failed)}")
    if missing:
        print(f"Not installed: {', '.join(missing)}")
    return 1 if failed else 0


def is_installed(name: str) -> bool:
    try:
        version(PACKAGES[name].distribution)
    except PackageNotFoundError:
        return False
    return True


def try_out(name: str) -> bool:
    """Run one package, print what came of it, and tell whether all was as expected."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.packages.one", name], capture_output=True, text=True, check=False
    )
    expected = finished.returncode == 0
    distribution = PACKAGES[name].distribution
    print(f"{distribution} {version(distribution)}: {'as expected' if expected else 'NOT AS EXPECTED'}")
    print(finished.stdout, end="")
    if not expected:
        print(finished.stderr, end="")
    return expected


sys.exit(main())
