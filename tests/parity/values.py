"""Values that a call may give to a field: constants, expressions, and values that Django refuses."""

from __future__ import annotations

import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import (
    Abs,
    Cast,
    Coalesce,
    Concat,
    Greatest,
    JSONObject,
    Length,
    Lower,
    Now,
    Random,
    RowNumber,
    Substr,
    Trim,
    TruncDate,
    TruncDay,
    TruncTime,
    Upper,
)
from django.utils.functional import lazystr

from tests.parity import particular
from tests.parity.fields import ColourField, WordsField
from tests.parity.models import Cargo, Flag, Harbour, Ship
from tests.parity.rows import UTC, pool, ship_id
from tests.parity.scenario import Given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Field = models.Field[Any, Any]

HOUR = datetime.timedelta(hours=1)
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
LATER = datetime.datetime(2022, 3, 4, 23, 6, 7, tzinfo=EAST)

# Values that Django accepts for a field besides those of the field's own type.
LOOSE: dict[type[Field | Any], list[Given]] = {
    ColourField: [Given("0a0b0c")],
    WordsField: [Given(("x", "y"), vague=True)],
    models.BinaryField: [Given(bytearray(b"x")), Given(memoryview(b"y"))],
    models.BooleanField: [Given(1), Given(0), Given("True"), Given("f")],
    models.DateTimeField: [Given("2022-03-04T05:06:07Z"), Given(LATER)],
    models.DateField: [Given("2022-03-04"), Given(LATER)],
    models.DecimalField: [
        Given(3),
        Given("2.5"),
        Given(0.5),
        Given(Decimal("1.23987"), rounds=True),
        Given(0.1, rounds=True),
    ],
    models.DurationField: [Given("01:00:00", vague=True)],
    models.FloatField: [Given(3), Given("2.5"), Given(Decimal("1.5"))],
    models.GenericIPAddressField: [Given("::ffff:0a0a:0a0a", vague=True), Given(" 10.0.0.2", vague=True)],
    models.JSONField: [Given((1, 2), vague=True), Given(Value([1, 2], models.JSONField()))],
    models.IntegerField: [Given("1"), Given(2.0), Given(Decimal(1)), Given(True)],
    models.TimeField: [Given("10:11:12")],
    models.UUIDField: [Given("12345678123456781234567812345678"), Given(5)],
    models.TextField: [Given(5), Given(lazystr("lazy"))],
    models.CharField: [Given(5), Given(Decimal("1.5")), Given(lazystr("lazy"))],
    **{kind: [Given(value, vague=True) for value in values] for kind, values in particular.LOOSE.items()},
}

# Values that it does not accept, on most databases.
BAD: dict[type[Field | Any], list[Any]] = {
    models.IntegerField: ["abc", [], Flag(id=1)],
    models.DateField: ["yesterday", 5],
    models.DecimalField: ["abc", Decimal("123456789012.5")],
    models.UUIDField: ["zz"],
    models.BooleanField: ["maybe"],
    models.FloatField: ["abc"],
    models.GenericIPAddressField: ["999.1.1.1"],
    models.CharField: [Flag(id=1)],
    models.JSONField: [{1, 2}],
    models.ForeignKey: [Harbour(), Flag(id=1)],
    **particular.BAD,
}


def _by_kind(table: dict[Any, list[Any]], field: Field) -> list[Any]:
    return next((table[kind] for kind in type(field).__mro__ if kind in table), [])


@cache
def constants(field: Field) -> list[Given]:
    plain = [Given(value) for value in pool(field)]
    if not field.remote_field:
        return plain + _by_kind(LOOSE, field)
    return plain + [Given(target) for target in _objects(field)]


def _objects(field: Any) -> list[models.Model]:
    if field.remote_field.model is Ship:
        return [Ship(id=ship_id(1)), Ship(id=ship_id(2))]
    return [Harbour(code="A", number=1), Harbour(code="C", number=3)]


@cache
def refused(field: Field) -> list[Given]:
    """Return values that Django does not accept, either itself or through the database."""
    expressions = [
        F("nowhere"),
        F("home__rank"),
        Count("pk"),
        Avg("rank"),
        Window(RowNumber()),
        F("total"),
        F("window"),
        F("harbour_rank"),
    ]
    bad = [*_by_kind(BAD, field), *expressions]
    return [Given(value) for value in (bad if field.null else [None, *bad])]


@cache
def expressions(model: type[models.Model], field: Field) -> list[Given]:
    """Return expressions for any field, and for fields of this class."""
    if field.name == "memo" or field.unique:
        return []
    return [*_of_any_kind(model, field), *_of_its_kind(model, field)]


def _of_any_kind(model: type[models.Model], field: Field) -> Iterator[Given]:
    yield Given(F(field.name))
    twin = f"{field.name.removesuffix('_null')}{'' if field.name.endswith('_null') else '_null'}"
    if twin in {other.name for other in model._meta.concrete_fields}:
        # A decimal's twin has another scale.
        yield Given(F(twin), rounds=True)
    constant = Value(pool(field)[-1], output_field=_column(field))
    yield Given(Case(When(rank__gt=1, then=constant), default=F(field.name)))
    yield Given(_of_another_row(model, field.name), crosses=True)


def _column(field: Any) -> Field:
    column: Field = field.target_field if field.remote_field else field
    return column


def _of_another_row(model: type[models.Model], name: str) -> Coalesce:
    """The value of the row that is next by rank, which an update of many rows may be about to change."""
    following = model._base_manager.filter(rank__gt=OuterRef("rank")).order_by("rank", "pk")
    return Coalesce(Subquery(following.values(name)[:1]), F(name))


def _of_its_kind(model: type[models.Model], field: Field) -> list[Given]:
    if field.remote_field:
        return _keys(field)
    loaded = issubclass(model, Ship) and isinstance(field, models.IntegerField)
    counted = [Given(Coalesce(_cargo(), 0), crosses=True)] if loaded else []
    particulars = [Given(value) for value in _by_kind(particular.EXPRESSIONS, field)]
    return (
        counted
        + particulars
        + next((given(field.name) for kind, given in _KINDS.items() if isinstance(field, kind)), [])
    )


def _keys(field: Any) -> list[Given]:
    if field.remote_field.model is Ship:
        newest = Ship._base_manager.order_by("-id").values("id")[:1]
        own = [Given(F("id"))] if field.name == "flagship" else []
        return [*own, Given(Subquery(newest), crosses=True)]
    attname = field.target_field.attname
    return [Given(Subquery(Harbour._base_manager.order_by("-number").values(attname)[:1]), crosses=True)]


def _integers(name: str) -> list[Given]:
    return [
        Given(F(name) + 1),
        Given(F("rank") * 2 + Length("note")),
        Given(Length(Upper("note"))),
        Given(Coalesce(F(name), 5)),
        Given(Greatest(F("rank"), Value(2))),
        Given(Abs(F("rank")) + F("doubled")),
        Given(F("next_rank")),
    ]


def _cargo() -> Subquery:
    loaded = Cargo._base_manager.filter(ship=OuterRef("pk")).order_by().values("ship")
    return Subquery(loaded.annotate(number=Count("pk")).values("number"))


def _floats(name: str) -> list[Given]:
    return [
        Given(F(name) * 1.5, rounds=True),
        Given(F("rank") / 2.0, rounds=True),
        Given(F("rank")),
        Given(F("next_rank")),
        Given(Random(), volatile=True),
    ]


def _decimals(name: str) -> list[Given]:
    return [
        Given(F(name) * Decimal("1.1"), rounds=True),
        Given(F(name) + 1),
        Given(F(name) / 3, rounds=True),
        Given(F("rank")),
        Given(Coalesce(F(name), Decimal(7))),
        Given(Cast("rank", models.DecimalField(max_digits=12, decimal_places=1))),
    ]


def _texts(name: str) -> list[Given]:
    return [
        Given(Upper(name)),
        Given(Lower("note")),
        Given(Concat(Trim("note"), Value(" é!"))),
        Given(Substr("note", 1, 2)),
        Given(Cast("rank", models.CharField(max_length=20))),
        Given(Case(When(slug=None, then=Value("none")), When(rank=2, then=F("note")), default=Value("%s"))),
        Given(F("upper_note")),
    ]


def _truths(name: str) -> list[Given]:
    return [
        Given(Q(rank__gt=1)),
        Given(ExpressionWrapper(Q(rank=F("doubled")) | Q(note=""), models.BooleanField())),
        Given(Exists(Cargo._base_manager.filter(rank=OuterRef("rank"))), crosses=True),
        Given(Case(When(rank__gt=1, then=True), default=False)),
    ]


def _moments(name: str) -> list[Given]:
    return [
        Given(F(name) + HOUR),
        Given(Now(), volatile=True),
        Given(Coalesce(F(name), Now()), volatile=True),
        Given(TruncDay(F("moment"), tzinfo=UTC)),
    ]


def _documents(name: str) -> list[Given]:
    if name == "log":
        return []
    return [
        Given(F("log")),
        Given(JSONObject(rank="rank", note="note", none=Value(None, models.IntegerField()))),
        Given(Value(None, models.JSONField()), vague=True),
        Given(F("log__0"), vague=True),
        Given(Case(When(rank__gt=1, then=Value([1], models.JSONField())), default=F("log"))),
    ]


# The subclass comes first: a DateTimeField is also a DateField.
_KINDS: dict[type[Any], Callable[[str], list[Given]]] = {
    ColourField: lambda name: [],
    WordsField: lambda name: [],
    models.FileField: lambda name: [],
    models.IntegerField: _integers,
    models.FloatField: _floats,
    models.DecimalField: _decimals,
    models.CharField: _texts,
    models.TextField: _texts,
    models.BooleanField: _truths,
    models.DateTimeField: _moments,
    models.DateField: lambda name: [Given(TruncDate("moment", tzinfo=UTC))],
    models.TimeField: lambda name: [Given(TruncTime("moment", tzinfo=UTC))],
    models.DurationField: lambda name: [Given(F(name) + HOUR)],
    models.JSONField: _documents,
}


def new_keys(model: type[models.Model]) -> dict[str, list[Given]]:
    """Return values for the key columns of models whose key may change."""
    return {
        "Wide": {"id": [Given(900), Given(F("id") + 1000), Given("901")]},
        "Port": {"code": [Given("NEW"), Given(Concat(F("code"), Value("x"))), Given("P1")]},
        "Berth": {
            "number": [Given(F("number") + 100), Given(77)],
            "dock": [Given("Z"), Given(Lower("dock"))],
        },
    }[model.__name__]
