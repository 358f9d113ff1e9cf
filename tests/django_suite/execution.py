"""Running Django's `runtests.py` in subprocesses, and keeping what the vanilla runs gave."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .allowed import NOT_COMPARED
from .comparison import without
from .source import weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .comparison import Outcomes

Mode = Literal["vanilla", "receivers", "patched"]

ROOT = Path(__file__).resolve().parents[2]
# Increase this when the recorder or the settings change the results of a vanilla run.
CACHE_FORMAT = 1
SHARDS_PER_PROCESS = 4


class BrokenRunError(RuntimeError):
    """`runtests.py` ended without writing its record: a crash, a hang, a failed system check."""


@dataclass
class Record:
    """What one or several runs gave: how each test ended, the tracebacks, seconds per label."""

    outcomes: Outcomes = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """One Django version's tests on one database."""

    tree: Path
    version: str
    database: str
    cache: Path
    fresh: bool = False

    def run(self, mode: Mode, labels: Sequence[str], processes: int = 1) -> Record:
        """Run the labels, `processes` subprocesses at a time, and return all that they gave."""
        # More shards than processes, because it is not known in advance which shards are slow.
        shards = shared_out(
            labels,
            1 if processes == 1 else processes * SHARDS_PER_PROCESS,
            lambda label: weight(self.tree, label),
        )
        with ThreadPoolExecutor(max_workers=processes) as pool:
            records = list(pool.map(lambda shard: self.run_shard(mode, shard), shards))
        return merged(records)

    def run_shard(self, mode: Mode, labels: Sequence[str]) -> Record:
        """Return the kept record of this very run, if it was a run without the library."""
        path = self.record_path(mode, labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "patched" or self.fresh or not path.exists():
            path.unlink(missing_ok=True)
            self.run_process(mode, labels, path)
        record = Record(**json.loads(path.read_text()))
        if mode == "vanilla":
            refuse_lost(record)
        return replace(
            record,
            outcomes=without(record.outcomes, NOT_COMPARED),
            details=without(record.details, NOT_COMPARED),
        )

    def run_process(self, mode: Mode, labels: Sequence[str], record: Path) -> None:
        command = [sys.executable, "runtests.py", "--noinput", "--parallel=1"]
        log = record.with_suffix(".log")
        with log.open("w") as output:
            subprocess.run(
                [*command, *labels],
                cwd=self.tree / "tests",
                env=self.environment(mode, record),
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not record.exists():
            raise BrokenRunError(f"{mode} run broken off, see {log}:\n{log.read_text()[-3000:]}")

    def environment(self, mode: Mode, record: Path) -> dict[str, str]:
        """Name the databases after the run, so that shards that run at the same time do not share them."""
        return os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.django_suite.settings",
            "DJANGO_SUITE_MODE": mode,
            "SIGNAL_PATCH_DB": self.database,
            "SIGNAL_PATCH_DB_NAME": f"django_suite_{record.stem.replace('-', '_')}",
            "DJANGO_SUITE_RECORD": str(record),
            "PYTHONPATH": str(ROOT),
        }

    def record_path(self, mode: Mode, labels: Sequence[str]) -> Path:
        digest = digest_of([*labels, f"format {CACHE_FORMAT}", *environment_of(self.tree)])
        return self.cache / "records" / f"{self.version}-{self.database}" / f"{mode}-{digest}.json"


def refuse_lost(record: Record) -> None:
    """Raise if a label cannot be imported: both sides would fail alike, and look equal."""
    if lost := [test for test in record.outcomes if test.startswith("unittest.loader._FailedTest")]:
        raise BrokenRunError(f"not to be imported even without the library: {', '.join(lost)}")


def environment_of(tree: Path) -> list[str]:
    """Return what else affects a vanilla run: Python, Django, and the packages that its tests use."""
    used = packages_used(tree)
    packages = {(dist.metadata["Name"], dist.version) for dist in distributions()}
    return [sys.version, *sorted(f"{name}=={version}" for name, version in packages if name.lower() in used)]


def packages_used(tree: Path) -> set[str]:
    """Return the names in the requirements of Django's tests, and Django's own."""
    text = "\n".join(path.read_text() for path in (tree / "tests" / "requirements").glob("*.txt"))
    return {"django"} | {name.lower() for name in re.findall(r"^[\w-]+", text, re.MULTILINE)}


def digest_of(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def merged(records: Iterable[Record]) -> Record:
    whole = Record()
    for record in records:
        whole.outcomes.update(record.outcomes)
        whole.details.update(record.details)
        whole.seconds.update(record.seconds)
    return whole


def shared_out(labels: Sequence[str], shards: int, weight_of: Callable[[str], int]) -> list[list[str]]:
    """Distribute the labels to the shards: the heaviest first, and always to the lightest shard."""
    piles: list[list[str]] = [[] for _ in range(shards)]
    loads = [0] * shards
    for label in sorted(labels, key=lambda label: (-weight_of(label), label)):
        lightest = loads.index(min(loads))
        piles[lightest].append(label)
        loads[lightest] += weight_of(label)
    return [sorted(pile) for pile in piles if pile]
