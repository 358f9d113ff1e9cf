"""The measures of the table, by the names that the command line uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
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
from .models import Columns, DescribedParcel, Parcel, PicturedParcel, PlacedParcel
from .racing import Clock, Contender, Times, race
from .table import Line, Target, paired

# Work that takes ten times as long per row gets only a part of the rounds and of the rows.
SLOW_ROUNDS = 3
SLOW_ROWS = 4
# An update that matches no row is a short call: a sample has many calls, and a median many samples.
CALLS = 200
CALL_ROUNDS = 10
FEW_ROWS = 10_000
SCALE_ROUNDS = 3


@dataclass(slots=True)
class Bench:
    """One run of the command: how much to do, and how long each contender took for a row."""

    db: str
    rows: int
    rounds: int
    large: int
    clock: Clock
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def slow_rounds(self) -> int:
        return max(3, self.rounds // SLOW_ROUNDS)

    @property
    def slow_rows(self) -> int:
        return max(1, self.rows // SLOW_ROWS)

    def race(self, contenders: Sequence[Contender], rounds: int, count: int) -> Times:
        """Let contenders race at `count` rows or calls, and note what one of these took."""
        times = race(contenders, rounds, self.clock)
        for name, seconds in times.items():
            self.seconds[name] = [second / count for second in seconds]
        return times


@dataclass(frozen=True, slots=True)
class Duel:
    """Two ways to do the same work, and the target for the ratio of their times.

    `prepare` is given the number of rows; `target` may depend on the database's vendor.
    """

    title: str
    prepare: Callable[[int], Any]
    over: Callable[[Any], object]
    under: Callable[[Any], object]
    target: Target | Mapping[str, Target]
    slow: bool = False
    heard: bool = True
    before: Callable[..., object] = work.receive_before
    sender: type[Columns] = Parcel

    def lines(self, name: str, bench: Bench) -> list[Line]:
        rows = bench.slow_rows if self.slow else bench.rows
        rounds = bench.slow_rounds if self.slow else bench.rounds
        over, under = (
            Contender(f"{name}: {run.__name__}", partial(self.prepare, rows), run)
            for run in (self.over, self.under)
        )
        with work.listening(self.before, self.sender) if self.heard else nullcontext():
            check([over, under], self.sender)
            times = bench.race([over, under], rounds, rows)
        return [Line(self.title, paired(times[over.name], times[under.name]), self._target())]

    def _target(self) -> Target | None:
        if isinstance(self.target, Target):
            return self.target
        return self.target.get(connection.vendor)


class DifferentWorkError(Exception):
    """Contenders that leave different tables, or send different signals, are not comparable."""


def check(contenders: Sequence[Contender], sender: type[Columns] = Parcel) -> None:
    """Raise DifferentWorkError unless all leave the same rows and send as many signals."""
    first, *others = [_effects(contender, sender) for contender in contenders]
    for contender, effects in zip(contenders[1:], others, strict=True):
        if effects != first:
            raise DifferentWorkError(f"{contenders[0].name} and {contender.name} do not do the same")


def _effects(contender: Contender, sender: type[Columns]) -> tuple[list[Any], int, int]:
    counts = {"before": 0, "after": 0}

    def before(**arguments: Any) -> None:
        counts["before"] += 1

    def after(**arguments: Any) -> None:
        counts["after"] += 1

    given = contender.prepare()
    # A measure without receivers must stay without receivers.
    if pre_save.has_listeners(sender):
        pre_save.connect(before, sender=sender)
        post_save.connect(after, sender=sender)
    try:
        contender.run(given)
    finally:
        pre_save.disconnect(before, sender=sender)
        post_save.disconnect(after, sender=sender)
    return list(sender.objects.order_by("pk").values_list()), counts["before"], counts["after"]


def all_rows(rows: int) -> QuerySet[Parcel]:
    """Return all rows of a table; their keys have no gaps."""
    reset(rows)
    return Parcel.objects.all()


def all_rows_of(model: type[Columns], rows: int) -> QuerySet[Columns]:
    """Do as `all_rows` with parcels that have more columns."""
    reset(rows, model)
    return model.objects.all()


def every_other_row(rows: int) -> QuerySet[Parcel]:
    """Return this many rows, which a condition selects from twice as many."""
    reset(2 * rows)
    return Parcel.objects.filter(active=True)


def changed_objects(rows: int) -> list[Parcel]:
    """Return instances of all rows, each with values of its own that have yet to be written."""
    objs = list(all_rows(rows))
    for obj in objs:
        obj.status, obj.stock, obj.price = f"sent {obj.pk}", obj.stock + 1, obj.price + 1
    return objs


def new_objects(rows: int) -> list[Parcel]:
    """Return instances without rows, beside an empty table."""
    reset(0)
    return [Parcel(**values(key)) for key in range(1, rows + 1)]


def _constants_of(model: type[Columns], columns: str, target: Mapping[str, Target]) -> Duel:
    title = f"the same, with {columns} beside / floor"
    prepare = partial(all_rows_of, model)
    return Duel(title, prepare, work.patched_update, work.floor_update, target, sender=model)


_BESIDE_JSON = {"sqlite": Target(1.15), "postgresql": Target(1.20)}

DUELS = {
    "constant": Duel(
        "`update()`, constants / floor", all_rows, work.patched_update, work.floor_update, Target(1.10)
    ),
    "json": _constants_of(
        DescribedParcel, "a JSON column", {"sqlite": Target(1.05), "postgresql": Target(1.12)}
    ),
    "picture": _constants_of(PicturedParcel, "JSON and an `ImageField`", _BESIDE_JSON),
    "custom": _constants_of(PlacedParcel, "JSON and a field of the project's own", _BESIDE_JSON),
    "gaps": Duel(
        "`update()`, constants, every other row / floor",
        every_other_row,
        work.patched_update,
        work.floor_update,
        Target(1.10),
    ),
    "expressions": Duel(
        "`update()`, `F()` values / floor with the re-read",
        all_rows,
        work.patched_expressions,
        work.floor_expressions,
        Target(1.25),
    ),
    "loop": Duel(
        "loop of `save(update_fields=…)` / `update()`",
        all_rows,
        work.loop,
        work.patched_update,
        {"sqlite": Target(6.5, at_least=True), "postgresql": Target(15, at_least=True)},
        slow=True,
    ),
    "unheard": Duel(
        "nobody listens: `update()` / Django's",
        all_rows,
        work.patched_update,
        work.django_update,
        Target(1.02),
        heard=False,
    ),
    "write_back": Duel(
        "receivers change every row: `update()` / `bulk_update()` and signals by hand",
        all_rows,
        work.patched_update,
        work.by_hand_write_back,
        Target(1.00),
        slow=True,
        before=work.change,
    ),
    "bulk_update": Duel(
        "`bulk_update()` / floor",
        changed_objects,
        work.patched_bulk_update,
        work.floor_bulk_update,
        Target(1.10),
        slow=True,
    ),
    "bulk_create": Duel(
        "`bulk_create()` / floor",
        new_objects,
        work.patched_bulk_create,
        work.floor_bulk_create,
        Target(1.10),
    ),
}


def unselected(bench: Bench) -> list[Line]:
    """Compare calls that match no row, with the switch on for another model only."""
    reset(1)
    over, under = (
        Contender(f"unselected: {run.__name__}", lambda: CALLS, run)
        for run in (work.unselected_update_nothing, work.django_update_nothing)
    )
    with work.listening():
        times = bench.race([over, under], bench.rounds * CALL_ROUNDS, CALLS)
    ratios = paired(times[over.name], times[under.name])
    return [Line("model not selected: a call that matches no row / Django's", ratios, Target(1.03))]


def django_bulk_update(batch_size: int | None, bench: Bench) -> list[Line]:
    """Compare what Django's own `bulk_update()` takes without any signal."""
    over, under = (
        Contender(
            f"{run.__name__}, batch_size={batch_size}",
            partial(changed_objects, bench.rows),
            partial(run, batch_size=batch_size),
        )
        for run in (work.heard_bulk_update, work.django_bulk_update)
    )
    check([over, under])
    times = bench.race([over, under], bench.slow_rounds, bench.rows)
    title = f"`bulk_update(batch_size={batch_size})`, a receiver / Django's own without signals"
    return [Line(title, paired(times[over.name], times[under.name]), BULK_UPDATE.get(connection.vendor))]


BULK_UPDATE = {"sqlite": Target(0.15), "postgresql": Target(0.20), "mysql": Target(0.5)}


def memory(bench: Bench) -> list[Line]:
    """Measure the memory peaks of two numbers of rows, in separate processes, and their difference."""
    small, large = (sampled(bench.db, rows, "update", "traced") for rows in (bench.large // 10, bench.large))
    growth = (large.peak - small.peak) / (large.rows - small.rows)
    return [
        Line(f"peak memory, {small.rows:,} rows", [small.peak / MIB], unit=" MiB"),
        Line(f"peak memory, {large.rows:,} rows", [large.peak / MIB], Target(120), " MiB"),
        # Most of it should be the key.
        Line(f"memory for each further row, of which its key {KEY} B", [growth], Target(2 * KEY), " B"),
    ]


def scale(bench: Bench) -> list[Line]:
    """Compare what a row costs among many with what it costs among few, before and after."""
    fill(bench.large)
    many = Contender(f"{bench.large} rows", partial(all_rows, bench.large), work.patched_update)
    few = Contender(f"{FEW_ROWS} rows", partial(all_rows, FEW_ROWS), work.patched_update)
    with work.listening():
        ratios = [_scaled(bench, many, few) for _ in range(SCALE_ROUNDS)]
    return [Line(f"time for each row, {bench.large:,} rows / {FEW_ROWS:,}", ratios, Target(1.15))]


def _scaled(bench: Bench, many: Contender, few: Contender) -> float:
    before = race([few], bench.slow_rounds, bench.clock)[few.name]
    (among_many,) = race([many], 1, bench.clock)[many.name]
    after = race([few], bench.slow_rounds, bench.clock)[few.name]
    return among_many / bench.large / (median(before + after) / FEW_ROWS)


MEASURES: dict[str, Callable[[Bench], list[Line]]] = {
    **{name: partial(duel.lines, name) for name, duel in DUELS.items()},
    "django_bulk_update": partial(django_bulk_update, None),
    "django_bulk_update_in_batches": partial(django_bulk_update, work.BATCH),
    "unselected": unselected,
    "memory": memory,
    "scale": scale,
}


def prepare(rows: int) -> None:
    """Make the rows that the measures put back."""
    fill(2 * rows)
