"""Columns computed in save(), and receivers for the rows that depend on others."""

from __future__ import annotations

from collections.abc import Iterator

from computedfields.models import ComputedFieldsModel, computed
from django.db import models

from signal_patch import bulk_signals, no_bulk_signals
from tests.packages.comparing import Claim


class Author(models.Model):
    name = models.CharField(max_length=10, default="old")


class Book(ComputedFieldsModel):
    author = models.ForeignKey(Author, models.CASCADE)
    title = models.CharField(max_length=10, default="old")

    @computed(models.CharField(max_length=30), depends=[("author", ["name"]), ("self", ["title"])])
    def line(self) -> str:
        return f"{self.author.name}: {self.title}"


def run() -> Iterator[Claim]:
    def line() -> str:
        return Book.objects.get().line

    Book.objects.create(author=Author.objects.create())
    with no_bulk_signals():
        Author.objects.update(name="off")
    yield Claim("off: a column that depends on another row is stale after its update()", line(), "old: old")
    with bulk_signals():
        Author.objects.update(name="on")
    yield Claim("on: it is computed anew", line(), "on: old")
    with bulk_signals():
        Book.objects.update(title="new")
    yield Claim("on: one that depends on its own row is stale, as save() computes it", line(), "on: old")
