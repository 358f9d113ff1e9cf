from __future__ import annotations

import uuid

from django.db import models


class Item(models.Model):
    """A row that counts how often it has been changed."""

    n = models.IntegerField(default=0)
    active = models.BooleanField(default=True)
    colour = models.CharField(max_length=20, default="red")
    box = models.ForeignKey("Box", models.PROTECT, null=True)


class Audit(models.Model):
    """What a receiver writes for each change."""

    item = models.BigIntegerField()
    n = models.IntegerField()


class Box(models.Model):
    size = models.IntegerField(default=0)


class Parcel(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    n = models.IntegerField(default=0)


class Country(models.Model):
    code = models.CharField(max_length=40, primary_key=True)
    n = models.IntegerField(default=0)


class Reading(models.Model):
    """Its keys are neither numbers, text nor UUIDs."""

    taken = models.DateTimeField(primary_key=True)
    n = models.IntegerField(default=0)


class Pallet(Box):
    """A child with a table of its own."""

    n = models.IntegerField(default=0)


class Seat(models.Model):
    pk = models.CompositePrimaryKey("row", "number")
    row = models.IntegerField()
    number = models.IntegerField()
    n = models.IntegerField(default=0)
