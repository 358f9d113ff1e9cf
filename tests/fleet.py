"""Rows for the tests, made without a signal of ours."""

from __future__ import annotations

import datetime
from typing import Any, TypeVar

from django.db.models import Model

from signal_patch import no_bulk_signals
from tests.models import Ship

LAUNCH = datetime.datetime(2021, 3, 4, 5, 6, 7, 89, tzinfo=datetime.timezone.utc)

Row = TypeVar("Row", bound=Model)


def rows(model: type[Row], *values: dict[str, Any], using: str = "default") -> list[Row]:
    """Return new rows, in the order of their primary keys."""
    with no_bulk_signals():
        return model._default_manager.using(using).bulk_create([model(**row) for row in values])


def ships(*speeds: int, **values: Any) -> list[Ship]:
    """Return a ship for each of the speeds, named a, b, c…"""
    return rows(Ship, *({"name": chr(97 + i), "speed": s, **values} for i, s in enumerate(speeds)))


def column(model: type[Model], name: str, using: str = "default") -> list[Any]:
    """Return what the rows hold in a column, in the order of their primary keys."""
    return list(model._default_manager.using(using).order_by("pk").values_list(name, flat=True))


def is_write_lock(sql: str) -> bool:
    """Return whether a statement is the one by which a transaction takes SQLite's write lock."""
    return sql.endswith("WHERE 0")
