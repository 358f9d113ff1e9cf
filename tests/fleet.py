"""Rows for the tests, created without signals, and the batch sizes by which they are processed."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from django.db.models import Model, QuerySet

from signal_patch import no_bulk_signals
from tests.models import Berth, Port, Sailor, Ship

LAUNCH = datetime.datetime(2021, 3, 4, 5, 6, 7, 89, tzinfo=datetime.timezone.utc)

# For a few rows: each in its own batch, in several batches, and all in one.
of_every_size = pytest.mark.parametrize("batch_size", [1, 2, 2000])

Row = TypeVar("Row", bound=Model)


def rows(model: type[Row], *values: dict[str, Any], using: str = "default") -> list[Row]:
    """Return new rows, in the order of their primary keys."""
    with no_bulk_signals():
        created = model._default_manager.using(using).bulk_create([model(**row) for row in values])
    return inserted(created, using)


def inserted(instances: list[Row], using: str = "default") -> list[Row]:
    """Return instances that have just been inserted as they are elsewhere: MySQL does not give their keys."""
    keyless = [instance for instance in instances if instance.pk is None]
    if keyless:
        newest = type(keyless[0])._default_manager.using(using).order_by("-pk")
        keys = newest.values_list("pk", flat=True)[: len(keyless)]
        for instance, key in zip(keyless, sorted(keys), strict=True):
            instance.pk = key
            instance._state.adding, instance._state.db = False, using
    return instances


def ships(*speeds: int, **values: Any) -> list[Ship]:
    """Return a ship for each of the speeds, named a, b, c…"""
    return rows(Ship, *({"name": chr(97 + i), "speed": s, **values} for i, s in enumerate(speeds)))


def harbour() -> list[Ship]:
    """Return ships whose every order differs from that of their keys."""
    north, south = rows(Port, {"code": "N", "name": "north"}, {"code": "S", "name": "south"})
    first, second, third = rows(
        Berth, {"port": north, "number": 3}, {"port": south, "number": 1}, {"port": south, "number": 2}
    )
    fleet = rows(
        Ship,
        {"name": "cc", "speed": 2, "berth": first, "flag": north},
        {"name": "AAA", "speed": 3, "berth": third, "flag": south},
        {"name": "b", "speed": 1, "berth": second, "flag": south},
        {"name": "dddd", "speed": 1, "berth": second, "flag": north},
    )
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet[:3] for name in ("zoe", ship.name, "moe")))
    return fleet


def faster_ships(*speeds: int, **values: Any) -> list[Ship]:
    """Return ships as loaded from the database, each going ten times as fast as its row says."""
    ships(*speeds, **values)
    fleet = list(Ship.objects.order_by("pk"))
    for ship in fleet:
        ship.speed *= 10
    return fleet


def three_ships() -> list[Ship]:
    """Return ships with a value in every kind of column, whose speeds are 1, 2 and 3."""
    north, south = rows(Port, {"code": "N", "name": "north"}, {"code": "S", "name": "south"})
    first, second = rows(Berth, {"port": north, "number": 3}, {"port": south, "number": 4})
    common = {"launched": LAUNCH, "notes": ["old", {"deep": [1]}]}
    return rows(
        Ship,
        {"name": "Ann", "speed": 1, "tonnage": 30, "price": Decimal("1.11"), "berth": first, **common},
        {"name": "Bob", "speed": 2, "tonnage": 20, "price": Decimal("2.22"), "berth": second, **common},
        {"name": "Cid", "speed": 3, "tonnage": 10, "price": Decimal("3.35"), "flag": south, **common},
    )


def fastest(**conditions: Any) -> QuerySet[Any, Any]:
    """Return a query for the highest speed of the ships that meet the conditions."""
    return Ship.objects.filter(**conditions).order_by("-speed").values("speed")[:1]


def column(model: type[Model], name: str, using: str = "default") -> list[Any]:
    """Return what the rows hold in a column, in the order of their primary keys."""
    return list(model._default_manager.using(using).order_by("pk").values_list(name, flat=True))


def is_write_lock(sql: str) -> bool:
    """Return whether a statement is the one by which a transaction takes SQLite's write lock."""
    return sql.endswith("WHERE 0")
