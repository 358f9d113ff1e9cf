"""Rows to begin with, chosen by small numbers, so that an example is short when printed and shrinks well."""

from __future__ import annotations

import datetime
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connection, models

from tests.parity import particular, typed_models
from tests.parity.fields import Colour, ColourField, WordsField
from tests.parity.models import (
    Berth,
    CarFerry,
    Cargo,
    Entry,
    Ferry,
    Flag,
    Harbour,
    Port,
    Ship,
    Vessel,
    Wide,
    Yacht,
    concrete_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

UTC = datetime.timezone.utc
HARBOURS = ("A", "B", "C")

# Values that a column returns unchanged, by the class of the field.
POOLS: dict[type[models.Field[Any, Any]], list[Any]] = {
    ColourField: [Colour(0, 0, 0), Colour(255, 0, 1), Colour(1, 2, 3)],
    WordsField: [[], ["a"], ["b", "c"]],
    models.BigIntegerField: [0, 1, -5, 2**40],
    models.BinaryField: [b"", b"\x00\xff", b"abc"],
    models.BooleanField: [False, True],
    models.DateTimeField: [
        datetime.datetime(2020, 1, 1, tzinfo=UTC),
        datetime.datetime(2021, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
        datetime.datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
    models.DateField: [datetime.date(2020, 1, 1), datetime.date(2021, 2, 3), datetime.date(1999, 12, 31)],
    models.DecimalField: [Decimal(0), Decimal(15), Decimal("-3.5"), Decimal("250.5")],
    models.DurationField: [
        datetime.timedelta(),
        datetime.timedelta(days=3, seconds=5, microseconds=7),
        datetime.timedelta(hours=-1),
    ],
    models.EmailField: ["", "a@example.com"],
    models.FileField: ["", "dir/a.txt", "b.txt"],
    models.FilePathField: ["", "/a", "/b/c"],
    models.FloatField: [0.0, 1.5, -2.25, 1e10],
    models.GenericIPAddressField: ["::1", "10.0.0.1", "2001:db8::1"],
    models.JSONField: [{}, [], {"b": [1, 2.5, None], "a": {"x": "ü"}}, "text", 3, True],
    models.PositiveBigIntegerField: [0, 1, 2**40],
    models.PositiveIntegerField: [0, 1, 70_000],
    models.PositiveSmallIntegerField: [0, 1, 300],
    models.SlugField: ["", "a-b", "c"],
    models.SmallIntegerField: [0, 1, -300],
    models.IntegerField: [0, 1, -5, 70_000],
    models.TextField: ["", "a", "Zoë's 100 %s %%", "line\nline"],
    models.TimeField: [datetime.time(), datetime.time(4, 5, 6, 789), datetime.time(23, 59)],
    models.URLField: ["", "https://example.com/?a=%20"],
    models.UUIDField: [UUID(int=0), UUID(int=1), UUID("12345678-1234-5678-1234-567812345678")],
    models.CharField: ["", "a", "Bob", "Zoë's 100 %s %%"],
    **particular.POOLS,
}

# Filters and receivers read these, so they keep to one form.
NAMED_POOLS: dict[str, list[Any]] = {
    "rank": [0, 1, 2, 3, 7],
    "log": [[], ["a"], [1, {"b": None}]],
    "tonnage": [0.0, 1.5, 300.25],
    "kind": typed_models.KINDS,
    **particular.NAMED_POOLS,
}


def _scaled(field: models.DecimalField[Any, Any]) -> list[Any]:
    return [value.quantize(Decimal(1).scaleb(-field.decimal_places)) for value in POOLS[models.DecimalField]]


def pool(field: models.Field[Any, Any]) -> list[Any]:
    """Return values for the field, of its own Python type, with None if it may be NULL."""
    if field.remote_field:
        values = _targets(field)
    elif isinstance(field, models.DecimalField):
        values = _scaled(field)
    else:
        values = NAMED_POOLS.get(field.name) or next(
            POOLS[kind] for kind in type(field).__mro__ if kind in POOLS
        )
    return [None, *values] if field.null else values


def saved_pool(field: models.Field[Any, Any]) -> list[Any]:
    """Return the values of the pool that a save writes unchanged; it writes '' for a file that is None."""
    return [value for value in pool(field) if value is not None or not isinstance(field, models.FileField)]


def _targets(field: Any) -> list[Any]:
    model = field.remote_field.model
    if model is Ship:
        return [ship_id(1), ship_id(2)]
    return [1, 2, 3] if field.target_field.name == "number" else list(HARBOURS)


def ship_id(number: int) -> UUID:
    return UUID(int=number)


def port_code(number: int) -> str:
    """Return a key that fills its column, one with a NUL character if the database allows it, or another."""
    code = f"P{number}"
    if number % 3 == 0:
        return code.ljust(20, "-")
    # If it were cut at the NUL, it would be another row's key.
    return f"P{number - 1}\0" if number % 3 == 2 and connection.vendor == "sqlite" else code


def _plain(model: type[models.Model], seed: int, skip: Iterable[str] = ()) -> dict[str, Any]:
    """Return values for a row's plain columns, chosen by the seed; 0 chooses the simplest."""
    chance = Random(seed)
    skip = {"slug", "memo", *skip}
    values = {}
    for field in concrete_fields(model):
        if field.name not in skip and not field.remote_field:
            choices = pool(field)
            values[field.name] = chance.choice(choices) if seed else choices[0]
    return values


def _slug(number: int, seed: int) -> str | None:
    return f"slug{number}" if seed % 2 else None


def _alone(model: type[models.Model]) -> Callable[[str, Sequence[int]], None]:
    def load(alias: str, seeds: Sequence[int]) -> None:
        model._base_manager.using(alias).bulk_create(
            model(id=number, slug=_slug(number, seed), **_plain(model, seed, ("created", "touched")))
            for number, seed in enumerate(seeds, 1)
        )

    return load


def _ports(alias: str, seeds: Sequence[int]) -> None:
    Port._base_manager.using(alias).bulk_create(
        Port(code=port_code(number), slug=_slug(number, seed), **_plain(Port, seed))
        for number, seed in enumerate(seeds, 1)
    )


def _harbours(alias: str, seeds: Sequence[int]) -> None:
    Harbour._base_manager.using(alias).bulk_create(
        Harbour(code=code, slug=_slug(number, seed), **{**_plain(Harbour, seed), "number": number})
        for number, (code, seed) in enumerate(zip(HARBOURS, (*seeds, 0, 1, 2), strict=False), 1)
    )


def _ship(number: int, seed: int) -> Ship:
    chance = Random(seed)
    return Ship(
        id=ship_id(number),
        slug=_slug(number, seed),
        home_id=chance.choice([None, "A", "B"]),
        registry_id=chance.choice([1, 2]),
        flagship_id=chance.choice([None, *map(ship_id, range(1, number + 1))]),
        **_plain(Ship, seed, ("touched",)),
    )


def _fleet(alias: str, seeds: Sequence[int]) -> None:
    _harbours(alias, seeds)
    Flag._base_manager.using(alias).bulk_create(Flag(id=n, name=name) for n, name in enumerate("xy", 1))
    # At least two, so that others can refer to them.
    ships = list(enumerate((*seeds, 1, 2) if len(seeds) < 2 else seeds, 1))
    Ship._base_manager.using(alias).bulk_create(_ship(number, seed) for number, seed in ships)
    through = Ship.flags.through
    through._base_manager.using(alias).bulk_create(
        through(ship_id=ship_id(number), flag_id=flag)
        for number, seed in ships
        for flag in (1, 2)
        if seed & flag
    )
    numbers = count(1)
    Cargo._base_manager.using(alias).bulk_create(
        Cargo(id=next(numbers), ship_id=ship_id(number), **_plain(Cargo, seed + item))
        for number, seed in ships
        for item in range(seed % 3)
    )
    Berth._base_manager.using(alias).bulk_create(
        Berth(
            dock="NS"[seed % 2],
            number=number,
            ship_id=ship_id(1) if seed % 3 else None,
            slug=_slug(number, seed),
            **_plain(Berth, seed),
        )
        for number, seed in enumerate(seeds, 1)
    )


def _entries(alias: str, seeds: Sequence[int]) -> None:
    Flag._base_manager.using(alias).bulk_create(Flag(id=n, name=name) for n, name in enumerate("xy", 1))
    Entry._base_manager.using(alias).bulk_create(
        Entry(
            id=number,
            slug=_slug(number, seed),
            flag_id=seed % 3 or None,
            **{**_plain(Entry, seed, ("object_id",)), "_order": number},
        )
        for number, seed in enumerate(seeds, 1)
    )


def _vessels(model: type[Vessel]) -> Callable[[str, Sequence[int]], None]:
    def load(alias: str, seeds: Sequence[int]) -> None:
        _harbours(alias, seeds)
        for number, seed in enumerate(seeds, 1):
            vessel = model(id=number, slug=_slug(number, seed), **_plain(model, seed))
            if isinstance(vessel, Ferry):
                vessel.route_id = HARBOURS[seed % 3]
            vessel.save(using=alias, force_insert=True)

    return load


ALONE: tuple[type[models.Model], ...] = (Wide, *typed_models.MODELS, *particular.MODELS)
LOADERS: dict[type[models.Model], Callable[[str, Sequence[int]], None]] = {
    **{model: _alone(model) for model in ALONE},
    Port: _ports,
    Entry: _entries,
    **dict.fromkeys((Harbour, Ship, Yacht, Cargo, Berth), _fleet),
    **{model: _vessels(model) for model in (Vessel, Ferry, CarFerry)},
}
TABLES: dict[Callable[[str, Sequence[int]], None], tuple[type[models.Model], ...]] = {
    **{LOADERS[model]: (typed_models.base_of(model),) for model in ALONE},
    LOADERS[Port]: (Port,),
    LOADERS[Entry]: (Flag, Entry),
    LOADERS[Ship]: (Harbour, Ship, Ship.flags.through, Cargo, Berth),
    LOADERS[Vessel]: (Harbour, Vessel),
    LOADERS[Ferry]: (Harbour, Vessel, Ferry),
    LOADERS[CarFerry]: (Harbour, Vessel, Ferry, CarFerry),
}


def load(model: type[models.Model], alias: str, seeds: Sequence[int]) -> None:
    """Insert the rows of a model, and what they need around them."""
    LOADERS[model](alias, seeds)


def absent(model: type[models.Model]) -> models.Model:
    """Return an instance that has a key and no row."""
    key: dict[str, Any] = {"id": 5000}
    if issubclass(model, Ship):
        key = {"id": ship_id(5000)}
    elif model is Harbour:
        key = {"code": "absent"}
    elif model is Port:
        # If it were cut to the length of its column, it would be an existing row's key.
        key = {"code": f"{port_code(3)}-"}
    elif model is Berth:
        key = {"dock": "X", "number": 5000}
    elif issubclass(model, Ferry):
        key = {"pk": 5000, "id": 5000}
    absent = model(**key)
    if isinstance(absent, (Ship, Wide)):
        absent.state = "new"
    return absent


def frozen(value: Any) -> tuple[str, object]:
    """Return a value and its Python type, in a form that later changes to the value do not affect.

    Two values are the same if a reader cannot distinguish them: a datetime is its point in time,
    a binary column is its bytes, a file is its name, a JSON object has no order.
    """
    if isinstance(value, models.fields.files.FieldFile):
        return "file", value.name
    if isinstance(value, (memoryview, bytes, bytearray)):
        return "bytes", bytes(value)
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return "moment", value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return "dict", tuple(sorted((key, frozen(item)) for key, item in value.items()))
    if isinstance(value, list):
        return "list", tuple(map(frozen, value))
    return type(value).__qualname__, repr(value)


def fields_of(instance: models.Model) -> dict[str, tuple[str, object]]:
    """Return every loaded concrete field of an instance, frozen, by its attribute."""
    deferred = instance.get_deferred_fields()
    return {
        field.attname: frozen(getattr(instance, field.attname))
        for field in instance._meta.concrete_fields
        if field.attname not in deferred
    }


def tables(model: type[models.Model], alias: str) -> dict[str, dict[str, dict[str, tuple[str, object]]]]:
    """Return all rows of all tables that a model's examples may reach."""
    return {
        table.__name__: {
            str(row.pk): fields_of(row) for row in table._base_manager.using(alias).order_by("pk")
        }
        for table in TABLES[LOADERS[model]]
    }


@contextmanager
def emptied(model: type[models.Model], alias: str) -> Iterator[None]:
    """Empty the tables afterwards, because there is no transaction to roll back."""
    try:
        yield
    finally:
        for table in reversed(TABLES[LOADERS[model]]):
            table._base_manager.using(alias).all().delete()
        Flag._base_manager.using(alias).all().delete()
