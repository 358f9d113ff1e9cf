"""The base of all models of the examples."""

from __future__ import annotations

from django.db import models


class Keyed(models.Model):
    """A key that stands before the generated column of `Common`.

    Where INSERT has no RETURNING, Django finds the new key only if it is the first field to be returned.
    """

    id = models.AutoField(primary_key=True)

    class Meta:
        abstract = True


class BigKeyed(models.Model):
    """As `Keyed`, with a larger key."""

    id = models.BigAutoField(primary_key=True)

    class Meta:
        abstract = True


class Common(models.Model):
    """The fields that receivers and querysets can use with any model."""

    rank = models.IntegerField(default=0)
    note = models.CharField(max_length=60, default="")
    # Receivers write to this column of the row, not of the instance. No value or filter reads it.
    memo = models.CharField(max_length=60, default="")
    log = models.JSONField(default=list)
    slug = models.CharField(max_length=60, null=True, unique=True)
    doubled = models.GeneratedField(
        expression=models.F("rank") * 2, output_field=models.IntegerField(), db_persist=True
    )

    class Meta:
        abstract = True
