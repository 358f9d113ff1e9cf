"""What django-simple-history and django-auditlog record of bulk operations, with the switch off and on.

Run it with ``python examples/quickstart.py``: one file, a database in memory, no server. Each operation is
carried out four times on the same rows: as Django does it, inside ``bulk_signals()``, the same with the
options for receivers that run statements of their own, and as a loop of ``save()`` or ``delete()``. The exit
code is 1 if the last three do not leave equal records.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings


class Quickstart(AppConfig):
    """This file is the app: models need one."""

    name = __name__
    label = "quickstart"


settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "auditlog",
        "simple_history",
        f"{__name__}.Quickstart",
    ],
    USE_TZ=True,
)
django.setup()

# Models can only be imported and defined once Django is set up.
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.core.management import call_command
from django.db import connection, models, transaction
from django.db.models import F
from simple_history.models import HistoricalRecords

from signal_patch import bulk_signals, explain, no_bulk_signals

ROWS = 100


class Book(models.Model):
    title = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    status = models.CharField(max_length=10, default="new")
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.title


class Ticket(models.Model):
    title = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    status = models.CharField(max_length=10, default="new")
    seats = models.IntegerField(default=1)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.title


MODELS: tuple[type[models.Model], ...] = (Book, Ticket)
auditlog.register(Book)
auditlog.register(Ticket)


def load() -> None:
    """Create the tables and rows, of which nothing is recorded yet."""
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        for model in (Book, Book.history.model, Ticket, Ticket.history.model):
            editor.create_model(model)
    for model in MODELS:
        # Steps of ten cents: multiplied by 1.1 they need no rounding, which differs between databases.
        model._default_manager.bulk_create(
            model(title=f"{model.__name__} {n}", price=Decimal(n) / 10) for n in range(100, 100 + ROWS)
        )


@dataclass(frozen=True)
class Operation:
    """A bulk operation, and the loop that a receiver should not be able to tell from it."""

    name: str
    bulk: Callable[[Any], object]
    loop: Callable[[Any], object]


def save_each(rows: Any, field: str, value: Callable[[Any], object]) -> None:
    for row in rows:
        setattr(row, field, value(row))
        row.save(update_fields=[field])


def cents(price: Decimal) -> Decimal:
    return price.quantize(Decimal("0.01"))


def bulk_update_prices(rows: Any) -> None:
    changed = list(rows)
    for row in changed:
        row.price += 5
    rows.bulk_update(changed, ["price"])


def delete_each(rows: Any) -> None:
    for row in rows:
        row.delete()


OPERATIONS = (
    Operation(
        'update(price=F("price") * Decimal("1.1"))',
        bulk=lambda rows: rows.update(price=F("price") * Decimal("1.1")),
        loop=lambda rows: save_each(rows, "price", lambda row: cents(row.price * Decimal("1.1"))),
    ),
    Operation(
        'update(status="sold")',
        bulk=lambda rows: rows.update(status="sold"),
        loop=lambda rows: save_each(rows, "status", lambda _: "sold"),
    ),
    Operation(
        'bulk_update(rows, ["price"])',
        bulk=bulk_update_prices,
        loop=lambda rows: save_each(rows, "price", lambda row: row.price + 5),
    ),
    Operation(
        "delete()",
        bulk=lambda rows: rows.delete(),
        loop=delete_each,
    ),
)

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """What the tools recorded of an operation, and what it took."""

    records: dict[str, Records]
    statements: int
    seconds: float


def run(model: Any, operate: Callable[[Any], object], switch: AbstractContextManager[None]) -> Run:
    """Operate on every row, look at what was recorded, and leave the database as it was."""
    statements = 0

    def count(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(*arguments)

    with transaction.atomic():
        with switch, connection.execute_wrapper(count):
            start = time.perf_counter()
            operate(model.objects.order_by("pk"))
            seconds = time.perf_counter() - start
        # Everything that the tools store, but the number of the record and the time at which it was made.
        records = {
            "simple-history": without(model.history.order_by("id"), "history_id", "history_date"),
            "auditlog": without(LogEntry.objects.order_by("object_id"), "id", "timestamp"),
        }
        transaction.set_rollback(True)
    return Run(records, statements, seconds)


def without(records: Any, *names: str) -> Records:
    return [{name: value for name, value in row.items() if name not in names} for row in records.values()]


def run_each_way(operation: Operation, model: Any) -> dict[str, Run]:
    # The rows that the receivers insert, and the reads that they make, each in one statement per batch.
    batched = bulk_signals(batch_inserts=[model.history.model, LogEntry], batch_reads=True)
    return {
        "off": run(model, operation.bulk, no_bulk_signals()),
        "on": run(model, operation.bulk, bulk_signals()),
        "batched": run(model, operation.bulk, batched),
        "loop": run(model, operation.loop, no_bulk_signals()),
    }


def compare(model: Any, ways: dict[str, Run]) -> bool:
    """Print a line of the table for each tool, and tell whether bulk and loop recorded the same."""
    equal = True
    for tool, expected in ways["loop"].records.items():
        off, on, batched = (ways[way].records[tool] for way in ("off", "on", "batched"))
        same = on == expected and batched == expected
        first = gist(on[0]) if on else "nothing"
        print_line(model.__name__, tool, len(off), len(on), len(expected), "yes" if same else "NO", first)
        report_difference(on, expected)
        report_difference(batched, expected)
        equal = equal and same and len(on) == ROWS
    return equal


def gist(record: dict[str, Any]) -> str:
    """Say in short what was recorded: the row as it became, or each field's old and new value."""
    if "history_type" in record:
        return "{history_type} price {price}, status {status}".format_map(record)
    changes = {name: record["changes"].get(name) for name in ("price", "status")}
    return ", ".join(f"{name} {change[0]} -> {change[1]}" for name, change in changes.items() if change)


def report_difference(on: Records, expected: Records) -> None:
    difference = next(((got, want) for got, want in zip(on, expected, strict=False) if got != want), None)
    if difference:
        print(f"    bulk: {difference[0]}\n    loop: {difference[1]}")


def print_line(*cells: object) -> None:
    print("  {:<7} {:<15} {:>4} {:>4} {:>5}  {:<11} {}".format(*cells))


def print_costs(costs: list[tuple[str, dict[str, Run]]]) -> None:
    print(f"\nStatements and time of {ROWS} rows of Ticket, those of the receivers included\n")
    line = "  {:<42} {:>14} {:>14} {:>14} {:>14}"
    print(line.format("", "off", "on", "on, batched", "loop"))
    for name, ways in costs:
        cells = (f"{way.statements:>5} {way.seconds * 1000:>5.0f} ms" for way in ways.values())
        print(line.format(name, *cells))
    print("\n  batched: with the options batch_inserts and batch_reads")
    print("  each ran once, on few rows: the statements are exact, the times only rough")


def main() -> int:
    load()
    with bulk_signals():
        print("What explain() says of the first operation, before it runs:\n")
        print(explain(Book.objects.order_by("pk"), price=F("price") * Decimal("1.1")))
    print(f"\nRecords of {ROWS} changed rows: switch off, switch on, and a loop of save() or delete()")
    print("Book and Ticket are plain models, registered with django-simple-history and django-auditlog\n")
    print_line("model", "recorded by", "off", "on", "loop", "on = loop", "the first record, switch on")
    equal, costs = [], []
    for operation in OPERATIONS:
        print(operation.name)
        for model in MODELS:
            ways = run_each_way(operation, model)
            equal.append(compare(model, ways))
        costs.append((operation.name, ways))
    print_costs(costs)
    print("\nEqual, field by field." if all(equal) else "\nThe records differ.")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
