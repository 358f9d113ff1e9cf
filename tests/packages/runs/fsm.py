"""Attributes that may be changed by transitions only."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from django_fsm import FSMField, transition

from signal_patch import bulk_signals
from tests.packages.comparing import ROWS, Claim, Heard

paid: list[object] = []


class Order(models.Model):
    state = FSMField(default="new", protected=True)

    @transition(state, source="new", target="paid")
    def pay(self) -> None:
        paid.append(self.pk)


def run() -> Iterator[Claim]:
    heard = Heard(lambda order: order.state, post_save, sender=Order)
    Order.objects.bulk_create([Order(pk=key) for key in range(1, ROWS + 1)])
    with bulk_signals():
        changed = Order.objects.update(state="paid")
    yield Claim("on: update() of a protected state, which a receiver sees", heard(), ["paid"] * ROWS)
    yield Claim("it runs no transition", (changed, [*paid]), (ROWS, []))
    with bulk_signals():
        Order.objects.bulk_create(
            [Order(pk=1, state="sent")], update_conflicts=True, unique_fields=["id"], update_fields=["state"]
        )
    yield Claim("on: an upsert", (Order.objects.get(pk=1).state, heard()), ("sent", ["sent"]))
