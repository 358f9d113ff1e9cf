"""How long saves of single rows wait during a long `update()`: `python -m tests.benchmarks.live`.

    python -m tests.benchmarks.live --db postgres --rows 100000

While one process updates all rows, another saves rows of the same table, chosen at random, so many times a
second, each on a connection of its own. Before each save it asks whether the row is locked. The time of a
save counts from when it was due.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from .database import describe, fill, reset, throwaway
from .table import markdown

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from multiprocessing.synchronize import Event

# Each has a connection, and a server allows about a hundred.
SAVERS = 60
HEADS = ("operation", "seconds", "saves", "found a lock", "their median", "their longest", "median of all")


class Save(NamedTuple):
    """A save of one row: whether the row was locked, and the seconds until it was saved."""

    was_locked: bool
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    with throwaway(options.db):
        fill(options.rows)
        what = f"{options.rows:,} rows, {options.rate} saves a second, batches of {options.batch_size:,}"
        print(f"{describe()}: {what}\n")
        print(markdown(HEADS, [*measured(options)]))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.live", description=__doc__)
    parser.add_argument("--db", choices=["postgres", "mariadb"], default="postgres")
    parser.add_argument("--rows", type=int, default=100_000, metavar="N")
    parser.add_argument("--rate", type=int, default=20, metavar="N", help="saves a second")
    parser.add_argument("--batch-size", type=int, default=2000, metavar="N")
    return parser.parse_args(arguments)


def measured(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table."""
    # It can be imported once Django is set up.
    from signal_patch import bulk_signals

    contenders: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "`update()`, no signals": nullcontext,
        "`atomic=True`": lambda: bulk_signals(batch_size=options.batch_size),
        "`atomic=False`": lambda: bulk_signals(batch_size=options.batch_size, atomic=False),
    }
    for name, switched_on in contenders.items():
        reset(options.rows)
        seconds, saves = run_beside_saves(switched_on, options.rows, options.rate)
        late = [save.seconds for save in saves if save.was_locked]
        yield (
            name,
            f"{seconds:.1f}",
            str(len(saves)),
            f"{100 * len(late) / len(saves):.0f} %",
            f"{1000 * median(late):.0f} ms" if late else "",
            f"{1000 * max(late):.0f} ms" if late else "",
            f"{1000 * median(save.seconds for save in saves):.0f} ms",
        )


def run_beside_saves(
    switched_on: Callable[[], AbstractContextManager[Any]], rows: int, rate: int
) -> tuple[float, list[Save]]:
    """Update all rows, and return the seconds that it took and the saves that were due meanwhile."""
    from django.db import connections
    from django.db.models import F
    from django.db.models.signals import post_save, pre_save

    from .models import Parcel

    def receive(**arguments: object) -> None:
        pass

    connections.close_all()
    # A child that is forked has Django and the database's name.
    context = multiprocessing.get_context("fork")
    ready, stop = context.Event(), context.Event()
    receiving, sending = context.Pipe(duplex=False)
    savers = context.Process(target=save_rows, args=(rows, rate, ready, stop, sending))
    savers.start()
    ready.wait()
    for signal in (pre_save, post_save):
        signal.connect(receive, Parcel)
    try:
        began = time.perf_counter()
        with switched_on():
            Parcel.objects.update(stock=F("stock") + 1)
        seconds = time.perf_counter() - began
    finally:
        for signal in (pre_save, post_save):
            signal.disconnect(receive, Parcel)
        stop.set()
        saves: list[Save] = receiving.recv()
        savers.join()
    return seconds, saves


def save_rows(rows: int, rate: int, ready: Event, stop: Event, results: Any) -> None:
    """Save rows at a fixed rate until stopped; a save that waits does not delay the next one."""
    choice = random.Random(1)
    with ThreadPoolExecutor(SAVERS) as savers:
        # The connections are made before the clock runs.
        list(savers.map(save_row, range(1, SAVERS + 1), [time.perf_counter()] * SAVERS))
        ready.set()
        found = []
        due = time.perf_counter()
        while not stop.wait(max(0.0, due - time.perf_counter())):
            key = choice.randint(1, rows)
            found.append((is_locked(key), savers.submit(save_row, key, due)))
            due += 1 / rate
    results.send([Save(was_locked, save.result()) for was_locked, save in found])


def is_locked(key: int) -> bool:
    from django.db import OperationalError, transaction

    from .models import Parcel

    try:
        with transaction.atomic():
            Parcel.objects.select_for_update(nowait=True).only("pk").get(pk=key)
    except OperationalError:
        return True
    return False


def save_row(key: int, due: float) -> float:
    from .models import Parcel

    Parcel(pk=key, name="Saved").save(update_fields=["name"])
    return time.perf_counter() - due


if __name__ == "__main__":
    sys.exit(main())
