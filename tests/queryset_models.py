"""Querysets that return themselves as clones, models that load other classes, and relations to load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.base import ModelBase

if TYPE_CHECKING:
    from collections.abc import Collection

    from typing_extensions import Self


class InPlaceQuerySet(models.QuerySet[Any]):
    """From `inplace()` on, cloning it returns the queryset itself, as with cacheops."""

    in_place = False

    def inplace(self) -> Self:
        self.in_place = True
        return self

    def _clone(self) -> Any:
        return self if self.in_place else super()._clone()  # type: ignore[misc]  # Django's own


class SharingQuerySet(models.QuerySet[Any]):
    """Its clones have the same query, as those of `copy.copy()`."""

    def _chain(self) -> Any:
        clone = super()._chain()  # type: ignore[misc]  # Django's own
        clone.query = self.query
        return clone


class InPlaceManager(models.Manager.from_queryset(InPlaceQuerySet)):  # type: ignore[misc]  # made at run time
    def get_queryset(self) -> Any:
        return super().get_queryset().inplace()


class Hub(models.Model):
    name = models.CharField(max_length=20, default="")
    region = models.ForeignKey("self", models.SET_NULL, null=True)


class Packet(models.Model):
    hub = models.ForeignKey(Hub, models.SET_NULL, null=True, related_name="packets")
    label = models.CharField(max_length=20, default="")
    weight = models.IntegerField(default=0)

    objects = InPlaceQuerySet.as_manager()
    in_place = InPlaceManager()
    sharing = SharingQuerySet.as_manager()

    class Meta:
        base_manager_name = "in_place"


class Express(Packet):
    """A child with a table of its own."""

    priority = models.IntegerField(default=0)
    courier = models.ForeignKey(Hub, models.CASCADE, null=True, related_name="express")


class Voucher(models.Model):
    packet = models.OneToOneField(Packet, models.CASCADE, related_name="voucher")
    text = models.CharField(max_length=20, default="")


class Stamp(models.Model):
    packet = models.ForeignKey(Packet, models.CASCADE, related_name="stamps")
    place = models.CharField(max_length=20, default="")


class Craft(models.Model):
    """Its rows become instances of the class that `kind` names, by its `from_db()`."""

    kind = models.CharField(max_length=10)
    note = models.CharField(max_length=20, default="")
    hub = models.ForeignKey(Hub, models.SET_NULL, null=True)

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **keywords: Any
    ) -> Any:
        # Django 6.1 adds fetch_mode.
        craft = super().from_db(db, field_names, values, **keywords)
        craft.__class__ = {"dinghy": Dinghy, "coach": Coach}.get(craft.kind, Craft)
        return craft


class Dinghy(Craft):
    class Meta:
        proxy = True


class Coach(Craft):
    class Meta:
        proxy = True


class Animal(models.Model):
    kind = models.CharField(max_length=10)
    note = models.CharField(max_length=20, default="")

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        if self.kind == "cat":
            self.__class__ = Cat


class Cat(Animal):
    class Meta:
        proxy = True


class TypedBase(ModelBase):
    def __call__(self, *args: Any, **keywords: Any) -> Any:
        gadget = super().__call__(*args, **keywords)
        if gadget.kind == "rotor":
            gadget.__class__ = Rotor
        return gadget


class Gadget(models.Model, metaclass=TypedBase):
    kind = models.CharField(max_length=10)
    note = models.CharField(max_length=20, default="")

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        gadget = super().__new__(cls)
        if args and args[1] == "drone":
            gadget.__class__ = Drone
        return gadget


class Drone(Gadget):
    class Meta:
        proxy = True


class Rotor(Gadget):
    class Meta:
        proxy = True


class Poster(models.Model):
    """Django alone makes its instances, unless there are receivers of `post_init`."""

    note = models.CharField(max_length=20, default="")
    image = models.ImageField(default="")


class PosterProxy(Poster):
    class Meta:
        proxy = True


class Register(models.Model):
    """Its rows become instances of another model of the same table."""

    note = models.CharField(max_length=20, default="")
    size = models.IntegerField(default=0)
    changed = models.DateTimeField(null=True)

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **keywords: Any
    ) -> Any:
        return Journal.from_db(db, field_names, values, **keywords)


class Journal(models.Model):
    note = models.CharField(max_length=20, default="")
    size = models.IntegerField(default=0)
    changed = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "tests_register"
