"""An amount and its currency in two columns."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models import F
from django.db.models.signals import post_save
from djmoney.models.fields import MoneyField
from djmoney.money import Money

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard


class Book(models.Model):
    price = MoneyField(max_digits=8, decimal_places=2, default_currency="EUR")


def run() -> Iterator[Claim]:
    heard = Heard(lambda book: book.price, post_save, sender=Book)
    Book.objects.bulk_create([Book(pk=1, price=Money(1, "EUR")), Book(pk=2, price=Money(2, "USD"))])
    with bulk_signals():
        Book.objects.order_by("pk").update(price=F("price") + Money(1, "EUR"))
        seen = heard()
        rows = [book.price for book in Book.objects.order_by("pk")]
        yield Claim("on: after F('price') + Money(…) a receiver sees what the row holds", seen, rows)
        Book.objects.order_by("pk").update(price=Money(5, "GBP"))
        seen = heard()
    yield Claim("on: after Money(…), too", seen, [Money(5, "GBP")] * 2)
    yield Claim("and the rows hold it", [book.price for book in Book.objects.all()], seen)
