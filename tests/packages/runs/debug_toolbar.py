"""What a request did, statements included."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from django.http import HttpResponse
from django.test import RequestFactory

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


def run() -> Iterator[Claim]:
    from debug_toolbar.panels.sql.panel import SQLPanel
    from debug_toolbar.toolbar import DebugToolbar

    heard = Heard(lambda book: book.title, post_save, sender=Book)
    Book.objects.bulk_create([Book() for _ in range(ROWS)])

    def view(request: object) -> HttpResponse:
        with bulk_signals():
            Book.objects.update(title="new")
        return HttpResponse()

    request = RequestFactory().get("/")
    toolbar = DebugToolbar(request, view)
    panel = SQLPanel(toolbar, view)
    panel.enable_instrumentation()
    panel.process_request(request)
    panel.disable_instrumentation()
    statements = [query["sql"] for query in panel._queries]
    yield Claim("its panel shows the statements", any("UPDATE" in sql for sql in statements), True)
    yield Claim("receivers are called", heard(), ["new"] * ROWS)
