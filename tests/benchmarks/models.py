from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models

from .database import has_packages

if has_packages():
    from . import receiver_models as receiver_models

if TYPE_CHECKING:
    from typing_extensions import Self


class Columns(models.Model):
    """Nine columns with the key, of the kinds that tables are made of."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    code = models.CharField(max_length=40)
    status = models.CharField(max_length=20)
    stock = models.IntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    rating = models.FloatField()
    active = models.BooleanField()
    created = models.DateTimeField()

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        abstract = True


class Parcel(Columns):
    """The rows that are updated."""


class Pristine(Columns):
    """The rows as they are put back before each run."""


class Unrelated(models.Model):
    """A model to turn the switch on for, where the parcels are to stay without signals."""
