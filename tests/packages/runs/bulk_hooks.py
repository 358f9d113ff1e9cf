"""Hooks around bulk operations, for lists of instances."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from django_bulk_hooks.constants import AFTER_UPDATE
from django_bulk_hooks.decorators import hook
from django_bulk_hooks.handler import Hook
from django_bulk_hooks.models import HookModelMixin

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard

hooked: list[object] = []


class Book(HookModelMixin):
    title = models.CharField(max_length=10, default="old")


class BookHooks(Hook):
    @hook(AFTER_UPDATE, model=Book)
    def note(self, new_records: list[Book], old_records: list[Book]) -> None:
        hooked.extend(book.title for book in new_records)


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: book.title, post_save, sender=Book)
    Book.objects.bulk_create([Book() for _ in range(ROWS)])
    heard()
    with bulk_signals():
        Book.objects.update(title="new")
    yield Claim("on: update() calls receivers once for each row", heard(), ["new"] * ROWS)
    yield Claim("on: and its own hooks, too: two pairs", hooked, ["new"] * ROWS)
