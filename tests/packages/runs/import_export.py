"""Imports, optionally in bulk, with a dry run that is rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import tablib
from django.db import models
from django.db.models.signals import post_save
from import_export import resources

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard


class Book(models.Model):
    title = models.CharField(max_length=10)


class BookResource(resources.ModelResource):
    class Meta:
        model = Book
        use_bulk = True


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: book.title, post_save, sender=Book)
    rows = tablib.Dataset(headers=["id", "title"])
    rows.extend([(1, "one"), (2, "two")])
    BookResource().import_data(rows, dry_run=True)
    yield Claim("off: an import with use_bulk sends nothing", heard(), [])
    with bulk_signals():
        BookResource().import_data(rows, dry_run=True)
        yield Claim("on: receivers run in a dry run, too, before it is rolled back", heard(), ["one", "two"])
        yield Claim("and the dry run leaves no row", Book.objects.count(), 0)
        BookResource().import_data(rows, raise_errors=True)
    yield Claim("on: an import sends its signals", (heard(), Book.objects.count()), (["one", "two"], 2))
