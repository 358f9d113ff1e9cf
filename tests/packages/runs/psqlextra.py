"""A queryset and a manager of its own. Needs PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models import F
from django.db.models.signals import post_save
from psqlextra.manager import PostgresManager
from psqlextra.models import PostgresModel

from tests.packages.comparing import Claim, Heard, Work


class Book(PostgresModel):
    price = models.IntegerField(default=0)
    objects = PostgresManager()


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: (book.pk, book.price), post_save, sender=Book)
    yield from Work(Book, new, {"price": F("price") + 1}, raise_price, heard).compare(
        "update()", "bulk_update()", "bulk_create()"
    )
