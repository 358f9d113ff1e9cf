"""Triggers, which may change what is written. Needs PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pgtrigger
from django.db import models
from django.db.models import F
from django.db.models.signals import post_save

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard


class Book(models.Model):
    price = models.IntegerField(default=0)
    version = models.IntegerField(default=0)
    title = models.CharField(max_length=10, default="old")

    class Meta:
        triggers = [
            pgtrigger.Trigger(
                name="count_versions",
                operation=pgtrigger.Update,
                when=pgtrigger.Before,
                func="NEW.version = OLD.version + 1; RETURN NEW;",
            ),
            pgtrigger.Trigger(
                name="no_negative_price",
                operation=pgtrigger.Update,
                when=pgtrigger.Before,
                func="NEW.price = GREATEST(NEW.price, 0); RETURN NEW;",
            ),
        ]


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: (book.title, book.version, book.price), post_save, sender=Book)
    Book.objects.bulk_create([Book(pk=key, price=key) for key in range(1, ROWS + 1)])
    pgtrigger.install()
    with bulk_signals():
        Book.objects.update(title="new")
    yield Claim("triggers run", {book.version for book in Book.objects.all()}, {1})
    old = [("new", 0, key) for key in range(1, ROWS + 1)]
    yield Claim("a receiver does not see a column that only a trigger changes, as after save()", heard(), old)
    with bulk_signals():
        Book.objects.update(price=F("price") - 3)
    yield Claim("it sees what a trigger makes of an F()", [price for _, _, price in heard()], [0, 0, 0, 1, 2])
    with bulk_signals():
        Book.objects.update(price=-1)
    yield Claim("but of a constant, what was assigned, as after save()", {seen[2] for seen in heard()}, {-1})
