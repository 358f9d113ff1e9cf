"""A version of each row that is saved inside `create_revision()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import reversion
from django.db import models
from django.db.models import F
from reversion.models import Revision, Version

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Work


class Book(models.Model):
    price = models.IntegerField(default=0)


reversion.register(Book)


def new(count: int) -> list[Book]:
    return [Book(pk=key, price=key) for key in range(1, count + 1)]


def raise_price(book: Book) -> None:
    book.price += 1


def records() -> list[object]:
    return [*Version.objects.order_by("object_id").values_list("object_id", "serialized_data")]


@dataclass(frozen=True)
class InRevisions(Work):
    def recorded(self, operate: Callable[[], object]) -> list[object]:
        def within_a_revision() -> None:
            with reversion.create_revision():
                operate()

        return super().recorded(within_a_revision)


def run() -> Iterator[Claim]:
    work = InRevisions(Book, new, {"price": F("price") + 1}, raise_price, records, [Version, Revision])
    yield from work.compare("update()", "bulk_update()", "bulk_create()")
    bulk, loop = work.operations()["delete()"]
    nothing = [work.recorded(bulk), work.recorded(bulk_signals()(bulk)), work.recorded(loop)]
    yield Claim("of deletes nothing: off, on, and of the loop", nothing, [[], [], []])
