"""What django-simple-history and django-auditlog record of bulk operations, with the switch off and on.

Run it with ``python examples/quickstart.py``: one file, a database in memory, no server. Each operation is
carried out three times on the same rows: as Django does it, inside ``bulk_signals()``, and as a loop of
``save()`` or ``delete()``. The exit code is 1 if the second and the third do not leave equal records.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
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

from signal_patch import bulk_signals, no_bulk_signals

ROWS = 300


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
    """Create the tables and some hundreds of rows, of which nothing is recorded yet."""
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        for model in (Book, Book.history.model, Ticket, Ticket.history.model):
            editor.create_model(model)
    for model in MODELS:
        # Steps of ten cents: times 1.1 they need no rounding, which is each database's own affair.
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


def records_of(model: Any, operate: Callable[[Any], object]) -> dict[str, Records]:
    """Operate on every row, return what each tool recorded, and leave the database as it was."""
    with transaction.atomic():
        operate(model.objects.order_by("pk"))
        # Everything that the tools store, but the number of the record and the time at which it was made.
        recorded = {
            "simple-history": without(model.history.order_by("id"), "history_id", "history_date"),
            "auditlog": without(LogEntry.objects.order_by("object_id"), "id", "timestamp"),
        }
        transaction.set_rollback(True)
    return recorded


def without(records: Any, *names: str) -> Records:
    return [{name: value for name, value in row.items() if name not in names} for row in records.values()]


def compare(operation: Operation, model: Any) -> bool:
    """Print a line of the table for each tool, and tell whether bulk and loop recorded the same."""
    with no_bulk_signals():
        off = records_of(model, operation.bulk)
    with bulk_signals():
        on = records_of(model, operation.bulk)
    loop = records_of(model, operation.loop)
    for tool, expected in loop.items():
        counts = len(off[tool]), len(on[tool]), len(expected)
        equal = "yes" if on[tool] == expected else "NO"
        print_line(model.__name__, tool, *counts, equal, gist(on[tool][0]) if on[tool] else "nothing")
        report_difference(on[tool], expected)
    return on == loop and all(len(records) == ROWS for records in on.values())


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


def main() -> int:
    load()
    print(f"Records of {ROWS} changed rows: switch off, switch on, and a loop of save() or delete()\n")
    print_line("model", "recorded by", "off", "on", "loop", "on = loop", "the first record, switch on")
    equal = []
    for operation in OPERATIONS:
        print(operation.name)
        equal += [compare(operation, model) for model in MODELS]
    print("\nEqual, field by field." if all(equal) else "\nThe records differ.")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
