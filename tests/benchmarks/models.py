from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from django.db import models

from .database import has_packages

if has_packages():
    from . import receiver_models as receiver_models

if TYPE_CHECKING:
    from typing_extensions import Self

    Field = models.Field[Any, Any]
else:
    Field = models.Field


class Place(NamedTuple):
    """A value object, as a project's custom field may have."""

    longitude: float
    latitude: float


class PlaceField(Field):
    """Two numbers in one column of text."""

    def get_internal_type(self) -> str:
        return "TextField"

    def get_prep_value(self, value: Any) -> str:
        return f"{value.longitude} {value.latitude}"

    def from_db_value(self, value: str, expression: Any, connection: Any) -> Place:
        return Place(*map(float, value.split()))


class Columns(models.Model):
    """Nine columns with the key, of the kinds that tables are made of."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    code = models.CharField(max_length=40)
    status = models.CharField(max_length=20)
    stock = models.IntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    rating = models.FloatField()
    active = models.BooleanField()
    created = models.DateTimeField()

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        abstract = True


class Parcel(Columns):
    """The rows that are updated."""


class Described(Columns):
    """Parcels with a column of JSON, the same in each."""

    details = models.JSONField()

    class Meta:
        abstract = True


class DescribedParcel(Described):
    pass


class PicturedParcel(Described):
    picture = models.ImageField()


class PlacedParcel(Described):
    place: Field = PlaceField()


class Pristine(Columns):
    """The rows as they are put back before each run."""


class Unrelated(models.Model):
    """A model to turn the switch on for, where the parcels are to stay without signals."""
