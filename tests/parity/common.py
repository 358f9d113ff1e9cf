"""What all models of the examples have."""

from __future__ import annotations

from django.db import models


class Common(models.Model):
    """What receivers and querysets may count on, whatever the model."""

    rank = models.IntegerField(default=0)
    note = models.CharField(max_length=60, default="")
    # Written by receivers behind the instance's back, and read by no value or filter.
    memo = models.CharField(max_length=60, default="")
    log = models.JSONField(default=list)
    slug = models.CharField(max_length=60, null=True, unique=True)
    doubled = models.GeneratedField(
        expression=models.F("rank") * 2, output_field=models.IntegerField(), db_persist=True
    )

    class Meta:
        abstract = True
