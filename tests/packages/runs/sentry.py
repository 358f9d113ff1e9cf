"""Spans of requests and tasks: of each call of a receiver, if it is not told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sentry_sdk
from django.db import models
from django.db.models.signals import post_save
from sentry_sdk.integrations.django import DjangoIntegration

from signal_patch import bulk_signals, explain
from tests.packages.comparing import ROWS, Claim, Heard


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


def spans(**options: Any) -> int:
    """Return of how many calls of receivers an update makes spans."""
    sent: list[Any] = []
    sentry_sdk.init(
        dsn="http://key@localhost:1/1",
        traces_sample_rate=1.0,
        integrations=[DjangoIntegration(**options)],
        before_send_transaction=lambda event, hint: sent.append(event),  # which sends nothing
    )
    with sentry_sdk.start_transaction(name="update"), bulk_signals():
        Book.objects.update(title="new")
    return sum(span["op"] == "event.django" for event in sent for span in event["spans"])


def run() -> Iterator[Claim]:
    Book.objects.bulk_create([Book() for _ in range(ROWS)])
    heard = Heard(lambda book: book.title, post_save, sender=Book)
    yield Claim("with signals_spans=True, the default, a span for each row and receiver", spans(), ROWS)
    with bulk_signals():
        warnings = explain(Book.objects.all(), title="new").warnings
    yield Claim("of which explain() warns", ["signals_spans=False" in text for text in warnings], [True])
    yield Claim("with signals_spans=False none", spans(signals_spans=False), 0)
    yield Claim("receivers are called all the same", heard(), ["new"] * 2 * ROWS)
