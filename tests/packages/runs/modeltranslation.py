"""A column for each language, behind one attribute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models
from django.db.models.signals import post_save
from django.utils.translation import override

from signal_patch import bulk_signals
from tests.packages.comparing import Claim


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


def run() -> Iterator[Claim]:
    seen: list[Any] = []

    def note(instance: Any, update_fields: Any, **arguments: Any) -> None:
        seen.append((instance.title, instance.title_de, sorted(update_fields)))

    post_save.connect(note, sender=Book)
    Book.objects.bulk_create([Book(pk=1)])
    with bulk_signals(), override("de"):
        Book.objects.update(title="neu")
    yield Claim(
        "on: receivers see the new text; update_fields names the column of the language",
        seen,
        [("neu", "neu", ["title_de"])],
    )
