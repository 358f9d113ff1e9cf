"""Receivers that keep the search index and the reference index."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from wagtail.search import index
from wagtail.search.backends import get_search_backend
from wagtail.snippets.models import register_snippet

from signal_patch import bulk_signals
from tests.packages.comparing import Claim


@register_snippet
class Book(index.Indexed, models.Model):
    title = models.CharField(max_length=10, default="old")
    search_fields = [index.SearchField("title")]


def run() -> Iterator[Claim]:
    def found(word: str) -> list[str]:
        return [book.title for book in get_search_backend().search(word, Book)]

    Book.objects.create()
    Book.objects.update(title="off")
    yield Claim("off: the search does not find what an update() wrote", found("off"), [])
    with bulk_signals():
        Book.objects.update(title="on")
    yield Claim("on: it does", found("on"), ["on"])
