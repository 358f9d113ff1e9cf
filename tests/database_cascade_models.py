"""Models whose rows the database itself removes and changes: from Django 6.1 on."""

from __future__ import annotations

from django.db import models
from django.db.models import DB_CASCADE, DB_SET_DEFAULT, DB_SET_NULL

from tests.cascade_models import LampQuerySet

# The key of the depot to which rows fall back. Tests that need it create it.
SPARE_DEPOT = 9004


class Depot(models.Model):
    name = models.CharField(max_length=50, default="")


class Rack(models.Model):
    depot = models.ForeignKey(Depot, DB_CASCADE, null=True)
    name = models.CharField(max_length=50, default="")


class Box(models.Model):
    rack = models.ForeignKey(Rack, DB_CASCADE)
    name = models.CharField(max_length=50, default="")


class Rat(models.Model):
    """Is removed with its depot, and has no receivers."""

    depot = models.ForeignKey(Depot, DB_CASCADE)


class Label(models.Model):
    """Loses its reference to a depot or a rack, and is removed with a box."""

    text = models.CharField(max_length=50, default="")
    depot = models.ForeignKey(Depot, DB_SET_NULL, null=True)
    rack = models.ForeignKey(Rack, DB_SET_NULL, null=True)
    box = models.ForeignKey(Box, DB_CASCADE, null=True)


class Lorry(models.Model):
    depot = models.ForeignKey(Depot, DB_SET_DEFAULT, db_default=SPARE_DEPOT)

    class Meta:
        required_db_features = ("supports_on_delete_db_default",)


class Siren(models.Model):
    """Its queryset has the mixin."""

    depot = models.ForeignKey(Depot, DB_CASCADE, null=True)
    rack = models.ForeignKey(Rack, DB_SET_NULL, null=True)

    objects = LampQuerySet.as_manager()


class Folder(models.Model):
    """A tree."""

    parent = models.ForeignKey("self", DB_CASCADE, null=True, related_name="children")


class Yard(models.Model):
    """Referred to by Python's rules as well as by the database's."""


class Ticket(models.Model):
    """Python changes the row, the database removes it."""

    yard = models.ForeignKey(Yard, DB_CASCADE, null=True, related_name="+")
    former = models.ForeignKey(Yard, models.SET_NULL, null=True, related_name="+")


class Shed(models.Model):
    """Python deletes its row with the yard's, in one statement if nobody listens."""

    yard = models.ForeignKey(Yard, models.CASCADE)


class Drawer(models.Model):
    """A tree in a yard."""

    yard = models.ForeignKey(Yard, DB_CASCADE, null=True)
    parent = models.ForeignKey("self", DB_CASCADE, null=True)


class Tool(models.Model):
    shed = models.ForeignKey(Shed, DB_CASCADE)


class Fence(models.Model):
    """Like a shed, but nothing depends on it."""

    yard = models.ForeignKey(Yard, models.CASCADE)


class Guard(models.Model):
    yard = models.ForeignKey(Yard, models.RESTRICT)
