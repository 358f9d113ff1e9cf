"""Cached queries, which it invalidates by table, beneath the ORM's signals."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection, models
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


def titles() -> list[str]:
    return list(Book.objects.order_by("pk").values_list("title", flat=True))


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: book.title, post_save, sender=Book)
    Book.objects.bulk_create([Book(pk=key) for key in range(1, ROWS + 1)])
    titles()
    with CaptureQueriesContext(connection) as queries:
        titles()
    yield Claim("a query is cached", len(queries), 0)
    Book.objects.update(title="off")
    yield Claim("off: it is fresh after an update()", titles(), ["off"] * ROWS)
    with bulk_signals():
        Book.objects.update(title="on")
    yield Claim("on: so it is, and receivers see the new values", heard(), ["on"] * ROWS)
    yield Claim("on: the query gives them, too", titles(), ["on"] * ROWS)
