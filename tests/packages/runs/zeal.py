"""Errors for queries that run once for each row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models
from django.db.models.signals import post_save
from zeal import NPlusOneError, zeal_context

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim


class Author(models.Model):
    name = models.CharField(max_length=10)


class Book(models.Model):
    author = models.ForeignKey(Author, models.CASCADE)
    title = models.CharField(max_length=10, default="old")


def run() -> Iterator[Claim]:
    def read(instance: Book, **arguments: Any) -> None:
        seen.append(instance.author.name)

    def outcome(**options: Any) -> str:
        seen.clear()
        try:
            with zeal_context(), bulk_signals(**options):
                Book.objects.update(title="new")
        except NPlusOneError:
            return "an error"
        return f"{len(seen)} heard"

    seen: list[str] = []
    author = Author.objects.create(name="a")
    Book.objects.bulk_create([Book(author=author) for _ in range(ROWS)])
    post_save.connect(read, sender=Book)
    yield Claim("on: a receiver that reads for each row is an error", outcome(), "an error")
    yield Claim("with prefetch=[…] it is none", outcome(prefetch=["author"]), f"{ROWS} heard")
