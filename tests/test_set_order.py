"""What expressions read from columns that the same statement assigns (contract.md, section 7).

MariaDB and MySQL assign from left to right.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import (
    Case,
    CharField,
    Exists,
    F,
    Model,
    OuterRef,
    QuerySet,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import (
    Cast,
    Coalesce,
    RowNumber,
    Upper,
)
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, fastest, of_every_size, rows, ships, three_ships
from tests.models import (
    Berth,
    Book,
    Cargo,
    Novel,
    Ship,
    Survey,
)
from tests.refusals import is_refused
from tests.truth import Truth, as_django, typed_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet
    from django.db.models.signals import ModelSignal as Signal

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


def _highest(model: type[Model], name: str) -> Subquery:
    return Subquery(model._base_manager.order_by(f"-{name}").values(name)[:1])


# MariaDB's SET works from left to right, except in a statement that reads the table that it writes.
IN_TURN: dict[str, tuple[Callable[[], QuerySet[Any]], list[dict[str, Any]]]] = {
    "in turn": (
        Ship.objects.all,
        [{"speed": 9, "tonnage": F("speed"), "price": F("tonnage") + 1}, {"tonnage": F("speed") * 2}],
    ),
    "a value reads another table": (
        Ship.objects.all,
        [
            {"speed": _highest(Berth, "number"), "tonnage": F("speed"), "price": 1},
            {"speed": 9, "tonnage": F("speed") + _highest(Berth, "number"), "price": F("tonnage")},
        ],
    ),
    "a value reads another table by an assigned column": (
        Ship.objects.all,
        [
            {
                "speed": 5,
                "tonnage": Coalesce(
                    Subquery(Berth.objects.filter(number=OuterRef("speed")).values("number")[:1]), 77
                ),
            }
        ],
    ),
    "one value reads the table": (
        Ship.objects.all,
        [{"speed": 9, "tonnage": F("speed"), "price": 1}, {"speed": 7, "price": _highest(Ship, "id")}],
    ),
    "one value reads a copy of the table": (
        Ship.objects.all,
        [
            {"speed": 9, "tonnage": F("speed"), "price": 1},
            {
                "speed": 7,
                "price": Subquery(
                    Ship.objects.annotate(place=Window(RowNumber(), order_by="id"))
                    .filter(place=2)
                    .values("place")[:1]
                ),
            },
        ],
    ),
    "the filter joins": (
        lambda: Ship.objects.filter(berth__number__gte=0),
        [{"speed": 9, "tonnage": F("speed")}],
    ),
    "the filter looks at a part of a date": (
        lambda: Survey.objects.filter(held__month=3),
        [{"passed": True, "title": Cast("passed", CharField())}],
    ),
    "of a parent, in turn": (
        Novel.objects.all,
        [{"title": "new", "status": F("title"), "plot": "none"}, {"status": Upper("title")}],
    ),
    "of a parent, one reads the table": (
        Novel.objects.all,
        [{"title": "new", "status": F("title"), "plot": "none"}, {"title": _highest(Book, "title")}],
    ),
    "of a child, the filter is by the parent": (
        lambda: Novel.objects.exclude(title=""),
        [{"plot": "none", "genre": F("plot")}],
    ),
    "of a child and a parent, the filter is by the parent": (
        lambda: Novel.objects.exclude(title=""),
        [{"title": "new", "plot": "none", "genre": F("plot")}],
    ),
}


WITH_AND_WITHOUT_LOCKS = pytest.mark.parametrize("lock", [True, False], ids=["locked", "not locked"])


@of_every_size
@WITH_AND_WITHOUT_LOCKS
@pytest.mark.parametrize("own", [None, 1, 3])
@pytest.mark.parametrize(("queryset", "given"), IN_TURN.values(), ids=IN_TURN)
def test_an_expression_reads_from_other_columns_what_it_reads_in_djangos_statement(
    queryset: Callable[[], QuerySet[Any]],
    given: list[dict[str, Any]],
    own: int | None,
    lock: bool,
    batch_size: int,
    receivers: Receivers,
) -> None:
    with no_bulk_signals():
        berth = Berth.objects.create(number=5)
        for number in range(4):
            Ship.objects.create(speed=number, tonnage=number * 10, berth=berth)
            Novel.objects.create(title=f"title {number}", plot="love")
            Survey.objects.create(held=datetime.date(2020, 3, 4))
    model = queryset().model
    names = list(given[0])

    def update() -> list[dict[str, Any]]:
        objs = list(model._base_manager.order_by("pk"))
        for number, obj in enumerate(objs):
            vars(obj).update(given[number % len(given)])
        assert queryset().bulk_update(objs, names, batch_size=own) == 4
        return [*model._base_manager.order_by("pk").values("pk", *names)]

    with bulk_signals(batch_size=batch_size, lock=lock):
        if is_refused(update, receivers):
            return
    with no_bulk_signals(), transaction.atomic():
        expected = update()
        transaction.set_rollback(True)
    log = receivers.record(model)
    with bulk_signals(batch_size=batch_size, lock=lock):
        assert update() == expected
    for signal in ("pre_save", "post_save"):
        seen = [{"pk": sent.instance.pk, **sent.values} for sent in log.of(signal)]
        assert [{name: values[name] for name in expected[0]} for values in seen] == expected


def test_two_columns_swap_where_the_databases_own_statement_swaps_them(receivers: Receivers) -> None:
    ships(1, 2, tonnage=7)
    truth = Truth(receivers, Ship)
    Ship.objects.update(speed=F("tonnage"), tonnage=F("speed"))
    swapped = [1, 2] if connection.vendor != "mysql" else [7, 7]
    assert (column(Ship, "speed"), column(Ship, "tonnage")) == ([7, 7], swapped)
    assert truth.holds()


def test_an_expression_over_an_assigned_column_has_the_value_of_the_database(receivers: Receivers) -> None:
    ships(7, tonnage=10)
    truth = Truth(receivers, Ship)
    Ship.objects.update(speed=F("speed") * 0.35, tonnage=F("speed") * 10)
    assert column(Ship, "tonnage") == ([70] if connection.vendor != "mysql" else [20])
    assert truth.holds("speed")


def _first_two() -> QuerySet[Any, Any]:
    return Ship.objects.annotate(place=Window(RowNumber(), order_by="speed")).filter(place__lte=2)


# If a statement reads the table that it writes, MariaDB takes all columns from the old row.
READING_ITSELF: dict[str, tuple[Callable[[], QuerySet[Any, Any]], Callable[[], dict[str, Any]]]] = {
    "in a value": (
        Ship.objects.all,
        lambda: {"speed": 9, "tonnage": F("speed"), "price": Subquery(fastest())},
    ),
    "in a value to the left": (
        Ship.objects.all,
        lambda: {"price": Subquery(fastest()), "speed": F("speed") + F("tonnage"), "tonnage": F("speed")},
    ),
    "in a value of a chain": (
        Ship.objects.all,
        lambda: {
            "speed": F("tonnage"),
            "tonnage": Case(When(speed__gt=1, then=F("speed")), default=Value(7)),
            "price": F("tonnage") + Subquery(fastest()),
        },
    ),
    "in raw SQL": (
        Ship.objects.all,
        lambda: {
            "speed": 9,
            "tonnage": F("speed"),
            "price": RawSQL(f"(SELECT MAX(speed) FROM {Ship._meta.db_table})", ()),
        },
    ),
    "in the filter": (
        lambda: Ship.objects.filter(Exists(Ship.objects.filter(speed=3))),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in a filter by a relation": (
        lambda: Ship.objects.filter(berth__number__gt=0),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in an extra condition": (
        lambda: Ship.objects.extra(where=[f"EXISTS (SELECT 1 FROM {Ship._meta.db_table} other)"]),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in a list of tables": (
        Ship.objects.all,
        lambda: {
            "speed": 9,
            "tonnage": F("speed"),
            "price": RawSQL(
                f"(SELECT MAX(s.speed) FROM {Berth._meta.db_table} b, {Ship._meta.db_table} s)", ()
            ),
        },
    ),
    "in a column that is named twice": (
        Ship.objects.all,
        lambda: {
            "berth": Subquery(Ship.objects.order_by("-id").values("berth_id")[:1]),
            "berth_id": None,
            "speed": 9,
            "tonnage": F("speed"),
        },
    ),
    "not, in a generated column": (
        Cargo.objects.all,
        lambda: {
            "total": Subquery(Cargo.objects.order_by("-id").values("total")[:1]),
            "weight": 9,
            "amount": F("weight"),
        },
    ),
    "not, but a part of its own date": (
        lambda: Survey.objects.filter(held__month=3),
        lambda: {"passed": True, "title": Cast("passed", CharField())},
    ),
    "in a copy": (
        lambda: Ship.objects.filter(pk__in=_first_two().values("pk")),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in a copy, for a value": (
        Ship.objects.all,
        lambda: {"speed": 9, "tonnage": F("speed"), "price": Subquery(_first_two().values("place")[:1])},
    ),
    "in a copy, by a relation": (
        lambda: _first_two().annotate(number=F("berth__number")),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "not, but another one by an assigned column": (
        Ship.objects.all,
        lambda: {
            "speed": 3,
            "tonnage": Coalesce(
                Subquery(Berth.objects.filter(number=OuterRef("speed")).values("number")[:1]), 77
            ),
        },
    ),
    "by an assigned column": (
        Ship.objects.all,
        lambda: {
            "speed": 2,
            "tonnage": Coalesce(Subquery(Ship.objects.filter(id__lt=OuterRef("speed")).values("id")[:1]), 77),
        },
    ),
    "not, but another one": (
        lambda: Ship.objects.filter(Exists(Berth.objects.filter(number=3))),
        lambda: {"speed": 9, "tonnage": F("speed"), "price": Subquery(Berth.objects.values("number")[:1])},
    ),
    "in a value of a parent": (
        Novel.objects.all,
        lambda: {
            "title": "new",
            "status": F("title"),
            "price": Subquery(Book.objects.order_by("-price").values("price")[:1]),
        },
    ),
    "not, as a parent is written by keys": (
        lambda: Novel.objects.filter(title="Emma"),
        lambda: {"title": "new", "status": F("title"), "plot": "none"},
    ),
    "not, as a child is written by keys beside it": (
        lambda: Novel.objects.filter(title="Emma"),
        lambda: {"title": "new", "plot": "none", "genre": F("plot")},
    ),
    "in a filter by a parent": (
        lambda: Novel.objects.filter(title="Emma"),
        lambda: {"plot": "none", "genre": F("plot")},
    ),
}


@of_every_size
@WITH_AND_WITHOUT_LOCKS
@pytest.mark.parametrize("heard", [[pre_save, post_save], [post_save]], ids=["both", "post_save"])
@pytest.mark.parametrize(("queryset", "values"), READING_ITSELF.values(), ids=READING_ITSELF)
def test_what_an_expression_sees_depends_on_whether_the_statement_reads_its_own_table(
    queryset: Callable[[], QuerySet[Any, Any]],
    values: Callable[[], dict[str, Any]],
    heard: list[Signal],
    lock: bool,
    batch_size: int,
    receivers: Receivers,
) -> None:
    if connection.vendor == "postgresql" and {"berth", "berth_id"} <= values().keys():
        pytest.skip("it refuses a column that is assigned twice")
    three_ships()
    with no_bulk_signals():
        for title, price in ("Emma", 2), ("Ulysses", 3):
            Novel.objects.create(title=title, price=price, plot="love")
        rows(Cargo, {"weight": 1, "amount": 2}, {"weight": 3, "amount": 4})
        rows(Survey, {"held": datetime.date(2020, 3, 4), "passed": False})
    model = queryset().model
    with bulk_signals(batch_size=batch_size, lock=lock):
        if is_refused(lambda: queryset().update(**values()), receivers):
            return
    expected = as_django(lambda: queryset().update(**values()), model)
    truth = Truth(receivers, model, heard)
    with bulk_signals(batch_size=batch_size, lock=lock):
        assert queryset().update(**values())
    assert typed_rows(model) == expected
    assert truth.after == truth.stored
    assert truth.before == [] if pre_save not in heard else truth.holds("total")


@of_every_size
def test_a_change_by_a_receiver_does_not_show_in_other_columns(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, tonnage=7)

    def hasten(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            instance.price = Decimal(50)

    receivers.connect(pre_save, hasten, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(tonnage=F("speed") + 1, speed=F("speed") + 5)
    assert column(Ship, "tonnage") == [2, 3]
    assert column(Ship, "speed") == [6, 7]
    assert truth.after == truth.stored
