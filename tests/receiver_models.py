"""Models to which receivers write."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.functions import Upper

if TYPE_CHECKING:
    TextField = models.CharField[str, str]
else:
    TextField = models.CharField


class CapitalField(TextField):
    """Saves an expression."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        return Upper(models.Value(getattr(model_instance, self.attname)))


class Entry(models.Model):
    """A row of a log: the database makes its key."""

    number = models.IntegerField()
    text = models.CharField(max_length=30, default="")
    data = models.JSONField(default=list)
    seal = models.BinaryField(null=True)
    made = models.DateTimeField(auto_now_add=True)
    mark = models.IntegerField(null=True, unique=True)


class EntryProxy(Entry):
    class Meta:
        proxy = True


class Slip(models.Model):
    """Python makes its key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    number = models.IntegerField(default=0)
    before = models.ForeignKey("self", models.CASCADE, null=True)
    entry = models.ForeignKey(Entry, models.CASCADE, null=True)


class Stub(models.Model):
    """Refers to slips."""

    number = models.IntegerField(default=0)
    slip = models.ForeignKey(Slip, models.CASCADE)


class Plate(models.Model):
    """The database turns its code into capitals."""

    code = CapitalField(max_length=30, default="")


class Empty(models.Model):
    """Nothing but a key."""


class LiveManager(models.Manager[Any]):
    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().filter(deleted=False, tenant__in=[3, 5])


class Page(models.Model):
    """Its manager hides rows."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    title = models.CharField(max_length=30, default="")
    tenant = models.IntegerField(default=3)
    deleted = models.BooleanField(default=False)
    data = models.JSONField(default=dict)

    objects = LiveManager()
    everything = models.Manager()

    class Meta:
        base_manager_name = "everything"
        constraints = (models.CheckConstraint(condition=models.Q(tenant__gte=0), name="tenants_count_up"),)


class Cover(models.Model):
    """It shares the key of its page."""

    page = models.OneToOneField(Page, models.CASCADE, primary_key=True)
    colour = models.CharField(max_length=30, default="")
