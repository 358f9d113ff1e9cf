"""Models that together use every concrete field and every kind of table that Django has."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import django
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.functions import Upper

from tests.parity import (
    deletion_models as deletion_models,
    particular as particular,
    typed_models as typed_models,
)
from tests.parity.common import BigKeyed, Common, Keyed
from tests.parity.fields import Colour, ColourField, ProtectedField, WordsField

if django.VERSION >= (6, 1):
    from tests.parity import database_deletion_models as database_deletion_models

EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


class Wide(Common):
    """All of Django's concrete fields, each without and with NULL."""

    big = models.BigIntegerField(default=0)
    big_null = models.BigIntegerField(null=True)
    binary = models.BinaryField(default=b"")
    binary_null = models.BinaryField(null=True)
    boolean = models.BooleanField(default=False)
    boolean_null = models.BooleanField(null=True)
    char = models.CharField(max_length=60, default="", db_column="Odd Column")
    char_null = models.CharField(max_length=60, null=True)
    colour = ColourField(max_length=6, default=Colour(0, 0, 0))
    colour_null = ColourField(max_length=6, null=True)
    day = models.DateField(default=EPOCH.date())
    day_null = models.DateField(null=True)
    moment = models.DateTimeField(default=EPOCH)
    moment_null = models.DateTimeField(null=True)
    decimal = models.DecimalField(max_digits=12, decimal_places=2, default=Decimal("0.00"))
    decimal_null = models.DecimalField(max_digits=12, decimal_places=4, null=True)
    duration = models.DurationField(default=datetime.timedelta())
    duration_null = models.DurationField(null=True)
    email = models.EmailField(default="")
    email_null = models.EmailField(null=True)
    file = models.FileField(default="")
    file_null = models.FileField(null=True)
    filepath = models.FilePathField(path="/", default="")
    filepath_null = models.FilePathField(path="/", null=True)
    floating = models.FloatField(default=0.0)
    floating_null = models.FloatField(null=True)
    ip = models.GenericIPAddressField(default="::1")
    ip_null = models.GenericIPAddressField(null=True)
    integer = models.IntegerField(default=0)
    integer_null = models.IntegerField(null=True)
    json = models.JSONField(default=dict)
    json_null = models.JSONField(null=True)
    positive_big = models.PositiveBigIntegerField(default=0)
    positive_big_null = models.PositiveBigIntegerField(null=True)
    positive = models.PositiveIntegerField(default=0)
    positive_null = models.PositiveIntegerField(null=True)
    positive_small = models.PositiveSmallIntegerField(default=0)
    positive_small_null = models.PositiveSmallIntegerField(null=True)
    slugged = models.SlugField(default="")
    slugged_null = models.SlugField(null=True)
    small = models.SmallIntegerField(default=0)
    small_null = models.SmallIntegerField(null=True)
    text = models.TextField(default="")
    text_null = models.TextField(null=True)
    clock = models.TimeField(default=datetime.time())
    clock_null = models.TimeField(null=True)
    url = models.URLField(default="")
    url_null = models.URLField(null=True)
    token = models.UUIDField(default=uuid.UUID(int=0))
    token_null = models.UUIDField(null=True)
    stage = ProtectedField(max_length=60, default="")
    words = WordsField(default=list)
    words_null = WordsField(null=True)
    state = models.CharField(max_length=20, db_default="new")
    created = models.DateTimeField(auto_now_add=True)
    touched = models.DateTimeField(auto_now=True)
    shouted = models.GeneratedField(
        expression=Upper("note"), output_field=models.CharField(max_length=60), db_persist=True
    )


class Harbour(Common):
    """A natural key, and a second unique column for ``to_field``."""

    code = models.CharField(max_length=10, primary_key=True)
    number = models.IntegerField(unique=True)


class Flag(models.Model):
    id = models.SmallAutoField(primary_key=True)
    name = models.CharField(max_length=20)
    tags = GenericRelation("Entry")


class Entry(Keyed, Common):
    """Has a position among the entries of its flag, and may refer to any row."""

    flag = models.ForeignKey(Flag, models.CASCADE, null=True, related_name="entries")
    content_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    object_id = models.SmallIntegerField(null=True)
    target = GenericForeignKey()

    class Meta:
        order_with_respect_to = "flag"


class Ship(Common):
    """A UUID key, all kinds of foreign keys, and rows that refer to it, one to many and many to many."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    home = models.ForeignKey(Harbour, models.CASCADE, null=True, related_name="ships")
    registry = models.ForeignKey(
        Harbour, models.CASCADE, to_field="number", db_column="reg_no", related_name="registered"
    )
    flagship = models.ForeignKey("self", models.CASCADE, null=True, related_name="fleet")
    flags = models.ManyToManyField(Flag)
    price = models.DecimalField(max_digits=12, decimal_places=2, default=Decimal("0.00"))
    state = models.CharField(max_length=20, db_default="new")
    touched = models.DateTimeField(auto_now=True)


class Yacht(Ship):
    """A proxy; its default ordering is not a queryset's explicit one."""

    class Meta:
        proxy = True
        ordering = ("-rank",)


class Cargo(Keyed, Common):
    """Many to one ship."""

    ship = models.ForeignKey(Ship, models.CASCADE, related_name="cargo")


class Vessel(BigKeyed, Common):
    """The root of a tree of tables."""

    tonnage = models.FloatField(default=0.0)


class Ferry(Vessel):
    decks = models.SmallIntegerField(default=1)
    route = models.ForeignKey(Harbour, models.CASCADE, null=True, related_name="ferries")


class CarFerry(Ferry):
    """Two levels above it: an update of it may write three tables."""

    link = models.OneToOneField(Ferry, models.CASCADE, parent_link=True, primary_key=True)
    lanes = models.IntegerField(default=0)
    levels = models.GeneratedField(
        expression=models.F("lanes") + 1, output_field=models.IntegerField(), db_persist=True
    )


class Port(Common):
    """A natural key to which nothing refers, so it may change."""

    code = models.CharField(max_length=20, primary_key=True)


class Berth(Common):
    """A composite key."""

    pk = models.CompositePrimaryKey("dock", "number")
    dock = models.CharField(max_length=10)
    number = models.IntegerField()
    ship = models.ForeignKey(Ship, models.CASCADE, null=True, related_name="berths")
    length = models.DecimalField(max_digits=6, decimal_places=1, default=Decimal("0.0"))


def concrete_fields(model: type[models.Model]) -> list[models.Field[Any, Any]]:
    """Return the fields that a caller of ``update()`` may name, also those of parents, but not the key."""
    keys = {field for parent in (model, *model._meta.all_parents) for field in parent._meta.pk_fields}
    return [field for field in model._meta.concrete_fields if not field.generated and field not in keys]
