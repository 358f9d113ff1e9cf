"""Measure what the signals cost: `python -m tests.benchmarks`."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import django

from .database import describe, has_packages, throwaway
from .table import HEADS, Line, markdown, row

if TYPE_CHECKING:
    from .measures import Bench

QUICK = (
    "constant",
    "json",
    "picture",
    "custom",
    "gaps",
    "expressions",
    "loop",
    "unheard",
    "unselected",
    "write_back",
    "bulk_update",
    "django_bulk_update",
    "django_bulk_update_in_batches",
    "bulk_create",
)
# With other packages: see requirements.txt.
RECEIVERS = (
    "history",
    "audit",
    "history_and_audit",
    "history_peer",
    "insert",
    "insert_peer",
    "read",
    "relation",
    "cache",
    "options_idle",
    "options_worst",
)
# They take minutes.
SLOW = ("memory", "scale")
NAMES = (*RECEIVERS, *QUICK, *SLOW)
MILLION = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    # Show the progress of a long run.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text stream, if nobody swaps it
    with throwaway(options.db):
        # They need Django's settings.
        from .clocks import clock
        from .measures import Bench, prepare

        large = options.scale or MILLION
        bench = Bench(options.db, options.rows, options.rounds, large, clock(options.clock))
        prepare(options.rows)
        report(bench, options)
    return 0


def report(bench: Bench, options: argparse.Namespace) -> None:
    measures = known_measures()
    print(heading(options, bench), end="\n\n")
    print(markdown(HEADS, ()))
    for name in chosen(options):
        for line in measures[name](bench):
            print(row(line.cells()))
    print(f"\n{costs(bench)}")
    if options.peers:
        from .peers import compare

        print(f"\n{compare(bench)}")
    if options.plot:
        from .plot import plot

        plot(options.db, bench.large, options.plot)


def known_measures() -> Mapping[str, Callable[[Bench], list[Line]]]:
    """Return the measures by name, without those whose packages are not installed."""
    from .measures import MEASURES

    if not has_packages():
        return MEASURES
    from .receivers import COMPARISONS

    return MEASURES | {name: partial(found.lines, name) for name, found in COMPARISONS.items()}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--db", choices=["sqlite", "postgres", "mariadb"], default="sqlite")
    parser.add_argument("--rows", type=int, default=20_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="how often each contender runs")
    parser.add_argument("--measures", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--scale",
        type=int,
        nargs="?",
        const=MILLION,
        metavar="N",
        help="measure memory and scale, too, with so many rows (default: a million)",
    )
    parser.add_argument(
        "--peers", action="store_true", help="compare with other libraries: see requirements.txt"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw time and memory against rows, with matplotlib"
    )
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, for a busy machine"
    )
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> Sequence[str]:
    """Return the names of the measures to take."""
    if options.measures:
        return [*options.measures]
    quick = (*RECEIVERS, *QUICK) if has_packages() else QUICK
    return (*quick, *SLOW) if options.scale else quick


def heading(options: argparse.Namespace, bench: Bench) -> str:
    python, framework = platform.python_version(), django.get_version()
    return (
        f"{describe()}, Django {framework}, Python {python}: {bench.rows:,} rows of 9 columns, or 10 and 11, "
        f"({bench.slow_rows:,} for loops and `bulk_update()`), medians of {bench.rounds} interleaved rounds "
        f"({bench.slow_rounds}), {options.clock} clock."
    )


def costs(bench: Bench) -> str:
    """Return a table of what a row, or a call, costs each contender."""
    rows = (
        (name, f"{median(seconds) * 1e6:.1f}", f"{min(seconds) * 1e6:.1f}")
        for name, seconds in bench.seconds.items()
    )
    return markdown(("contender", "µs a row or call, median", "least"), rows)


sys.exit(main())
