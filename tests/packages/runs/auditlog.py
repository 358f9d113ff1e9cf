"""An entry for each change, from the old row, which a receiver of `pre_save` reads."""

from __future__ import annotations

from collections.abc import Iterator

from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.db import models
from django.db.models import F

from tests.packages.comparing import Claim, Work


class Book(models.Model):
    price = models.IntegerField(default=0)


auditlog.register(Book)


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def records() -> list[object]:
    entries = LogEntry.objects.order_by("object_id", "pk")
    return [*entries.values_list("object_pk", "action", "changes", "object_repr")]


def run() -> Iterator[Claim]:
    work = Work(Book, new, {"price": F("price") + 1}, raise_price, records, [LogEntry])
    yield from work.compare(batch_inserts=["auditlog.LogEntry"], batch_reads=True)
