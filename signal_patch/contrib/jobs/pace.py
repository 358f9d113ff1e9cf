"""How many rows the next step changes, so that it takes about the target time."""

from __future__ import annotations

from math import ceil

# The share of the newest step in the moving average.
_NEWEST = 0.3
_GROWTH = 1.2


def average(before: float | None, rows: int, seconds: float) -> float | None:
    """Return the new moving average of the time per row; unchanged if the step changed no row."""
    if not rows:
        return before
    newest = seconds / rows
    return newest if before is None else before + _NEWEST * (newest - before)


def next_size(size: int, row_seconds: float | None, target_seconds: float) -> int:
    """Return the size of the next step: what fits the target time, and at most a fifth more than before."""
    largest = ceil(size * _GROWTH)
    if not row_seconds:
        return largest
    return max(1, min(int(target_seconds / row_seconds), largest))


def halved(size: int) -> int:
    return max(1, size // 2)
