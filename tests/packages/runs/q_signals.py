"""Receivers whose work django-q2 does later."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from django.db import models
from django.db.models.signals import post_save
from django_q.models import OrmQ
from django_q_signals import async_receiver

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim


class Book(models.Model):
    title = models.CharField(max_length=10, default="old")


def forgotten(sender: Any, instance: Any, **arguments: Any) -> None: ...


def kept(sender: Any, instance: Any, **arguments: Any) -> None: ...


def run() -> Iterator[Claim]:
    async_receiver(post_save, sender=Book)(forgotten)
    async_receiver(post_save, sender=Book, weak=False)(kept)
    gc.collect()
    Book.objects.bulk_create([Book(pk=key) for key in range(1, ROWS + 1)])
    yield Claim("off: no task is queued", OrmQ.objects.count(), 0)
    with bulk_signals(Book):
        Book.objects.update(title="new")
    tasks = [queued.task for queued in OrmQ.objects.order_by("pk")]
    yield Claim(
        "on: a task for each row, if connected with weak=False, and else none",
        [(task["func"].rpartition(".")[2], task["args"][2]) for task in tasks],
        [("kept_task", key) for key in range(1, ROWS + 1)],
    )
