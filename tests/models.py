from __future__ import annotations

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import django
from dirtyfields import DirtyFieldsMixin
from django.core.files.storage import InMemoryStorage
from django.db import models
from django.db.models.functions import Lower
from django_fsm import FSMField
from model_utils import FieldTracker
from model_utils.managers import InheritanceManager
from polymorphic.models import PolymorphicModel
from simple_history.models import HistoricalRecords

from signal_patch.mixins import SignalEnhancedQuerySetMixins
from tests import (
    cascade_models as cascade_models,
    key_models as key_models,
    queryset_models as queryset_models,
    receiver_models as receiver_models,
)
from tests.converting_fields import GemField, LabelField, LoweredField, RaisedField, SealedField
from tests.fields import (
    CodeField,
    DrawnField,
    NewNumber,
    NumberField,
    OnceField,
    OnceForeignKey,
    PointField,
    SecondField,
    ShoutedField,
    TidyField,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from typing_extensions import Self

if django.VERSION >= (6, 1):
    from tests import database_cascade_models as database_cascade_models


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
    genre = models.CharField(max_length=100, default="")


class Timestamped(models.Model):
    changed = models.IntegerField(default=0)

    class Meta:
        abstract = True


class Article(Timestamped):
    headline = models.CharField(max_length=100, default="")


class Letter(Timestamped):
    addressee = models.CharField(max_length=100, default="")


class FoghornQuerySet(SignalEnhancedQuerySetMixins, models.QuerySet[Any]):
    pass


class Foghorn(models.Model):
    """Its querysets have the mixin, so they send signals whether or not the switch is on."""

    name = models.CharField(max_length=100, default="")
    size = models.IntegerField(default=0)

    objects = FoghornQuerySet.as_manager()


class Echo(models.Model):
    """Django's related managers use its querysets, too."""

    of = models.ForeignKey(Foghorn, models.CASCADE, null=True, related_name="echoes")

    objects = FoghornQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"


class Query(models.Model):
    """Its fields have the names of function arguments."""

    queryset = models.CharField(max_length=100, default="")
    values = models.IntegerField(default=0)
    model = models.IntegerField(default=0)
    original = models.IntegerField(default=0)

    objects = FoghornQuerySet.as_manager()


class HarbourFoghorn(Foghorn):
    """A child with a table of its own, and plain querysets."""

    echo = models.CharField(max_length=100, default="")

    objects = models.Manager()  # type: ignore[misc,assignment]  # other than its parent's


class Shelf(models.Model):
    """Columns of many types, with two unique keys besides the primary key."""

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


class ShelfProxy(Shelf):
    class Meta:
        proxy = True


class Token(models.Model):
    """A key that the caller gives."""

    code = models.CharField(max_length=30, primary_key=True)
    uses = models.IntegerField(default=0)


class Nickname(models.Model):
    """Two names that only differ in case are equal."""

    name = models.CharField(max_length=30)
    folded = models.GeneratedField(
        expression=Lower("name"),
        output_field=models.CharField(max_length=30),
        db_persist=True,
        unique=True,
    )
    uses = models.IntegerField(default=0)


class Parcel(models.Model):
    """Its table is partitioned. Tests that need it create it, because Django cannot."""

    code = models.CharField(max_length=30, primary_key=True)
    weight = models.IntegerField(default=0)

    class Meta:
        managed = False


class Badge(models.Model):
    """Has two more unique columns: one that a custom field converts, and a relation to one row."""

    place: models.Field[Any, Any] = PointField(null=True, unique=True)
    member = models.OneToOneField("Member", models.CASCADE, null=True)
    size = models.IntegerField(default=0)


class Counter(models.Model):
    drawn = models.IntegerField(default=0)


class Lot(models.Model):
    """The database generates its key, and a counter its number."""

    key = models.BigIntegerField(primary_key=True, db_default=NewNumber())
    number = DrawnField()
    name = models.CharField(max_length=30, default="")


class Receipt(models.Model):
    number = NumberField(primary_key=True)


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


class Port(models.Model):
    code = models.CharField(max_length=5, unique=True)
    name = models.CharField(max_length=100, default="")

    class Meta:
        ordering = ("-name",)


class Berth(models.Model):
    port = models.ForeignKey(Port, models.CASCADE, null=True, related_name="berths")
    number = models.IntegerField(default=0)


class Ship(models.Model):
    class Status(models.TextChoices):
        AFLOAT = "afloat"
        DOCKED = "docked"
        SUNK = "sunk"

    name = models.CharField(max_length=100, default="")
    slug = models.CharField(max_length=100, null=True, unique=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.AFLOAT)
    berth = models.ForeignKey(Berth, models.SET_NULL, null=True, related_name="ships")
    flag = models.ForeignKey(
        Port, models.SET_NULL, null=True, to_field="code", db_column="flagged_in", related_name="fleet"
    )
    convoy = models.ForeignKey("self", models.SET_NULL, null=True, related_name="escorts")
    speed = models.IntegerField(default=0)
    tonnage = models.IntegerField(default=0, db_column="gross_tonnage")
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    notes = models.JSONField(default=list)
    launched = models.DateTimeField(null=True)
    changed = models.DateTimeField(auto_now=True)


class Sailor(models.Model):
    ship = models.ForeignKey(Ship, models.CASCADE, related_name="crew")
    name = models.CharField(max_length=100, default="")


class Beacon(models.Model):
    """Named by a natural key, which may change."""

    code = models.CharField(max_length=20, primary_key=True)
    lit = models.BooleanField(default=False)


class Buoy(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    colour = models.CharField(max_length=20, default="red")


class Mooring(models.Model):
    """A ship's place at a quay on one day. Its key has two columns."""

    pk = models.CompositePrimaryKey("quay", "day")
    quay = models.IntegerField()
    day = models.IntegerField()
    holder = models.CharField(max_length=100, default="")


class Cargo(models.Model):
    weight = models.IntegerField(default=1)
    amount = models.IntegerField(default=1)
    urgency = models.IntegerField(db_default=5)
    total = models.GeneratedField(
        expression=models.F("weight") * models.F("amount"),
        output_field=models.IntegerField(),
        db_persist=True,
    )


class Sluice(models.Model):
    """Its generated columns use a condition."""

    level = models.IntegerField(default=1)
    is_high = models.GeneratedField(
        expression=models.Q(level__gt=5),  # type: ignore[arg-type]  # django-stubs knows expressions only
        output_field=models.BooleanField(),
        db_persist=True,
    )
    mark = models.GeneratedField(
        expression=models.Case(
            models.When(level__gt=5, then=models.Value("high")), default=models.Value("low")
        ),
        output_field=models.CharField(max_length=10),
        db_persist=True,
    )


class Crate(models.Model):
    """Its generated column is computed whenever it is read."""

    weight = models.IntegerField(default=1)
    doubled = models.GeneratedField(
        expression=models.F("weight") * 2, output_field=models.IntegerField(), db_persist=False
    )

    class Meta:
        required_db_features = ("supports_virtual_generated_columns",)


class Gauge(models.Model):
    """Its column takes numbers of any scale."""

    level = models.DecimalField()

    class Meta:
        required_db_features = ("supports_no_precision_decimalfield",)


class Gradient(models.Model):
    """Its table begins with a column of floats."""

    slope = models.FloatField(primary_key=True)
    steps = models.IntegerField(default=0)


class Chart(models.Model):
    sheet = models.FileField(storage=InMemoryStorage(), upload_to="charts", null=True)
    title = models.CharField(max_length=100, default="")


class Portrait(models.Model):
    """An image whose size is in other columns."""

    width = models.IntegerField(null=True)
    height = models.IntegerField(null=True)
    picture = models.ImageField(
        storage=InMemoryStorage(), null=True, width_field="width", height_field="height"
    )


class Wreck(models.Model):
    """Columns that other libraries' fields convert."""

    place = PointField(null=True)
    name = ShoutedField(max_length=100, default="")


class Sighting(models.Model):
    """Columns of types that a project chose itself."""

    country = CodeField(max_length=5, null=True)
    seen = SecondField(null=True)
    name = models.CharField(max_length=100, default="")


class Signpost(models.Model):
    """Saving its text changes the text."""

    text = TidyField(max_length=100, default="")
    height = models.IntegerField(default=0)


class Strongbox(models.Model):
    """Its content is sealed anew with each save."""

    label = models.CharField(max_length=100, default="")
    content: models.Field[Any, Any] = SealedField(null=True)
    owner = LabelField(null=True)
    gem: models.Field[Any, Any] = GemField(null=True)


class Survey(models.Model):
    """Columns that some databases or drivers treat in their own way."""

    title = models.CharField(max_length=100, default="")
    held = models.DateField(null=True)
    filed = models.DateTimeField(null=True)
    passed = models.BooleanField(default=False)
    findings = models.JSONField(null=True)


class Plaque(models.Model):
    """Text that is converted where it is read, or where it is written."""

    lowered = LoweredField(max_length=100, default="")
    raised = RaisedField(max_length=100, default="")


class Logbook(models.Model):
    """Remembers what it was loaded with, as Django's documentation of `from_db()` shows."""

    entry = models.CharField(max_length=100, default="")
    page = models.IntegerField(default=0)

    loaded_with: dict[str, Any]

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[Any], values: Collection[Any], **keywords: Any
    ) -> Self:
        # Django 6.1 adds fetch_mode.
        instance = super().from_db(db, field_names, values, **keywords)
        instance.loaded_with = dict(zip(field_names, values, strict=False))
        return instance


class Tracked(models.Model):
    name = models.CharField(max_length=100, default="")
    size = models.IntegerField(default=0)

    tracker = FieldTracker()


class Person(models.Model):
    name = models.CharField(max_length=100, default="")
    age = models.IntegerField(default=0)

    objects = InheritanceManager()


class Officer(Person):
    rank = models.CharField(max_length=100, default="")


class Captain(Officer):
    ship = models.ForeignKey(Ship, models.SET_NULL, null=True)


class Dirty(DirtyFieldsMixin, models.Model):  # type: ignore[misc]  # the mixin has no types
    name = models.CharField(max_length=100, default="")
    size = models.IntegerField(default=0)


class Historic(models.Model):
    name = models.CharField(max_length=100, default="")
    size = models.IntegerField(default=0)

    history = HistoricalRecords()


class Machine(PolymorphicModel):
    name = models.CharField(max_length=100, default="")
    power = models.IntegerField(default=0)


class Crane(Machine):
    reach = models.IntegerField(default=0)


class Digger(Machine):
    bucket = models.CharField(max_length=100, default="")


class Order(models.Model):
    """A state that only transitions may change, and two more attributes that are set once."""

    class State(models.TextChoices):
        NEW = "new"
        PAID = "paid"

    state = FSMField(default="new", protected=True)
    label = OnceField(max_length=30, default="")
    port = OnceForeignKey(Port, models.SET_NULL, null=True)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal("0.00"))
    note = models.CharField(max_length=30, default="")


class Reading(models.Model):
    """Columns of many types, to which tests assign values of other types."""

    number = models.IntegerField(default=1)
    text = models.CharField(max_length=40, default="word")
    day = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    token = models.UUIDField(null=True)
    data = models.JSONField(null=True)
    price = models.DecimalField(max_digits=6, decimal_places=2, null=True)
    before = models.ForeignKey("self", models.SET_NULL, null=True)
