"""Contenders that take turns in one process, so that what slows the machine down slows all of them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Times = dict[str, list[float]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to do some work: `prepare` is not timed, and what it returns goes to `run`."""

    name: str
    prepare: Callable[[], Any]
    run: Callable[[Any], object]


def race(contenders: Sequence[Contender], rounds: int, clock: Clock) -> Times:
    """Return the seconds of each contender, by name, one for each round."""
    times: Times = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        _show(f"\r{' / '.join(times)}: round {number + 1} of {rounds}  ")
        for contender in rotated(contenders, number):
            times[contender.name].append(_timed(contender, clock))
    _show("\r\033[K")
    return times


def rotated(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Return the contenders in the order of a round, so that none of them always follows the same one."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def _timed(contender: Contender, clock: Clock) -> float:
    given = contender.prepare()
    gc.collect()
    start = clock()
    contender.run(given)
    return clock() - start


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)
