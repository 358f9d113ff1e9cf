"""The fields that differ from what was loaded."""

from __future__ import annotations

from collections.abc import Iterator

from dirtyfields import DirtyFieldsMixin
from django.db import models
from django.db.models import F
from django.db.models.signals import pre_save

from tests.packages.comparing import Claim, Heard, Work


class Book(DirtyFieldsMixin, models.Model):
    price = models.IntegerField(default=0)
    title = models.CharField(max_length=10, default="old")


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: (book.pk, book.get_dirty_fields()), pre_save, sender=Book)
    yield from Work(Book, new, {"price": F("price") + 1}, raise_price, heard).compare(
        "update()", "bulk_update()"
    )
