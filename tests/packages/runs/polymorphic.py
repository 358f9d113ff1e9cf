"""Querysets that give instances of subclasses, each with a table of its own."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import CharField, F, IntegerField
from django.db.models.signals import post_save
from polymorphic.models import PolymorphicModel

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard


class Machine(PolymorphicModel):
    price = IntegerField(default=0)


class Crane(Machine):
    height = IntegerField(default=0)


class Digger(Machine):
    shovel = CharField(max_length=10, default="")


def run() -> Iterator[Claim]:
    heard = Heard(lambda machine: (type(machine).__name__, machine.price), post_save)
    Crane(price=1).save()
    Digger(price=2).save()
    heard()
    Machine.objects.order_by("pk").update(price=F("price") + 1)
    yield Claim("off: update() sends nothing", heard(), [])
    with bulk_signals():
        Machine.objects.order_by("pk").update(price=F("price") + 1)
    yield Claim("on: the sender is the class of the instance", heard(), [("Crane", 3), ("Digger", 4)])
