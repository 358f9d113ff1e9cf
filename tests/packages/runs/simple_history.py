"""A row of its own for each change, written by a receiver of `post_save` and of `post_delete`."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models import F
from simple_history.models import HistoricalRecords
from simple_history.utils import bulk_create_with_history, bulk_update_with_history

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Work


class Book(models.Model):
    price = models.IntegerField(default=0)
    history = HistoricalRecords()


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def records() -> list[object]:
    history = Book.history.order_by("id", "history_id")
    return [*history.values_list("id", "price", "history_type", "history_change_reason")]


work = Work(Book, new, {"price": F("price") + 1}, raise_price, records, [Book.history.model])


def run() -> Iterator[Claim]:
    yield from work.compare(batch_inserts=[Book.history.model])

    def with_their_helpers() -> None:
        bulk_create_with_history(new(2 * ROWS)[ROWS:], Book)
        bulk_update_with_history(work.changed()[:ROWS], Book, ["price"])

    off = work.recorded(with_their_helpers)
    on = work.recorded(bulk_signals()(with_their_helpers))
    yield Claim("its own helpers record each row once, with the switch on, too", on, off)
