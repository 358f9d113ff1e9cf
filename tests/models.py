from __future__ import annotations

from typing import Any

import django
from django.db import models

from signal_patch.mixins import SignalEnhancedQuerySetMixins
from tests import cascade_models as cascade_models

if django.VERSION >= (6, 1):
    from tests import database_cascade_models as database_cascade_models


class Publisher(models.Model):
    name = models.CharField(max_length=100)


class Book(models.Model):
    publisher = models.ForeignKey(Publisher, models.CASCADE, null=True, related_name="books")
    title = models.CharField(max_length=100, default="")
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    status = models.CharField(max_length=20, default="draft")
    readers: models.ManyToManyField[Any, Any] = models.ManyToManyField("Reader")


class Reader(models.Model):
    name = models.CharField(max_length=100)


class BookProxy(Book):
    class Meta:
        proxy = True


class Novel(Book):
    """A child with a table of its own."""

    plot = models.CharField(max_length=100, default="")


class Timestamped(models.Model):
    changed = models.IntegerField(default=0)

    class Meta:
        abstract = True


class Article(Timestamped):
    headline = models.CharField(max_length=100, default="")


class Letter(Timestamped):
    addressee = models.CharField(max_length=100, default="")


class LoudQuerySet(SignalEnhancedQuerySetMixins, models.QuerySet[Any]):
    pass


class Loud(models.Model):
    """Its querysets send signals, whether or not the switch is on."""

    name = models.CharField(max_length=100, default="")
    size = models.IntegerField(default=0)

    objects = LoudQuerySet.as_manager()
