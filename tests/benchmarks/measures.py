"""The measures of the table, each by the name that the command line knows it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.db.models.signals import post_save, pre_save

from . import contenders as work
from .database import fill, reset, values
from .memory import KEY, MIB, sampled
from .models import Parcel
from .racing import Clock, Contender, Times, race
from .table import Line, Target, paired

# What takes ten times as long as the rest gets a part of the rounds.
SLOW_SHARE = 3
# One call of an update that matches no row is short: many make one sample, and many samples a median.
CALLS = 200
CALL_ROUNDS = 10
FEW_ROWS = 10_000
SCALE_ROUNDS = 3


@dataclass(slots=True)
class Bench:
    """One run of the command: how many rows and rounds, and how long each contender took."""

    rows: int
    rounds: int
    clock: Clock
    db: str
    large: int
    seconds: dict[str, tuple[list[float], int]] = field(default_factory=dict)

    @property
    def few(self) -> int:
        return max(3, self.rounds // SLOW_SHARE)

    def race(self, contenders: Sequence[Contender], rounds: int | None = None) -> Times:
        """Run the contenders once to see that they do the same, then for the time they take."""
        check(contenders)
        times = race(contenders, rounds or self.rounds, self.clock)
        for name, seconds in times.items():
            self.seconds.setdefault(name, (seconds, self.rows))
        return times

    def versus(
        self, measure: str, over: Contender, under: Contender, target: Target, rounds: int | None = None
    ) -> Line:
        """Return the line that says how much longer one takes than the other."""
        times = self.race([over, under], rounds)
        return Line(measure, paired(times[over.name], times[under.name]), target)


class DifferentWorkError(Exception):
    """Contenders that leave different tables, or send different signals, are not comparable."""


def check(contenders: Sequence[Contender]) -> None:
    """Raise DifferentWorkError unless all leave the same rows and send as many signals."""
    first, *others = [_effects(contender) for contender in contenders]
    for contender, effects in zip(contenders[1:], others, strict=True):
        if effects != first:
            raise DifferentWorkError(f"{contenders[0].name} and {contender.name} do not do the same")


def _effects(contender: Contender) -> tuple[list[Any], int, int]:
    counts = {"before": 0, "after": 0}

    def before(**arguments: Any) -> None:
        counts["before"] += 1

    def after(**arguments: Any) -> None:
        counts["after"] += 1

    given = contender.prepare()
    # Where nobody is to listen, this would be somebody.
    heard = pre_save.has_listeners(Parcel)
    if heard:
        pre_save.connect(before, sender=Parcel)
        post_save.connect(after, sender=Parcel)
    try:
        contender.run(given)
    finally:
        pre_save.disconnect(before, sender=Parcel)
        post_save.disconnect(after, sender=Parcel)
    return list(Parcel.objects.order_by("pk").values_list()), counts["before"], counts["after"]


def all_rows(rows: int) -> QuerySet[Parcel]:
    """Return all rows of a table; their keys have no gaps."""
    reset(rows)
    return Parcel.objects.all()


def every_other_row(rows: int) -> QuerySet[Parcel]:
    """Return so many rows that a condition picks from twice as many."""
    reset(2 * rows)
    return Parcel.objects.filter(active=True)


def constant(bench: Bench) -> list[Line]:
    rows = partial(all_rows, bench.rows)
    with work.listening():
        return [
            bench.versus(
                "`update()`, constants / floor",
                Contender("update, constants", rows, work.patched_update),
                Contender("update, constants: floor", rows, work.floor_update),
                Target(1.10),
            )
        ]


def gaps(bench: Bench) -> list[Line]:
    rows = partial(every_other_row, bench.rows)
    with work.listening():
        return [
            bench.versus(
                "`update()`, constants, every other row / floor",
                Contender("update, every other row", rows, work.patched_update),
                Contender("update, every other row: floor", rows, work.floor_update),
                Target(1.10),
            )
        ]


def expressions(bench: Bench) -> list[Line]:
    rows = partial(all_rows, bench.rows)
    with work.listening():
        return [
            bench.versus(
                "`update()`, `F()` values / floor with the re-read",
                Contender("update, F()", rows, work.patched_expressions),
                Contender("update, F(): floor", rows, work.floor_expressions),
                Target(1.25),
            )
        ]


def loop(bench: Bench) -> list[Line]:
    rows = partial(all_rows, bench.rows)
    bound = {"sqlite": 6.5, "postgresql": 15.0}.get(connection.vendor)
    with work.listening():
        times = bench.race(
            [
                Contender("loop of save()", rows, work.loop),
                Contender("update, constants", rows, work.patched_update),
            ],
            bench.few,
        )
    ratios = paired(times["loop of save()"], times["update, constants"])
    target = Target(bound, at_least=True) if bound else None
    return [Line("loop of `save(update_fields=…)` / `update()`", ratios, target)]


def unheard(bench: Bench) -> list[Line]:
    rows = partial(all_rows, bench.rows)
    return [
        bench.versus(
            "nobody listens: `update()` / Django's",
            Contender("update, nobody listens", rows, work.patched_update),
            Contender("Django's update", rows, work.django_update),
            Target(1.02),
        )
    ]


def unselected(bench: Bench) -> list[Line]:
    def calls() -> int:
        return CALLS

    reset(1)
    with work.listening():
        times = race(
            [
                Contender("unselected", calls, work.unselected_update_nothing),
                Contender("Django's", calls, work.django_update_nothing),
            ],
            bench.rounds * CALL_ROUNDS,
            bench.clock,
        )
    for name, label in (("unselected", "a call, model not selected"), ("Django's", "a call of Django's")):
        bench.seconds[label] = (times[name], CALLS)
    ratios = paired(times["unselected"], times["Django's"])
    return [Line("model not selected: a call that matches no row / Django's", ratios, Target(1.03))]


def write_back(bench: Bench) -> list[Line]:
    rows = partial(all_rows, bench.rows)
    with work.listening(before=work.change):
        return [
            bench.versus(
                "receivers change every row / the same with `bulk_update()` by hand",
                Contender("update, write-back", rows, work.patched_update),
                Contender("by hand, write-back", rows, work.by_hand_write_back),
                Target(1.0),
                bench.few,
            )
        ]


def bulk_update(bench: Bench) -> list[Line]:
    def objects() -> list[Parcel]:
        objs = list(all_rows(bench.rows))
        for obj in objs:
            obj.status, obj.stock, obj.price = f"sent {obj.pk}", obj.stock + 1, obj.price + 1
        return objs

    with work.listening():
        return [
            bench.versus(
                "`bulk_update()` / floor",
                Contender("bulk_update", objects, work.patched_bulk_update),
                Contender("bulk_update: floor", objects, work.floor_bulk_update),
                Target(1.10),
                bench.few,
            )
        ]


def bulk_create(bench: Bench) -> list[Line]:
    def objects() -> list[Parcel]:
        reset(0)
        return [Parcel(**values(key)) for key in range(1, bench.rows + 1)]

    with work.listening():
        return [
            bench.versus(
                "`bulk_create()` / floor",
                Contender("bulk_create", objects, work.patched_bulk_create),
                Contender("bulk_create: floor", objects, work.floor_bulk_create),
                Target(1.10),
            )
        ]


def memory(bench: Bench) -> list[Line]:
    small, large = (sampled(bench.db, rows, "update", "traced") for rows in (bench.large // 10, bench.large))
    growth = (large.peak - small.peak) / (large.rows - small.rows)
    return [
        Line(f"peak memory, {small.rows:,} rows", [small.peak / MIB], unit=" MiB"),
        Line(f"peak memory, {large.rows:,} rows", [large.peak / MIB], Target(120), " MiB"),
        # As long as the keys are most of it.
        Line(f"growth for each row, of which its key {KEY} B", [growth], Target(2 * KEY), " B"),
    ]


def scale(bench: Bench) -> list[Line]:
    """Compare what a row costs among many with what it costs among few, before and after."""
    fill(bench.large)
    many = Contender("update, many rows", partial(all_rows, bench.large), work.patched_update)
    few = Contender("update, few rows", partial(all_rows, FEW_ROWS), work.patched_update)
    ratios = []
    with work.listening():
        for _ in range(SCALE_ROUNDS):
            before, among_many, after = (
                race([contender], rounds, bench.clock)[contender.name]
                for contender, rounds in ((few, bench.few), (many, 1), (few, bench.few))
            )
            ratios.append(among_many[0] / bench.large / (median(before + after) / FEW_ROWS))
    return [Line(f"time for each row, {bench.large:,} rows / {FEW_ROWS:,}", ratios, Target(1.15))]


MEASURES: dict[str, Callable[[Bench], list[Line]]] = {
    "constant": constant,
    "gaps": gaps,
    "expressions": expressions,
    "loop": loop,
    "unheard": unheard,
    "unselected": unselected,
    "write_back": write_back,
    "bulk_update": bulk_update,
    "bulk_create": bulk_create,
    "memory": memory,
    "scale": scale,
}


def prepare(rows: int) -> None:
    """Make the rows that the measures put back."""
    fill(2 * rows)
