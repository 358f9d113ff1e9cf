"""Time and memory against the number of rows."""

from __future__ import annotations

from pathlib import Path

from .memory import MIB, sampled

CONTENDERS = {"update": "update() with signals", "floor": "the same in plain Django code"}


def plot(db: str, largest: int, file: Path) -> None:
    """Draw the library and the floor from 1 000 rows on, each size in processes of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    time, memory = figure.subplots(1, 2)
    sizes = [rows for rows in (1_000, 10_000, 100_000, 1_000_000) if rows <= largest]
    for contender, label in CONTENDERS.items():
        seconds = [sampled(db, rows, contender, "timed").seconds for rows in sizes]
        peaks = [sampled(db, rows, contender, "traced").peak / MIB for rows in sizes]
        time.plot(sizes, seconds, "o-", label=label)
        memory.plot(sizes, peaks, "o-", label=label)
    for axes, unit in ((time, "seconds"), (memory, "peak traced memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="rows", ylabel=unit)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file)
