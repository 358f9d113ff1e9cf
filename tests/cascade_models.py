"""Models that refer to others by every rule of deletion, and the relations whose managers write in bulk."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

# Ports that the rules below fall back on: to be created by the tests that need them.
SPARE, CONSTANT, COMPUTED = 9001, 9002, 9003


def computed_port() -> Port:
    return Port.objects.get(pk=COMPUTED)


class Port(models.Model):
    name = models.CharField(max_length=50, default="")
    notes = GenericRelation("tests.Note")


class Crane(models.Model):
    """Refers to ports by each of the rules that change rows."""

    name = models.CharField(max_length=50, default="")
    load = models.IntegerField(default=0)
    nulled = models.ForeignKey(Port, models.SET_NULL, null=True, related_name="+")
    defaulted = models.ForeignKey(Port, models.SET_DEFAULT, null=True, default=None, related_name="+")
    spared = models.ForeignKey(Port, models.SET_DEFAULT, null=True, default=SPARE, related_name="+")
    fixed = models.ForeignKey(Port, models.SET(CONSTANT), null=True, related_name="+")
    computed = models.ForeignKey(Port, models.SET(computed_port), null=True, related_name="+")
    removed = models.ForeignKey(Port, models.CASCADE, null=True, related_name="+")


class Customs(models.Model):
    port = models.ForeignKey(Port, models.PROTECT)


class Pilot(models.Model):
    port = models.ForeignKey(Port, models.RESTRICT)


class Note(models.Model):
    text = models.CharField(max_length=50, default="")
    content_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    object_id = models.PositiveBigIntegerField(null=True)
    target = GenericForeignKey()


class Dock(models.Model):
    port = models.ForeignKey(Port, models.CASCADE, null=True, related_name="docks")
    name = models.CharField(max_length=50, default="")
    crew: models.ManyToManyField[Any, Any] = models.ManyToManyField("Sailor", through="Shift")
    guests: models.ManyToManyField[Any, Any] = models.ManyToManyField("Sailor", related_name="visits")

    class Meta:
        order_with_respect_to = "port"


class Sailor(models.Model):
    name = models.CharField(max_length=50, default="")


class Shift(models.Model):
    """A `through` model of its own."""

    dock = models.ForeignKey(Dock, models.CASCADE)
    sailor = models.ForeignKey(Sailor, models.CASCADE)
    hours = models.IntegerField(default=8)
