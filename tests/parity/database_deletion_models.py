"""Models for deletions in which the database follows the relations: from Django 6.1 on."""

from __future__ import annotations

from django.db import models
from django.db.models import DB_CASCADE, DB_SET_DEFAULT, DB_SET_NULL

# The key of a trunk to which rows fall back, and which no example deletes.
SPARE = 101


class Trunk(models.Model):
    name = models.CharField(max_length=20, default="")

    objects = models.Manager()


class Branch(models.Model):
    trunk = models.ForeignKey(Trunk, DB_CASCADE, null=True, related_name="+")
    parent = models.ForeignKey("self", DB_CASCADE, null=True, related_name="+")
    note = models.CharField(max_length=20, default="")

    objects = models.Manager()


class Twig(models.Model):
    branch = models.ForeignKey(Branch, DB_CASCADE, null=True, related_name="+")
    former = models.ForeignKey(Branch, DB_SET_NULL, null=True, related_name="+")
    trunk = models.ForeignKey(Trunk, DB_SET_NULL, null=True, related_name="+")
    note = models.CharField(max_length=20, default="")

    objects = models.Manager()


class Sprout(models.Model):
    trunk = models.ForeignKey(Trunk, DB_SET_DEFAULT, db_default=SPARE, related_name="+")
    note = models.CharField(max_length=20, default="")

    objects = models.Manager()

    class Meta:
        required_db_features = ("supports_on_delete_db_default",)
