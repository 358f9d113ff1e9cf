"""Fields that only PostgreSQL has; importing them needs psycopg."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from django.contrib.postgres.fields import (
    ArrayField,
    BigIntegerRangeField,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    HStoreField,
    IntegerRangeField,
)
from django.contrib.postgres.operations import HStoreExtension
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.db import connections, models
from django.db.backends.postgresql.psycopg_any import (
    DateRange,
    DateTimeTZRange,
    NumericRange,
)
from django.db.migrations.state import ProjectState
from django.db.models import Value
from django.db.models.signals import pre_migrate
from django.dispatch import receiver

from tests.parity.common import Common

UTC = datetime.timezone.utc
DAYS = datetime.date(2020, 1, 1), datetime.date(2021, 2, 3)
MOMENTS = tuple(datetime.datetime.combine(day, datetime.time(1, 2, 3, 4), UTC) for day in DAYS)


class Rich(Common):
    """Arrays and ranges, each without and with NULL."""

    numbers: Any = ArrayField(models.IntegerField(null=True), default=list)
    numbers_null: Any = ArrayField(models.IntegerField(null=True), null=True)
    grid: Any = ArrayField(ArrayField(models.CharField(max_length=20)), default=list)
    grid_null: Any = ArrayField(ArrayField(models.CharField(max_length=20)), null=True)
    prices: Any = ArrayField(models.DecimalField(max_digits=8, decimal_places=2), default=list)
    span = IntegerRangeField(default=NumericRange)
    span_null = IntegerRangeField(null=True)
    big_span = BigIntegerRangeField(default=NumericRange)
    decimal_span = DecimalRangeField(default=NumericRange)
    decimal_span_null = DecimalRangeField(null=True)
    days = DateRangeField(default=DateRange)
    days_null = DateRangeField(null=True)
    moments = DateTimeRangeField(default=DateTimeTZRange)
    moments_null = DateTimeRangeField(null=True)


class Indexed(Common):
    """Fields that need an extension, and fields for search."""

    tags: Any = HStoreField(default=dict)
    tags_null: Any = HStoreField(null=True)
    found: Any = SearchVectorField(default="")
    found_null: Any = SearchVectorField(null=True)


@receiver(pre_migrate)
def make_extension(using: str, **arguments: Any) -> None:
    """Create the type of HStoreField before its columns are created, and register it with psycopg."""
    with connections[using].schema_editor() as editor:
        HStoreExtension().database_forwards("parity", editor, ProjectState(), ProjectState())


_NUMBERS = [NumericRange(1, 5), NumericRange(None, 7), NumericRange(empty=True)]
POOLS: dict[type[models.Field[Any, Any]], list[Any]] = {
    IntegerRangeField: _NUMBERS,
    BigIntegerRangeField: [*_NUMBERS, NumericRange(2**40, None)],
    DecimalRangeField: [*_NUMBERS[2:], NumericRange(Decimal("1.5"), Decimal("2.25"), "[]")],
    DateRangeField: [DateRange(*DAYS), DateRange(None, DAYS[1]), DateRange(empty=True)],
    DateTimeRangeField: [DateTimeTZRange(*MOMENTS), DateTimeTZRange(MOMENTS[0], None, "()")],
    HStoreField: [{}, {"a": "1"}, {"b": None, "é %s": "it's"}],
    SearchVectorField: ["", "'bob'", "'cat':1A,2 'dog':3"],
}
NAMED_POOLS: dict[str, list[Any]] = {
    "numbers": [[], [1], [3, None, -2]],
    "numbers_null": [[], [2, 2]],
    "grid": [[], [["a", "b"], ["", "Zoë's %s"]]],
    "grid_null": [[["x"]], []],
    "prices": [[], [Decimal("1.50"), Decimal("0.00")]],
}
# Other values that a caller may give: other types, other bounds, other scales.
LOOSE: dict[type[models.Field[Any, Any]], list[Any]] = {
    ArrayField: [(), []],
    IntegerRangeField: [(1, 5), NumericRange(1, 5, "(]")],
    DecimalRangeField: [(1, 2), NumericRange(Decimal("1.5"), None, "(]")],
    DateRangeField: [DAYS, DateRange(*DAYS, "[]")],
    HStoreField: [{"a": 1}, {2: "b"}],
    SearchVectorField: ["dog cat cat"],
}
BAD: dict[type[models.Field[Any, Any]], list[Any]] = {
    ArrayField: ["abc", 5],
    IntegerRangeField: [NumericRange(5, 1), "abc"],
    DateRangeField: [5],
    HStoreField: ["abc", [1]],
    SearchVectorField: ["'unclosed"],
}
EXPRESSIONS: dict[type[models.Field[Any, Any]], list[Any]] = {
    SearchVectorField: [
        SearchVector("note", config="simple"),
        SearchVector(Value("a Bob"), weight="B", config="english"),
        SearchVector("note", config="simple") + SearchVector("slug", config="simple", weight="A"),
    ],
}
