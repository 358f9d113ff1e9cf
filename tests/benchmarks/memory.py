"""What one update of many rows takes, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import asdict, dataclass
from functools import cache
from time import perf_counter

# What the key of a row takes at least: an int, and its place in a list.
KEY = sys.getsizeof(1_000_000) + 8
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds, and bytes at the peak over those before, of an update of `rows` rows."""

    rows: int
    seconds: float
    peak: int


@cache
def sampled(db: str, rows: int, contender: str, how: str) -> Sample:
    """Return a sample, "timed" or "traced", from a new process with a database of its own."""
    command = [sys.executable, "-m", __name__, db, str(rows), contender, how]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Sample(**json.loads(finished.stdout))


def measure(rows: int, contender: str, *, traced: bool) -> Sample:
    """Return a sample from this process."""
    # Where Django is set up.
    from . import contenders as work
    from .database import fill, reset
    from .models import Parcel

    run = {"update": work.patched_update, "floor": work.floor_update}[contender]
    fill(rows)
    with work.listening():
        # Imports and caches that are made only once do not count.
        reset(1)
        run(Parcel.objects.all())
        reset(rows)
        if traced:
            tracemalloc.start()
        start = perf_counter()
        run(Parcel.objects.all())
        seconds = perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
    return Sample(rows, seconds, peak)


def main(db: str, rows: str, contender: str, how: str) -> None:
    from .database import throwaway

    with throwaway(db):
        sample = measure(int(rows), contender, traced=how == "traced")
    print(json.dumps(asdict(sample)))


if __name__ == "__main__":
    main(*sys.argv[1:])
