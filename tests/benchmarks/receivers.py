"""The cost of receivers that insert and read, one by one and batched: those of packages, and simple ones."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.core.cache.backends.redis import RedisCache
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save
from simple_history.utils import bulk_update_with_history

from signal_patch import bulk_receiver, bulk_signals, disable

from .measures import Bench, DifferentWorkError
from .racing import Contender
from .receiver_models import Audited, Category, Entry, Historic, Plain, Recorded
from .table import Line, Target, paired

VALUES: dict[str, Any] = {"status": "sent", "stock": 7}
# Columns whose values differ from run to run.
TIMES = frozenset({"timestamp", "history_date"})
Targets = Mapping[str, Target]


def at_least(sqlite: float, postgresql: float) -> Targets:
    return {"sqlite": Target(sqlite, at_least=True), "postgresql": Target(postgresql, at_least=True)}


def at_most(sqlite: float, postgresql: float) -> Targets:
    return {"sqlite": Target(sqlite), "postgresql": Target(postgresql)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways to change the rows of a model, and the target for the ratio of their times.

    Each way has its own receivers. `records` are the models to which the receivers write.
    """

    title: str
    model: Any
    over: Callable[[Any], object]
    under: Callable[[Any], object]
    targets: Targets
    over_receivers: Callable[[], Any]
    under_receivers: Callable[[], Any]
    records: tuple[Any, ...] = ()

    def lines(self, name: str, bench: Bench) -> list[Line]:
        over, under = (
            Contender(f"{name}: {part}", partial(self._prepare, bench.slow_rows), partial(run, listening))
            for part, run, listening in (
                ("over", partial(_run, self.over), self.over_receivers),
                ("under", partial(_run, self.under), self.under_receivers),
            )
        )
        if self._effects(over) != self._effects(under):
            raise DifferentWorkError(f"{over.name} and {under.name} do not do the same")
        times = bench.race([over, under], bench.slow_rounds, bench.slow_rows)
        ratios = paired(times[over.name], times[under.name])
        return [Line(self.title, ratios, self.targets.get(connection.vendor))]

    def _prepare(self, rows: int) -> Any:
        """Return a queryset of this many new rows, after emptying the tables of the records."""
        _empty(self.model, Category, *self.records)
        Category.objects.bulk_create([Category(id=key, name=f"category {key}") for key in range(1, 11)])
        self.model.objects.bulk_create([self.model(**_values(key)) for key in range(1, rows + 1)])
        return self.model.objects.order_by("pk")

    def _effects(self, contender: Contender) -> list[Any]:
        contender.run(contender.prepare())
        return [
            list(model.objects.order_by("pk").values_list(*_compared(model)))
            for model in (self.model, *self.records)
        ]


def _run(work: Callable[[Any], object], listening: Callable[[], Any], queryset: Any) -> None:
    with listening():
        work(queryset)


def _compared(model: Any) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields if field.name not in TIMES]


def _empty(*models: Any) -> None:
    tables = [model._meta.db_table for model in models]
    flush = connection.ops.sql_flush(no_style(), tables, reset_sequences=True, allow_cascade=True)
    connection.ops.execute_sql_flush(flush)


def _values(key: int) -> dict[str, Any]:
    return {
        "id": key,
        "name": f"Parcel number {key}",
        "status": "new",
        "stock": key % 100,
        "price": f"{key % 1000}.50",
        "active": key % 2 == 1,
        "created": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        "data": {"labels": ["fragile", key], "weight": key / 8},
        "category_id": key % 10 + 1,
    }


# The work


def loop(queryset: Any) -> None:
    # Not even a dormant wrapper around save().
    disable()
    with transaction.atomic():
        for obj in queryset:
            obj.status, obj.stock = VALUES["status"], VALUES["stock"]
            obj.save(update_fields=["status", "stock"])


def patched(**options: Any) -> Callable[[Any], None]:
    def update(queryset: Any) -> None:
        with bulk_signals(**options):
            queryset.update(**VALUES)

    return update


def by_simple_history(queryset: Any) -> None:
    disable()
    with transaction.atomic():
        objs = list(queryset)
        for obj in objs:
            obj.status, obj.stock = VALUES["status"], VALUES["stock"]
        bulk_update_with_history(objs, queryset.model, ["status", "stock"], batch_size=500)


# The receivers


def insert(instance: Any, **arguments: Any) -> None:
    Entry.objects.create(key=instance.pk, text=instance.status, data={"stock": instance.stock})


def insert_and_look(instance: Any, **arguments: Any) -> None:
    entry = Entry.objects.create(key=instance.pk, text=instance.status, data={"stock": instance.stock})
    instance.last_entry = entry.pk


def collect(instance: Any, **arguments: Any) -> None:
    COLLECTED.append(Entry(key=instance.pk, text=instance.status, data={"stock": instance.stock}))


def insert_collected(queryset: Any) -> None:
    COLLECTED.clear()
    with transaction.atomic():
        patched()(queryset)
        Entry.objects.bulk_create(COLLECTED)


def read(instance: Any, **arguments: Any) -> None:
    instance.old = Plain.objects.get(pk=instance.pk)


def look_at_category(instance: Any, **arguments: Any) -> None:
    instance.shown = instance.category.name


def nothing(**arguments: Any) -> None:
    """Listen, and do nothing."""


COLLECTED: list[Entry] = []


def _cache() -> Any:
    return RedisCache(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), {"KEY_PREFIX": "signal_patch"})


CACHE = _cache()


def forget(instance: Any, **arguments: Any) -> None:
    CACHE.delete(f"plain:{instance.pk}")


def forget_all(instances: list[Any], **arguments: Any) -> None:
    CACHE.delete_many([f"plain:{instance.pk}" for instance in instances])


def _listening(*receivers: tuple[Any, Any]) -> Callable[[], Any]:
    @contextmanager
    def listen() -> Iterator[None]:
        with ExitStack() as stack:
            for signal, receiver in receivers:
                signal.connect(receiver, sender=Plain)
                stack.callback(signal.disconnect, receiver, sender=Plain)
            yield

    return listen


@contextmanager
def _forgetting_lists() -> Iterator[None]:
    receiver = bulk_receiver(post_save, sender=Plain)(forget_all)
    yield
    post_save.disconnect(receiver, sender=Plain)


def _audited(model: Any) -> Callable[[], Any]:
    @contextmanager
    def listen() -> Iterator[None]:
        auditlog.register(model)
        try:
            yield
        finally:
            auditlog.unregister(model)

    return listen


def _against_loop(
    title: str, model: Any, targets: Targets, listening: Callable[[], Any], *records: Any, **options: Any
) -> Comparison:
    return Comparison(
        f"loop / `update()`: {title}", model, loop, patched(**options), targets, listening, listening, records
    )


HISTORY = Historic.history.model
RECORDED = Recorded.history.model
BOTH: dict[str, Any] = {"batch_inserts": ["auditlog", HISTORY, RECORDED], "batch_reads": True}
INSERTING, LOOKING = _listening((post_save, insert)), _listening((post_save, insert_and_look))
IDLE = _listening((pre_save, nothing), (post_save, nothing))

COMPARISONS: dict[str, Comparison] = {
    "history": _against_loop(
        "simple-history, `batch_inserts`",
        Historic,
        at_least(2.3, 4),
        _listening(),
        HISTORY,
        batch_inserts=[HISTORY],
    ),
    "audit": _against_loop(
        "auditlog, `batch_inserts` and `batch_reads`",
        Audited,
        at_least(3.5, 4),
        _audited(Audited),
        LogEntry,
        **BOTH,
    ),
    "history_and_audit": _against_loop(
        "simple-history and auditlog, both options",
        Recorded,
        at_least(3, 3.2),
        _audited(Recorded),
        RECORDED,
        LogEntry,
        **BOTH,
    ),
    "history_peer": Comparison(
        "`update()` with `batch_inserts` / `bulk_update_with_history()`",
        Historic,
        patched(batch_inserts=[HISTORY]),
        by_simple_history,
        at_most(1.6, 1.5),
        _listening(),
        _listening(),
        (HISTORY,),
    ),
    "insert": _against_loop(
        "an INSERT, `batch_inserts`", Plain, at_least(7, 15), INSERTING, Entry, batch_inserts=[Entry]
    ),
    "insert_peer": Comparison(
        "`update()` with `batch_inserts` / a receiver that collects its rows for one `bulk_create()`",
        Plain,
        patched(batch_inserts=[Entry]),
        insert_collected,
        {},
        INSERTING,
        _listening((post_save, collect)),
        (Entry,),
    ),
    "read": _against_loop(
        "reads the old row, `batch_reads`",
        Plain,
        at_least(2.5, 5),
        _listening((pre_save, read)),
        batch_reads=True,
    ),
    "relation": _against_loop(
        "`instance.category`, `prefetch`",
        Plain,
        at_least(6, 15),
        _listening((post_save, look_at_category)),
        prefetch=["category"],
    ),
    "cache": Comparison(
        "loop / `update()`: deletes cache keys (Redis), `bulk_receiver`",
        Plain,
        loop,
        patched(),
        at_least(10, 10),
        _listening((post_save, forget)),
        _forgetting_lists,
    ),
    "options_idle": Comparison(
        "receivers that neither insert nor read: options on / off",
        Plain,
        patched(**BOTH),
        patched(),
        at_most(1.03, 1.03),
        IDLE,
        IDLE,
    ),
    "options_worst": Comparison(
        "receivers that look at each inserted row's key at once: options on / off",
        Plain,
        patched(batch_inserts=[Entry], batch_reads=True),
        patched(),
        at_most(1.2, 1.2),
        LOOKING,
        LOOKING,
        (Entry,),
    ),
}
