"""Models that refer to others by every rule of deletion, and the relations whose managers write in bulk."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from signal_patch.mixins import SignalEnhancedQuerySetMixins

# The keys of the harbours to which the rules below fall back. Tests that need them create them.
SPARE, CONSTANT, COMPUTED = 9001, 9002, 9003


def computed_harbour() -> Harbour:
    return Harbour.objects.get(pk=COMPUTED)


class Harbour(models.Model):
    name = models.CharField(max_length=50, default="")
    notes = GenericRelation("tests.Note")


class Tug(models.Model):
    """Refers to harbours by each of the rules that change rows."""

    name = models.CharField(max_length=50, default="")
    load = models.IntegerField(default=0)
    nulled = models.ForeignKey(Harbour, models.SET_NULL, null=True, related_name="+")
    defaulted = models.ForeignKey(Harbour, models.SET_DEFAULT, null=True, default=None, related_name="+")
    spared = models.ForeignKey(Harbour, models.SET_DEFAULT, null=True, default=SPARE, related_name="+")
    fixed = models.ForeignKey(Harbour, models.SET(CONSTANT), null=True, related_name="+")
    computed = models.ForeignKey(Harbour, models.SET(computed_harbour), null=True, related_name="+")
    removed = models.ForeignKey(Harbour, models.CASCADE, null=True, related_name="+")


class LampQuerySet(SignalEnhancedQuerySetMixins, models.QuerySet[Any]):
    pass


class Lamp(models.Model):
    """Its queryset has the mixin, but Django's cascades do not use its manager."""

    nulled = models.ForeignKey(Harbour, models.SET_NULL, null=True, related_name="+")
    defaulted = models.ForeignKey(Harbour, models.SET_DEFAULT, null=True, default=None, related_name="+")
    spared = models.ForeignKey(Harbour, models.SET_DEFAULT, null=True, default=SPARE, related_name="+")
    fixed = models.ForeignKey(Harbour, models.SET(CONSTANT), null=True, related_name="+")
    computed = models.ForeignKey(Harbour, models.SET(computed_harbour), null=True, related_name="+")
    removed = models.ForeignKey(Harbour, models.CASCADE, null=True, related_name="+")

    objects = LampQuerySet.as_manager()


class Customs(models.Model):
    harbour = models.ForeignKey(Harbour, models.PROTECT)


class Pilot(models.Model):
    harbour = models.ForeignKey(Harbour, models.RESTRICT)


class Note(models.Model):
    text = models.CharField(max_length=50, default="")
    content_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    object_id = models.PositiveBigIntegerField(null=True)
    target = GenericForeignKey()


class Dock(models.Model):
    harbour = models.ForeignKey(Harbour, models.CASCADE, null=True, related_name="docks")
    name = models.CharField(max_length=50, default="")
    crew: models.ManyToManyField[Any, Any] = models.ManyToManyField("Docker", through="Shift")
    guests: models.ManyToManyField[Any, Any] = models.ManyToManyField("Docker", related_name="visits")

    class Meta:
        order_with_respect_to = "harbour"


class Docker(models.Model):
    name = models.CharField(max_length=50, default="")


class Shift(models.Model):
    """An explicit `through` model."""

    dock = models.ForeignKey(Dock, models.CASCADE)
    docker = models.ForeignKey(Docker, models.CASCADE)
    hours = models.IntegerField(default=8)


class Quay(models.Model):
    pass


class ShownManager(models.Manager[Any]):
    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().filter(is_hidden=False)


class Skiff(models.Model):
    """Its base manager does not show all rows."""

    quay = models.ForeignKey(Quay, models.SET_DEFAULT, null=True, default=None)
    is_hidden = models.BooleanField(default=False)

    objects: models.Manager[Any] = models.Manager()
    shown = ShownManager()

    class Meta:
        base_manager_name = "shown"


class BareManager(models.manager.BaseManager[Any]):
    """A manager that is not made from a queryset class."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return models.QuerySet(self.model, using=self._db)


class Barge(models.Model):
    quay = models.ForeignKey(Quay, models.SET_DEFAULT, null=True, default=None)

    objects = BareManager()
