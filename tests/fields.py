"""Custom fields, as projects write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.apps import apps
from django.db import models
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.db.models.query_utils import DeferredAttribute

if TYPE_CHECKING:
    BigAutoField = models.BigAutoField[Any, Any]
    CharField = models.CharField[Any, Any]
    ForeignKey = models.ForeignKey[Any, Any]
    RelatedDescriptor = ForwardManyToOneDescriptor[Any]
    DateTimeField = models.DateTimeField[Any, Any]
    IntegerField = models.IntegerField[Any, Any]
else:
    BigAutoField = models.BigAutoField
    CharField = models.CharField
    ForeignKey = models.ForeignKey
    RelatedDescriptor = ForwardManyToOneDescriptor
    DateTimeField = models.DateTimeField
    IntegerField = models.IntegerField


class Point(NamedTuple):
    x: int
    y: int


class PointField(CharField):
    """Two whole numbers in a column of text."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **{"max_length": 40, **keywords})

    def to_python(self, value: Any) -> Point | None:
        if value is None or isinstance(value, Point):
            return value
        x, y = value.split(";") if isinstance(value, str) else value
        return Point(int(x), int(y))

    def get_prep_value(self, value: Any) -> str | None:
        point = self.to_python(value)
        return None if point is None else f"{point.x};{point.y}"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Point | None:
        return self.to_python(value)


class ShoutedField(CharField):
    """Text that is stored in capitals: saving it changes it, assigning it does not."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        saved = super().get_db_prep_save(value, connection)
        return saved.upper() if isinstance(saved, str) else saved


class CodeField(CharField):
    """Text of a fixed length."""

    def db_type(self, connection: Any) -> str:
        return f"char({self.max_length})"


class SecondField(DateTimeField):
    """A datetime in a column without fractions of a second."""

    def db_type(self, connection: Any) -> str:
        return "timestamp(0) with time zone" if connection.vendor == "postgresql" else "datetime"


class DrawnField(IntegerField):
    """A number that is taken from a counter's table when the row is created."""

    def pre_save(self, model_instance: models.Model, add: bool) -> int:
        counters = apps.get_model("tests", "Counter")._default_manager
        counters.update(drawn=models.F("drawn") + 1)
        return counters.get().drawn


class NewNumber(models.Func):
    """A number that the database generates for a row."""

    output_field = models.BigIntegerField()
    template = "floor(random() * 1000000000)"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="abs(random() / 2)", **context)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="floor(rand() * 1000000000)", **context)


class TidyField(CharField):
    """Text that a save strips of the space around it, in the row and not on the instance."""

    def pre_save(self, instance: models.Model, add: bool) -> Any:
        return super().pre_save(instance, add).strip()


class Number:
    """A key of a custom class with `__eq__`, and therefore without a hash."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and self.value == other.value


class NumberField(BigAutoField):
    def from_db_value(self, value: int, expression: Any, connection: Any) -> Number:
        return Number(value)

    def get_prep_value(self, value: Any) -> Any:
        return value.value if isinstance(value, Number) else value


class SetOnce(DeferredAttribute):
    """An attribute that refuses every assignment after the first value."""

    def __set__(self, instance: Any, value: Any) -> None:
        refuse_second(instance, self.field)
        instance.__dict__[self.field.attname] = value


class RelatedOnce(RelatedDescriptor):
    def __set__(self, instance: Any, value: Any) -> None:
        refuse_second(instance, self.field)
        super().__set__(instance, value)


def refuse_second(instance: Any, field: Any) -> None:
    if field.attname in instance.__dict__:
        raise AttributeError(f"{field.name} may be set once only")


class OnceField(CharField):
    descriptor_class = SetOnce


class OnceForeignKey(ForeignKey):
    descriptor_class = SetOnce  # type: ignore[assignment]  # not the one that drops the cached object
    forward_related_accessor_class = RelatedOnce
