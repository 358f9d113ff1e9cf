"""A row of its own for each change, written by triggers. Needs PostgreSQL."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pghistory
import pgtrigger
from django.db import models
from django.db.models import F

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Work

# Where it looks for the models of this app.
sys.modules["tests.packages.models"] = sys.modules[__name__]


@pghistory.track(
    pghistory.InsertEvent(), pghistory.UpdateEvent(), pghistory.DeleteEvent(), context_field=None
)
class Book(models.Model):
    price = models.IntegerField(default=0)


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def run() -> Iterator[Claim]:
    pgtrigger.install()
    events = Book.pgh_event_model

    def records() -> list[object]:
        return sorted(events.objects.values_list("pgh_label", "pgh_obj_id", "price"))

    work = Work(Book, new, {"price": F("price") + 1}, raise_price, records, [events])
    yield from work.compare()
    off = work.recorded(lambda: Book.objects.update(price=1))
    on = work.recorded(bulk_signals()(lambda: Book.objects.update(price=1)))
    yield Claim("it records the same with the switch off: triggers need no signals", off, on)
