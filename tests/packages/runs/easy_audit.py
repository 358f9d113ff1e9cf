"""An event for each change; it listens to every model as soon as it is installed."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models import F
from easyaudit.models import CRUDEvent

from tests.packages.comparing import Claim, Work


class Book(models.Model):
    price = models.IntegerField(default=0)


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def records() -> list[object]:
    events = CRUDEvent.objects.order_by("object_id", "pk")
    return [*events.values_list("object_id", "event_type", "changed_fields", "object_json_repr")]


def run() -> Iterator[Claim]:
    yield from Work(Book, new, {"price": F("price") + 1}, raise_price, records, [CRUDEvent]).compare()
