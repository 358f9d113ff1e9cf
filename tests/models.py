from __future__ import annotations

from typing import Any

from django.db import models

from signal_patch.mixins import SignalEnhancedQuerySetMixins


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


class Shelf(models.Model):
    """A row of many kinds of columns, with two keys of its own beside the primary one."""

    label = models.CharField(max_length=30, unique=True)
    room = models.IntegerField(null=True)
    place = models.IntegerField(null=True)
    width = models.IntegerField(default=0)
    colour = models.CharField(max_length=30, db_default="grey")
    area = models.GeneratedField(
        expression=models.F("width") * 2, output_field=models.IntegerField(), db_persist=True
    )
    made = models.DateTimeField(null=True)
    touched = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["room", "place"], name="one_shelf_in_a_place"),)


class Token(models.Model):
    """A key that the caller gives."""

    code = models.CharField(max_length=30, primary_key=True)
    uses = models.IntegerField(default=0)


class Chapter(models.Model):
    book = models.ForeignKey(Book, models.CASCADE)
    heading = models.CharField(max_length=100, default="")

    class Meta:
        order_with_respect_to = "book"


class Loan(models.Model):
    """An explicit `through` model."""

    member = models.ForeignKey("Member", models.CASCADE)
    shelf = models.ForeignKey(Shelf, models.CASCADE)


class Member(models.Model):
    name = models.CharField(max_length=100, default="")
    shelves: models.ManyToManyField[Any, Any] = models.ManyToManyField(Shelf, through=Loan)
