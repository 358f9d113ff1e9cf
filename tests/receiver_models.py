"""What receivers write beside the rows that are changed."""

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
    """Its code is written in capitals, by the database."""

    code = CapitalField(max_length=30, default="")


class Empty(models.Model):
    """Nothing but a key."""
