"""Rows that are marked instead of deleted, one by one."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from safedelete.models import SafeDeleteModel

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard


class Book(SafeDeleteModel):
    title = models.CharField(max_length=10, default="old")


def make() -> None:
    rows = Book._base_manager.all()
    rows._raw_delete(rows.db)
    Book.objects.bulk_create([Book(pk=key) for key in range(1, ROWS + 1)])


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: (book.pk, book.title, book.deleted is not None), post_save, sender=Book)
    make()
    Book.objects.all().delete()
    off = heard()
    make()
    with bulk_signals():
        Book.objects.all().delete()
    yield Claim("delete() sends what it sends by itself, not twice", heard(), off)
    yield Claim("that is, post_save for each row", [seen[2] for seen in off], [True] * ROWS)
    make()
    Book.objects.filter(pk__lt=3).delete()
    heard()
    with bulk_signals():
        Book.objects.update(title="new")
    visible = [(key, "new", False) for key in range(3, ROWS + 1)]
    yield Claim("on: update() sends post_save, and leaves deleted rows alone", heard(), visible)
