"""Hooks that save() runs."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from django_lifecycle import AFTER_UPDATE, LifecycleModelMixin, hook

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard

hooked: list[str] = []


class Book(LifecycleModelMixin, models.Model):
    title = models.CharField(max_length=10, default="old")

    @hook(AFTER_UPDATE)
    def note(self) -> None:
        hooked.append(self.title)


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: book.title, post_save, sender=Book)
    book = Book.objects.create()
    heard()
    with bulk_signals():
        Book.objects.update(title="bulk")
    yield Claim("on: update() calls receivers", heard(), ["bulk"])
    yield Claim("on: it runs no hooks, which save() runs", [*hooked], [])
    book.title = "saved"
    book.save()
    yield Claim("save() does", hooked, ["saved"])
