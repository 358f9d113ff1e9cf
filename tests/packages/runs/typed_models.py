"""Several classes in one table: the class of an instance is that of its row."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import F, IntegerField
from django.db.models.signals import post_save
from typedmodels.models import TypedModel

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard


class Animal(TypedModel):
    age = IntegerField(default=0)


class Cat(Animal):
    pass


class Dog(Animal):
    pass


def run() -> Iterator[Claim]:
    heard = Heard(lambda animal: (type(animal).__name__, animal.age), post_save)
    Cat(age=1).save()
    Dog(age=2).save()
    heard()
    Animal.objects.order_by("pk").update(age=F("age") + 1)
    yield Claim("off: update() sends nothing", heard(), [])
    with bulk_signals():
        Animal.objects.order_by("pk").update(age=F("age") + 1)
    yield Claim("on: the sender is the class of the row", heard(), [("Cat", 3), ("Dog", 4)])
