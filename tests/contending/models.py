"""What several processes write at the same time; installed in these processes only."""

from __future__ import annotations

from django.db import models


class Owner(models.Model):
    class Meta:
        app_label = "contending"


class Item(models.Model):
    name = models.CharField(max_length=20, unique=True)
    n = models.IntegerField(default=0)
    owner = models.ForeignKey(Owner, models.SET_NULL, null=True, related_name="items")

    class Meta:
        app_label = "contending"
