"""Signals of changes to single fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models
from django.db.models import F
from fieldsignals import post_save_changed

from signal_patch import bulk_signals
from tests.packages.comparing import Claim


class Book(models.Model):
    price = models.IntegerField(default=0)
    title = models.CharField(max_length=10, default="old")


def run() -> Iterator[Claim]:
    seen: list[Any] = []

    def note(instance: Book, changed_fields: dict[str, Any], **arguments: Any) -> None:
        seen.append(changed_fields)

    post_save_changed.connect(note, sender=Book, fields=["price"])
    Book.objects.bulk_create([Book(price=3)])
    seen.clear()
    Book.objects.update(price=F("price") + 1)
    yield Claim("off: update() tells nothing", [*seen], [])
    with bulk_signals():
        Book.objects.update(price=F("price") + 1)
    yield Claim("on: it tells the old and the new value, of an F(), too", [*seen], [{"price": (4, 5)}])
    with bulk_signals():
        Book.objects.update(title="new")
    yield Claim("on: and nothing where another field changes", len(seen), 1)
