"""The base of all models of the examples."""

from __future__ import annotations

from django.db import models


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
