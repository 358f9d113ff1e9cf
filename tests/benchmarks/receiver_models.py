"""Models with receivers like those of real projects. Each has receivers of its own."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from simple_history.models import HistoricalRecords


class Category(models.Model):
    name = models.CharField(max_length=40)

    objects: ClassVar[models.Manager[Any]] = models.Manager()


class Goods(models.Model):
    """Nine columns with the key, one of them JSON."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    status = models.CharField(max_length=20)
    stock = models.IntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    active = models.BooleanField()
    created = models.DateTimeField()
    data = models.JSONField()
    category = models.ForeignKey(Category, models.CASCADE, related_name="+")

    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        abstract = True


class Plain(Goods):
    """For the benchmarks' own receivers."""


class Historic(Goods):
    history = HistoricalRecords()


class Audited(Goods):
    """Registered with django-auditlog while it is measured."""


class Recorded(Goods):
    """For django-simple-history and django-auditlog at the same time."""

    history = HistoricalRecords()


class Entry(models.Model):
    """A record that the benchmarks' own receiver writes."""

    key = models.BigIntegerField()
    text = models.CharField(max_length=40)
    data = models.JSONField()

    objects: ClassVar[models.Manager[Any]] = models.Manager()
