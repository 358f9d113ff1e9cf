"""Cached queries, which it invalidates by receivers. Needs Redis."""

from __future__ import annotations

from collections.abc import Iterator

from cacheops import cached_as, invalidate_all
from django.db import models

from signal_patch import bulk_signals, no_bulk_signals
from tests.packages.comparing import ROWS, Claim


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


def titles_after_an_update() -> list[str]:
    """Return what a query gives that was cached before the update."""
    Book.objects.all().delete()
    Book.objects.bulk_create([Book(pk=key) for key in range(1, ROWS + 1)])
    invalidate_all()

    @cached_as(Book)
    def titles() -> list[str]:
        return list(Book.objects.order_by("pk").values_list("title", flat=True))

    assert titles() == ["old"] * ROWS
    Book.objects.update(title="new")
    return titles()


def run() -> Iterator[Claim]:
    with no_bulk_signals():
        yield Claim(
            "off: a cached query is stale after an update()", titles_after_an_update(), ["old"] * ROWS
        )
    with bulk_signals():
        yield Claim("on: it is fresh", titles_after_an_update(), ["new"] * ROWS)
        Book.objects.bulk_create([Book(pk=100)], batch_size=10)
        changed = Book.objects.filter(pk=100).invalidated_update(title="x")
        yield Claim("on: bulk_create() and invalidated_update() work as without", changed, 1)
