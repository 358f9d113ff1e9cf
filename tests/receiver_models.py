"""Models to which receivers write."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.functions import Upper

if TYPE_CHECKING:
    TextField = models.CharField[str, str]
    IntegerField = models.IntegerField[int, int]
    BigAutoField = models.BigAutoField[int, int]
else:
    TextField, IntegerField, BigAutoField = models.CharField, models.IntegerField, models.BigAutoField


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


class TicketField(IntegerField):
    """Takes another number each time it is asked."""

    tickets = itertools.count(1)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        setattr(model_instance, self.attname, next(self.tickets))
        return getattr(model_instance, self.attname)


class Numbered(models.Model):
    number = TicketField(default=0)


class NumberedPlate(models.Model):
    number = TicketField(default=0)
    code = CapitalField(max_length=30, default="")


class SnowKey(BigAutoField):
    """A key that is computed when the row is saved."""

    def get_pk_value_on_save(self, instance: Any) -> Any:
        return 1000 + instance.number


class Snow(models.Model):
    id = SnowKey(primary_key=True)
    number = models.IntegerField(default=0)


class ShoutField(TextField):
    """Prepares an expression for the database."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:  # as Field's
        return Upper(models.Value(value, output_field=models.CharField()))


class Shout(models.Model):
    text = ShoutField(max_length=30)


class Stamped(Entry):
    """It has an INSERT of its own."""

    class Meta:
        proxy = True

    def _do_insert(self, *arguments: Any, **keywords: Any) -> Any:
        self.text = "stamped"
        return super()._do_insert(*arguments, **keywords)  # type: ignore[misc]  # private


class AsideKey:
    def __get__(self, instance: Any, cls: Any = None) -> Any:
        return self if instance is None else instance.__dict__.get("_key")

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["_key"] = value


class AsideField(IntegerField):
    """Keeps its value in another place of the instance."""

    def contribute_to_class(self, cls: Any, name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        setattr(cls, self.attname, AsideKey())


class Aside(models.Model):
    tickets = itertools.count(1)

    id = AsideField(primary_key=True, default=lambda: next(Aside.tickets) + 900)
    number = models.IntegerField(default=0)


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
