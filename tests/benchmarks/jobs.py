"""How much faster a job is with more workers, on each engine: `python -m tests.benchmarks.jobs`.

    python -m tests.benchmarks.jobs --db postgres --rows 40000 --engines processes tasks

A receiver inserts an audit row for each row. The workers have started before the clock runs: it counts
from the first tenth of the rows on. Ratios are to the embedded engine (`processes`) with one process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from tests.database import CHOICES
from tests.jobs.kills.database import new_database, new_items

from .table import markdown

ENGINES = ("processes", "celery-redis", "celery-rabbitmq", "tasks")
WORKERS = (1, 2, 4)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    with new_database(options.db):
        from .database import describe

        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for engine in options.engines:
                for workers in WORKERS:
                    found = rate_in_a_process(engine, workers, options.rows)
                    rates.setdefault((engine, workers), []).append(found)
                    # Shows the progress of a long run.
                    print(f"{engine}, {workers} at work: {found:,.0f} rows a second", flush=True)
        print(f"\n{describe()}: {options.rows:,} rows, rounds: {options.rounds}\n")
        print(table(rates, options.engines))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.jobs", description=__doc__)
    parser.add_argument("--db", choices=CHOICES, default="postgres")
    parser.add_argument("--rows", type=int, default=20_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, metavar="NAME")
    return parser.parse_args(arguments)


def table(rates: dict[tuple[str, int], list[float]], engines: Sequence[str]) -> str:
    base = median(rates[engines[0], 1])
    heads = ("engine", *(f"{count} worker{'s' if count > 1 else ''}" for count in WORKERS))
    lines = [
        (engine, *(f"{median(rates[engine, count]) / base:.2f}" for count in WORKERS)) for engine in engines
    ]
    return f"{markdown(heads, lines)}\n1.00 is {base:,.0f} rows a second."


def rate_in_a_process(engine: str, count: int, rows: int) -> float:
    """Return the `rate()`, found by a process of its own: Celery's application keeps its first broker."""
    from django.db import connections

    connections.close_all()
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as one:
        return one.submit(rate, engine, count, rows).result()


def rate(engine: str, count: int, rows: int) -> float:
    """Return how many rows per second this many workers change."""
    # The models can be imported once Django is set up.
    from signal_patch.contrib.jobs.models import Job
    from tests.jobs.bulk_jobs import Retire
    from tests.jobs.kills.workers import BROKERS, Workers

    os.environ["JOBS_BROKER"] = BROKERS.get(engine, "")
    new_items(engine, rows)
    job = Retire.start(engine=engine.partition("-")[0], runners=count)
    workers = Workers(engine, job.pk, count, random.Random(1))
    began, done_before = 0.0, 0
    try:
        while job.status == Job.Status.RUNNING:
            time.sleep(0.02)
            done = sum(job.lanes.values_list("rows", flat=True))
            if not began and done >= rows / 10:
                began, done_before = time.perf_counter(), done
            job.refresh_from_db()
        seconds = time.perf_counter() - began
    finally:
        workers.end()
    return (rows - done_before) / seconds


if __name__ == "__main__":
    sys.exit(main())
