"""Rows for tests; mute_signals() takes all receivers away."""

from __future__ import annotations

from collections.abc import Iterator

import factory
from django.db import models
from django.db.models.signals import post_save
from factory.django import DjangoModelFactory, mute_signals

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


class BookFactory(DjangoModelFactory):
    title = factory.Sequence(lambda number: f"book {number}")

    class Meta:
        model = Book


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: book.title, post_save, sender=Book)
    with bulk_signals():
        BookFactory.create_batch(ROWS)
        yield Claim("create_batch() sends what it sends without", len(heard()), ROWS)
        with mute_signals(post_save):
            Book.objects.update(title="muted")
        yield Claim("in mute_signals() bulk operations send nothing, either", heard(), [])
        Book.objects.update(title="new")
    yield Claim("after it they do", heard(), ["new"] * ROWS)
