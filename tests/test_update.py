"""`update()`: which rows, which instances, which signals, in which transaction (contract, section 1)."""

from __future__ import annotations

import gc
import uuid
import weakref
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import IntegrityError, NotSupportedError, connection, connections, transaction
from django.db.models import (
    Avg,
    Count,
    F,
    Func,
    IntegerField,
    Max,
    Model,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Value,
    Window,
)
from django.db.models.functions import Concat, Length, Lower, Random, RowNumber
from django.db.models.signals import post_init, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    BookProxy,
    Buoy,
    Logbook,
    Mooring,
    Novel,
    Port,
    Publisher,
    Reader,
    Sailor,
    Ship,
)
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


class Lacking(Func):
    """A function that no backend has."""

    output_field = IntegerField()

    def as_sql(self, *arguments: Any, **extra: Any) -> Any:
        raise NotSupportedError("this backend has no such function")


# 1. Refusals come first.

REFUSED: dict[str, Callable[[QuerySet[Any]], int]] = {
    "sliced": lambda qs: qs[:1].update(speed=9),
    "combined": lambda qs: qs.union(qs).update(speed=9),
    "intersected": lambda qs: qs.intersection(qs).update(speed=9),
    "unknown field": lambda qs: qs.update(sped=9),
    "unknown field beside a known one": lambda qs: qs.update(speed=9, sped=9),
    "reverse relation": lambda qs: qs.update(crew=9),
    "aggregate": lambda qs: qs.update(speed=Max("tonnage")),
    "reference to an aggregate": lambda qs: qs.annotate(size=Count("crew")).update(speed=F("size")),
    "window": lambda qs: qs.update(speed=Window(RowNumber(), order_by="name")),
    "reference to a window": lambda qs: qs.annotate(n=Window(RowNumber())).update(speed=F("n")),
    "joined column": lambda qs: qs.update(speed=F("berth__number")),
    "unknown column": lambda qs: qs.update(speed=F("sped")),
    "order by aggregate": lambda qs: qs.annotate(n=Count("crew")).order_by("n").update(speed=9),
    "lacking function": lambda qs: qs.update(speed=Lacking("tonnage")),
    "unsaved object": lambda qs: qs.update(berth=Berth()),
    "object for a plain column": lambda qs: qs.update(speed=Berth(pk=1)),
    "wrong type": lambda qs: qs.update(speed="fast"),
    "positional argument": lambda qs: qs.update(9),  # type: ignore[call-arg]  # the mistake
    "values as a dictionary": lambda qs: qs.values("name").distinct().order_by("nope").update(speed=9),
}


@pytest.mark.parametrize("speed", [5, 6], ids=["rows match", "no row matches"])
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_refusals_come_before_any_signal(
    refused: Callable[[QuerySet[Any]], int], speed: int, receivers: Receivers
) -> None:
    ships(5, 5)
    log = receivers.record(Ship)
    queryset = Ship.objects.filter(speed=speed)
    with no_bulk_signals():
        expected = refusal(lambda: refused(queryset.all()))
    assert refusal(lambda: refused(queryset.all())) == expected
    assert expected is not None
    assert log == []
    assert column(Ship, "speed") == [5, 5]


def test_an_update_of_a_many_to_many_field_is_refused(receivers: Receivers) -> None:
    book = Book.objects.create()
    log = receivers.record(Book)
    books: QuerySet[Any] = Book.objects.filter(pk=book.pk)
    with pytest.raises(FieldError, match="Cannot update model field"):
        books.update(readers=[])
    assert log == []


REFUSED_BY_DATABASES: dict[str, Callable[[QuerySet[Any]], int]] = {
    "unknown function": lambda qs: qs.update(speed=Func("speed", function="no_such_function")),
    "window in the filter": lambda qs: (
        qs.annotate(n=Window(RowNumber(), order_by="pk")).filter(n__lt=9).update(speed=9)
    ),
    "aggregate in the filter": lambda qs: qs.annotate(n=Count("pk")).filter(n__gt=0).update(speed=9),
    "tables beside the model's own": lambda qs: qs.extra(
        tables=["tests_berth"], where=["tests_berth.id > 0"]
    ).update(speed=9),
}


@pytest.mark.parametrize("speed", [5, 6], ids=["rows match", "no row matches"])
@pytest.mark.parametrize("refused", REFUSED_BY_DATABASES.values(), ids=REFUSED_BY_DATABASES)
def test_what_the_database_refuses_comes_before_any_signal_too(
    refused: Callable[[QuerySet[Any]], int], speed: int, receivers: Receivers
) -> None:
    ships(5, 5)
    rows(Berth, {})
    log = receivers.record(Ship)
    queryset = Ship.objects.filter(speed=speed)
    with no_bulk_signals():
        expected = refusal(lambda: refused(queryset.all()))
    got = refusal(lambda: refused(queryset.all()))
    # PostgreSQL adds the place in the statement, which is another one.
    assert expected is not None
    assert got is not None
    assert (got[0], got[1].partition("\n")[0]) == (expected[0], expected[1].partition("\n")[0])
    assert log == []
    assert column(Ship, "speed") == [5, 5]


@pytest.mark.parametrize("by", ["object", "subquery"])
def test_a_column_named_twice_is_refused_where_the_database_refuses_it(by: str, receivers: Receivers) -> None:
    ships(5, 5)
    berth, last = rows(Berth, {}, {})
    first = berth if by == "object" else Subquery(Berth.objects.order_by("pk").values("pk")[:1])
    log = receivers.record(Ship)

    def update() -> int:
        return Ship.objects.update(berth=first, berth_id=last.pk)

    with no_bulk_signals():
        expected = refusal(update)
        left = column(Ship, "berth_id")
        Ship.objects.update(berth=None)
    got = refusal(update)
    assert got == expected
    if got is None:
        assert column(Ship, "berth_id") == left
        assert [sent.values["berth_id"] for sent in log.of("post_save")] == left
    else:
        assert log == []


@pytest.mark.parametrize("name", ["speed", "berth__number"])
def test_distinct_on_fields_is_refused_where_django_refuses_it(name: str, receivers: Receivers) -> None:
    berths = rows(Berth, {"number": 5}, {"number": 5}, {"number": 6})
    rows(Ship, *({"speed": berth.number, "berth": berth} for berth in berths))
    log = receivers.record(Ship)

    def update() -> int:
        return Ship.objects.order_by(name, "pk").distinct(name).update(tonnage=9)

    with no_bulk_signals():
        expected = refusal(update)
    tonnage = column(Ship, "tonnage")
    with no_bulk_signals():
        Ship.objects.update(tonnage=0)
    assert refusal(update) == expected
    assert column(Ship, "tonnage") == tonnage
    assert len(log.of("post_save")) == len([t for t in tonnage if t])


def test_distinct_on_fields_of_joined_rows_is_refused_where_django_refuses_it(receivers: Receivers) -> None:
    berths = rows(Berth, {"number": 5}, {"number": 6})
    fleet = rows(Ship, *({"berth": berth} for berth in berths))
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in ("moe", "zoe")))
    log = receivers.record(Ship)

    def update() -> int:
        chosen = Ship.objects.filter(crew__name__contains="oe").order_by("berth__number")
        return chosen.distinct("berth__number").update(tonnage=9)

    with no_bulk_signals():
        expected = refusal(update)
        tonnage = column(Ship, "tonnage")
        Ship.objects.update(tonnage=0)
    assert refusal(update) == expected
    assert column(Ship, "tonnage") == tonnage
    assert len(log.of("post_save")) == len([t for t in tonnage if t])


def test_an_annotation_that_is_an_order_is_reversed_where_django_lets_it_be(receivers: Receivers) -> None:
    """MariaDB and MySQL order the UPDATE by it, and refuse it."""
    ships(1, 2)

    def update() -> int:
        return Ship.objects.annotate(upwards=F("speed").asc()).order_by("-upwards").update(tonnage=9)

    with no_bulk_signals():
        expected = refusal(update)
    log = receivers.record(Ship)
    assert (refusal(update) or (None,))[0] == (expected or (None,))[0]
    told = [sent.instance.name for sent in log.of("post_save") if isinstance(sent.instance, Ship)]
    assert told == ([] if expected else ["b", "a"])


def test_rows_of_several_tables_may_be_chosen_by_a_related_row(receivers: Receivers) -> None:
    """The row's own tables are locked, the other one is not."""
    (here, there) = rows(Publisher, {"name": "here"}, {"name": "there"})
    Novel.objects.create(title="a", publisher=here)
    Novel.objects.create(title="b", publisher=there)
    log = receivers.record(Novel)
    assert Novel.objects.filter(publisher__name="here").update(plot="thick", status="out") == 1
    assert [sent.values["title"] for sent in log] == ["a", "a"]
    assert list(Novel.objects.order_by("pk").values_list("plot", "status")) == [
        ("thick", "out"),
        ("", "draft"),
    ]


def test_a_refusal_leaves_no_state_behind(receivers: Receivers) -> None:
    (ship,) = ships(5)
    log = receivers.record(Ship)
    fleet: QuerySet[Any] = Ship.objects.all()
    with pytest.raises(FieldDoesNotExist):
        fleet.update(sped=9)
    Ship.objects.filter(pk=ship.pk).update(speed=9)
    assert log.names() == ["pre_save", "post_save"]


# 2. Nobody listens, nothing changes.


def test_receivers_of_other_models_and_of_deletes_are_nobody(receivers: Receivers) -> None:
    ships(5)
    log = receivers.record(Port)
    receivers.connect(pre_delete, lambda **arguments: None, Ship)
    with CaptureQueriesContext(connection) as queries:
        assert Ship.objects.update(speed=9) == 1
    assert len(queries) == 1
    assert log == []


def test_auto_created_through_models_get_no_signals(receivers: Receivers) -> None:
    book, reader, other = Book.objects.create(), Reader.objects.create(), Reader.objects.create()
    book.readers.add(reader)
    log = receivers.record()
    assert Book.readers.through.objects.update(reader=other) == 1
    assert log == []


def test_a_receiver_without_a_sender_hears_updates(receivers: Receivers) -> None:
    ships(5)
    log = receivers.record()
    Ship.objects.update(speed=9)
    assert [sent.sender for sent in log] == [Ship, Ship]


@pytest.mark.parametrize("name", ["pre_save", "post_save"])
def test_a_receiver_of_one_signal_alone_is_enough(name: str, receivers: Receivers) -> None:
    ships(5, 6)
    seen: list[int] = []

    def receive(instance: Ship, **arguments: Any) -> None:
        seen.append(instance.speed)

    receivers.connect({"pre_save": pre_save, "post_save": post_save}[name], receive, Ship)
    assert Ship.objects.update(speed=F("speed") + 1) == 2
    assert seen == [6, 7]
    assert column(Ship, "speed") == [6, 7]


# 3. The rows are chosen once.


of_every_size = pytest.mark.parametrize("batch_size", [1, 2, 2000])


def test_a_batch_may_be_larger_than_any_number_of_the_database(log: Log) -> None:
    ships(1, 2)
    with bulk_signals(batch_size=10**30):
        assert Ship.objects.update(speed=3) == 2
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2


@of_every_size
def test_rows_that_the_write_makes_stop_matching_are_all_written(batch_size: int, log: Log) -> None:
    ships(1, 2, 3, 4, 5)
    log.clear()
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(status="afloat").update(status="docked") == 5
    assert column(Ship, "status") == ["docked"] * 5
    assert len(log.of("post_save")) == 5


@of_every_size
def test_rows_that_the_write_makes_match_again_are_written_once(
    batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3, 4, 5)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(speed__lt=100).order_by("speed").update(speed=F("speed") + 10) == 5
    assert column(Ship, "speed") == [11, 12, 13, 14, 15]
    assert [sent.values["speed"] for sent in log.of("post_save")] == [11, 12, 13, 14, 15]


@of_every_size
def test_rows_that_a_receiver_makes_stop_matching_are_written(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)

    def sink_all(**arguments: Any) -> None:
        with no_bulk_signals():
            Ship.objects.update(status="sunk")

    receivers.connect(pre_save, sink_all, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(status="afloat").update(speed=9) == 3
    assert column(Ship, "speed") == [9, 9, 9]


@of_every_size
def test_rows_that_a_receiver_adds_are_not_written(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2)

    def escort(instance: Ship, **arguments: Any) -> None:
        rows(Ship, {"speed": 50})

    receivers.connect(pre_save, escort, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert column(Ship, "speed") == [9, 9, 50, 50]


def _harbour() -> list[Ship]:
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


SHAPES: dict[str, Callable[[], QuerySet[Any, Any]]] = {
    "all": lambda: Ship.objects.all(),
    "exclude": lambda: Ship.objects.exclude(crew__name="nobody"),
    "to-one join": lambda: Ship.objects.filter(berth__port__name="south"),
    "to-many join": lambda: Ship.objects.filter(crew__name__contains="oe"),
    "to-many join, distinct": lambda: Ship.objects.filter(crew__name__contains="oe").distinct(),
    "distinct": lambda: Ship.objects.distinct(),
    "distinct values": lambda: Ship.objects.values("speed").distinct(),
    "values": lambda: Ship.objects.values("name"),
    "values_list": lambda: Ship.objects.values_list("name", flat=True),
    "only": lambda: Ship.objects.only("name"),
    "defer": lambda: Ship.objects.defer("name", "speed"),
    "annotate": lambda: Ship.objects.annotate(low=Lower("name")).filter(low__lt="c"),
    "alias": lambda: Ship.objects.alias(low=Lower("name")).filter(low__lt="c"),
    "joined annotation": lambda: Ship.objects.annotate(n=F("berth__number")).filter(n__gt=1),
    "group by": lambda: Ship.objects.annotate(hands=Count("crew")).filter(hands__gt=0),
    "group by, values": lambda: Ship.objects.values("speed").annotate(n=Count("pk")),
    "window": lambda: Ship.objects.annotate(n=Window(RowNumber(), order_by="name")),
    "select_related": lambda: Ship.objects.select_related("berth__port"),
    "prefetch": lambda: Ship.objects.prefetch_related("crew", Prefetch("escorts")),
    "select_for_update": lambda: Ship.objects.select_for_update(),
    "select_for_update of": lambda: Ship.objects.select_related("berth").select_for_update(of=("self",)),
    "dates": lambda: Ship.objects.dates("changed", "year"),
    "in a subquery": lambda: Ship.objects.filter(pk__in=Ship.objects.filter(speed__gt=1)),
    "reverse": lambda: Ship.objects.reverse(),
    "complex filter": lambda: Ship.objects.filter(berth__number=1) | Ship.objects.filter(speed=3),
    "extra where": lambda: Ship.objects.extra(where=["speed > 1"]),
    "extra select": lambda: Ship.objects.extra(select={"twice": "speed * 2"}),
}


@of_every_size
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_queryset_as_it_stands_chooses_the_rows_once_each(
    shape: Callable[[], QuerySet[Any, Any]], batch_size: int, receivers: Receivers
) -> None:
    _harbour()
    with no_bulk_signals(), transaction.atomic():
        expected = shape().update(tonnage=7), column(Ship, "tonnage")
        transaction.set_rollback(True)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        matched = shape().update(tonnage=7)
    assert (matched, column(Ship, "tonnage")) == expected
    told = [sent.instance.pk for sent in log.of("post_save")]
    # Rows that are equal in an order of the queryset's own come in any: years, of dates.
    ordered = sorted(told) if shape().query.order_by else told
    assert ordered == sorted(Ship.objects.filter(tonnage=7).values_list("pk", flat=True))
    assert all(not sent.instance.get_deferred_fields() for sent in log)


ORDERS: dict[str, tuple[Callable[[], QuerySet[Any, Any]], str]] = {
    "none": (lambda: Ship.objects.all(), "cc AAA b dddd"),
    "own": (lambda: Ship.objects.order_by("speed", "-pk"), "dddd b cc AAA"),
    "descending": (lambda: Ship.objects.order_by("-speed", "pk"), "AAA cc b dddd"),
    "key": (lambda: Ship.objects.order_by("-pk"), "dddd b AAA cc"),
    "reversed": (lambda: Ship.objects.order_by("speed", "-pk").reverse(), "AAA cc b dddd"),
    "expression": (lambda: Ship.objects.order_by(Length("name").desc()), "dddd AAA cc b"),
    "F": (lambda: Ship.objects.order_by(F("speed").asc(), F("pk").desc()), "dddd b cc AAA"),
    "related": (lambda: Ship.objects.order_by("-berth__number", "pk"), "cc AAA b dddd"),
    "related twice": (lambda: Ship.objects.order_by("berth__port__name", "pk"), "cc AAA b dddd"),
    "foreign key id": (lambda: Ship.objects.order_by("-berth_id", "pk"), "AAA b dddd cc"),
    "related model's own order": (lambda: Ship.objects.order_by("flag", "-pk"), "b AAA dddd cc"),
    "to-many": (lambda: Ship.objects.filter(name__lt="d").order_by("crew__name"), "AAA b cc"),
    "annotation": (lambda: Ship.objects.annotate(n=Length("name")).order_by("n"), "b cc AAA dddd"),
    "alias": (lambda: Ship.objects.alias(n=Length("name")).order_by("-n"), "dddd AAA cc b"),
    "expression over a join": (lambda: Ship.objects.order_by(F("berth__number") * -1, "pk"), "cc AAA b dddd"),
    "joined filter": (lambda: Ship.objects.filter(crew__name="zoe").order_by("-pk"), "b AAA cc"),
    "duplicating filter": (
        lambda: Ship.objects.filter(crew__name__gt="a").order_by("-speed", "pk"),
        "AAA cc b",
    ),
    "extra": (lambda: Ship.objects.extra(order_by=["-name"]), "dddd cc b AAA"),
}


@of_every_size
@pytest.mark.parametrize(("ordered", "expected"), ORDERS.values(), ids=ORDERS)
def test_signals_follow_the_explicit_order_else_the_key(
    ordered: Callable[[], QuerySet[Any, Any]], expected: str, batch_size: int, receivers: Receivers
) -> None:
    _harbour()
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        ordered().update(status="docked")
    for signal in ("pre_save", "post_save"):
        assert [sent.values["name"] for sent in log.of(signal)] == expected.split()


class Named(QuerySet[Any]):
    """Takes its arguments by name only, as Django's own copying of querysets gives them."""

    def __init__(self, *, model: Any = None, query: Any = None, using: Any = None, hints: Any = None) -> None:
        super().__init__(model, query, using, hints)


@of_every_size
@pytest.mark.parametrize("names", [(), ("name",)], ids=["instances", "values"])
def test_a_class_may_take_its_arguments_by_name_only(
    names: tuple[str, ...], batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    log = receivers.record(Ship)
    queryset: QuerySet[Any] = Named(model=Ship)
    with bulk_signals(batch_size=batch_size):
        assert (queryset.values(*names) if names else queryset).update(speed=9) == 3
    assert len(log.of("post_save")) == 3


def test_an_order_by_a_condition_is_taken_or_refused_as_without_signals(receivers: Receivers) -> None:
    _harbour()

    def update() -> int:
        return Ship.objects.annotate(n=Q(speed__gt=1)).order_by("n", "pk").update(status="docked")

    with no_bulk_signals():
        expected = refusal(update)
        Ship.objects.update(status="afloat")
    # MariaDB's statement has an ORDER BY, and Django fails to build it of a condition.
    assert (expected is None) == (connection.vendor != "mysql")
    log = receivers.record(Ship)
    assert refusal(update) == expected
    if expected is None:
        assert [sent.values["name"] for sent in log.of("post_save")] == ["b", "dddd", "cc", "AAA"]


@of_every_size
def test_a_random_order_visits_each_row_once(batch_size: int, receivers: Receivers) -> None:
    fleet = ships(1, 2, 3, 4, 5)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.order_by("?").update(tonnage=9) == 5
    assert sorted(sent.instance.pk for sent in log.of("post_save")) == [ship.pk for ship in fleet]


CHANCES: dict[str, Callable[[QuerySet[Ship]], int]] = {
    "by key": lambda chosen: chosen.update(tonnage=9),
    "by column": lambda chosen: chosen.order_by("name").update(tonnage=9),
    "by an expression": lambda chosen: chosen.order_by(Length("name")).update(tonnage=9),
    "by other rows": lambda chosen: chosen.order_by("crew__name").update(tonnage=9),
    "by other rows, of other rows": lambda chosen: chosen.order_by("crew__name").update(
        tonnage=Subquery(Ship.objects.order_by("pk").values("speed")[:1])
    ),
    "of other rows": lambda chosen: chosen.update(
        tonnage=Subquery(Ship.objects.order_by("pk").values("speed")[:1])
    ),
}


@of_every_size
@pytest.mark.parametrize("update", CHANCES.values(), ids=CHANCES)
def test_rows_that_are_drawn_by_lot_are_drawn_once(
    update: Callable[[QuerySet[Ship]], int], batch_size: int, receivers: Receivers
) -> None:
    if not connection.features.allow_sliced_subqueries_with_in:
        pytest.skip("this database has no LIMIT inside of IN")
    ships(*[9] * 40)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert update(Ship.objects.filter(pk__in=Ship.objects.order_by("?").values("pk")[:5])) == 5
    assert column(Ship, "tonnage").count(9) == 5
    assert {sent.instance.pk for sent in log.of("post_save")} == set(
        Ship.objects.filter(tonnage=9).values_list("pk", flat=True)
    )
    assert len(log) == 10


@of_every_size
def test_signals_follow_the_key_though_chance_chooses_the_rows(batch_size: int, receivers: Receivers) -> None:
    ships(*[1] * 40)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        matched = Ship.objects.alias(lot=Random()).filter(lot__lt=0.5).update(tonnage=9)
    told = [sent.instance.pk for sent in log.of("post_save")]
    assert told == list(Ship.objects.filter(tonnage=9).order_by("pk").values_list("pk", flat=True))
    assert len(told) == matched


@pytest.mark.parametrize("turn", [lambda qs: qs.all(), lambda qs: qs.reverse()], ids=["as it is", "reversed"])
def test_the_order_of_meta_does_not_count(
    turn: Callable[[QuerySet[Port]], QuerySet[Port]], receivers: Receivers
) -> None:
    ports = rows(Port, {"code": "A", "name": "a"}, {"code": "C", "name": "c"}, {"code": "B", "name": "b"})
    log = receivers.record(Port)
    turn(Port.objects.all()).update(name="z")
    assert [sent.instance for sent in log.of("pre_save")] == ports


def test_combined_querysets_inside_the_filter_choose_rows(receivers: Receivers) -> None:
    ships(1, 2, 3)
    log = receivers.record(Ship)
    chosen = Ship.objects.filter(speed=1).union(Ship.objects.filter(speed=3))
    assert Ship.objects.filter(pk__in=chosen.values("pk")).update(tonnage=9) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


def test_an_empty_queryset_sends_nothing(log: Log) -> None:
    assert Ship.objects.update(speed=9) == 0
    assert Ship.objects.none().update(speed=9) == 0
    assert log == []


EMPTY: dict[str, Callable[[], QuerySet[Any]]] = {
    "none": lambda: Ship.objects.none(),
    "no keys": lambda: Ship.objects.filter(pk__in=[]),
    "no rows of another table": lambda: Ship.objects.filter(berth__port__in=Port.objects.none()),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY)
def test_what_is_empty_by_definition_asks_the_database_nothing(
    empty: Callable[[], QuerySet[Any]], receivers: Receivers
) -> None:
    receivers.record(Ship)
    nothing = empty()
    with CaptureQueriesContext(connection) as queries:
        assert nothing.update(speed=9) == 0
        with pytest.raises(FieldDoesNotExist):
            nothing.update(sped=9)
    assert list(queries) == []


def test_an_update_without_arguments_is_djangos(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    with no_bulk_signals():
        expected = refusal(lambda: Ship.objects.update())
    assert refusal(lambda: Ship.objects.update()) == expected
    assert log == []


def test_the_unbound_method_sends_signals_too(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    assert QuerySet.update(Ship.objects.all(), speed=9) == 1
    assert log.names() == ["pre_save", "post_save"]


class Shouting(QuerySet[Any]):
    """Its `update()` does something of its own and then what Django does."""

    def update(self, **values: Any) -> int:
        return super().update(**{**values, "name": "LOUD"})


def test_a_subclass_that_calls_super_sends_one_pair_with_what_it_passed_on(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    assert Shouting(Ship).update(speed=9) == 1
    assert log.names() == ["pre_save", "post_save"]
    assert log[0].arguments["update_fields"] == {"speed", "name"}
    assert column(Ship, "name") == ["LOUD"]


# 4. Instances.


@pytest.mark.parametrize("name", ["only", "defer", "values", "group by", "prefetch", "extra select"])
def test_instances_are_loaded_whole_from_the_database_written_to(name: str, receivers: Receivers) -> None:
    _harbour()
    log = receivers.record(Ship)
    SHAPES[name]().update(tonnage=7)
    whole = {field.attname for field in Ship._meta.concrete_fields}
    assert log
    for sent in log:
        assert sent.values.keys() == whole
        assert sent.instance._state.db == "default"
        assert not sent.instance._state.adding
        assert type(sent.instance) is Ship


def test_annotations_leave_nothing_on_the_instances(receivers: Receivers) -> None:
    ships(1)
    plain = set(vars(Ship.objects.get()))
    log = receivers.record(Ship)
    other = Subquery(Ship.objects.filter(pk=OuterRef("pk")).values("speed"))
    Ship.objects.annotate(low=Lower("name"), other=other).update(
        speed=F("speed") + 1, tonnage=F("other"), name=F("low")
    )
    assert set(vars(log[0].instance)) == plain


def test_instances_are_loaded_with_old_values_and_only_then_given_new_ones(receivers: Receivers) -> None:
    rows(Logbook, {"entry": "calm", "page": 1})
    initial: list[str] = []

    def remember(instance: Logbook, **arguments: Any) -> None:
        initial.append(instance.entry)

    receivers.connect(post_init, remember, Logbook)
    log = receivers.record(Logbook)
    Logbook.objects.update(entry="storm", page=F("page") + 1)
    assert initial == ["calm"]
    sent = log[0]
    assert isinstance(sent.instance, Logbook)
    assert sent.instance.loaded_with["entry"] == "calm"
    assert sent.instance.loaded_with["page"] == 1
    assert (sent.values["entry"], sent.values["page"]) == ("storm", 2)


def _noting_init(noted: list[str]) -> Any:
    djangos = Model.__init__

    def init(instance: Model, *values: Any, **named: Any) -> None:
        djangos(instance, *values, **named)
        noted.append(instance.__dict__["name"])

    return init


def _noting_from_db(noted: list[str]) -> Any:
    djangos = vars(Model)["from_db"]

    def from_db(model: type[Model], *row: Any, **named: Any) -> Model:
        instance: Model = djangos.__get__(None, model)(*row, **named)
        noted.append(instance.__dict__["name"])
        return instance

    return classmethod(from_db)


def _noting_set(noted: list[str]) -> Any:
    def set_attribute(instance: Model, name: str, value: Any) -> None:
        object.__setattr__(instance, name, value)
        if name == "name":
            noted.append(value)

    return set_attribute


NOTING = {"__init__": _noting_init, "from_db": _noting_from_db, "__setattr__": _noting_set}


@of_every_size
@pytest.mark.parametrize("name", NOTING)
def test_what_is_done_to_every_model_is_done_to_the_instances_of_an_update(
    name: str, batch_size: int, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ships(1, 2)
    receivers.connect(pre_save, lambda **arguments: None, Ship)
    noted: list[str] = []
    with bulk_signals(batch_size=batch_size), monkeypatch.context() as patch:
        patch.setattr(Model, name, NOTING[name](noted), raising=False)
        Ship.objects.update(speed=9)
    # The row that tells that there are more is an instance too.
    assert list(dict.fromkeys(noted)) == ["a", "b"]


def test_new_values_are_assigned_by_attribute(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> None:
    ships(1)
    assigned: list[str] = []

    def note(self: Ship, name: str, value: Any) -> None:
        assigned.append(name)
        object.__setattr__(self, name, value)

    receivers.record(Ship)
    monkeypatch.setattr(Ship, "__setattr__", note, raising=False)
    Ship.objects.update(name="z", speed=F("speed") + 1, notes=["x"])
    assert {"name", "speed", "notes"} <= set(assigned)


def test_the_sender_of_a_proxys_rows_is_the_proxy(receivers: Receivers) -> None:
    rows(Book, {"title": "a"})
    log = receivers.record(Book, BookProxy)
    BookProxy.objects.update(title="b")
    assert [sent.sender for sent in log] == [BookProxy, BookProxy]
    assert type(log[0].instance) is BookProxy


class Elsewhere:
    """Writes to the other database, and leaves it to Django to read from the first."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "other"


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize("by", ["using", "router", "manager"])
def test_the_database_written_to_is_the_one_of_the_signals(
    by: str, receivers: Receivers, settings: Any
) -> None:
    rows(Ship, {"name": "here"})
    rows(Ship, {"name": "there"}, {"name": "there too"}, using="other")
    log = receivers.record(Ship)
    if by == "router":
        settings.DATABASE_ROUTERS = [Elsewhere()]
        queryset = Ship.objects.all()
    elif by == "using":
        queryset = Ship.objects.using("other")
    else:
        queryset = Ship.objects.db_manager("other").all()
    with bulk_signals(batch_size=1):
        assert queryset.update(speed=F("speed") + 9) == 2
    settings.DATABASE_ROUTERS = []
    assert {sent.arguments["using"] for sent in log} == {"other"}
    assert {sent.instance._state.db for sent in log} == {"other"}
    assert [sent.values["name"] for sent in log.of("post_save")] == ["there", "there too"]
    assert column(Ship, "speed") == [0]
    assert column(Ship, "speed", using="other") == [9, 9]


# 6. Signal arguments.


def test_signals_carry_the_arguments_of_save(receivers: Receivers) -> None:
    (port,) = rows(Port, {"code": "N"})
    (berth,) = rows(Berth, {"port": port})
    (ship,) = ships(5)
    log = receivers.record(Ship)
    ship.save(update_fields=["speed", "berth"])
    expected = [sent.arguments for sent in log]
    log.clear()
    Ship.objects.update(speed=9, berth_id=berth.pk)
    assert [sent.arguments for sent in log] == expected
    assert expected == [
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"})},
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"}), "created": False},
    ]
    assert all(type(sent.arguments["update_fields"]) is frozenset for sent in log)


def test_a_changed_key_is_in_update_fields(receivers: Receivers) -> None:
    (beacon,) = rows(Beacon, {"code": "a"})
    log = receivers.record(Beacon)
    Beacon.objects.filter(pk=beacon.pk).update(code="b")
    assert [sent.arguments["update_fields"] for sent in log] == [frozenset({"code"})] * 2


@of_every_size
def test_the_same_instance_goes_to_both_signals(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    seen: list[bool] = []

    def stash(instance: Any, **arguments: Any) -> None:
        instance.stashed = instance.pk

    def find(instance: Any, **arguments: Any) -> None:
        seen.append(instance.stashed == instance.pk)

    receivers.connect(pre_save, stash, Ship)
    receivers.connect(post_save, find, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 1)
    assert seen == [True] * 3


def test_pre_save_comes_before_the_write(receivers: Receivers) -> None:
    ships(1)
    stored: list[tuple[int, int]] = []

    def compare(instance: Ship, **arguments: Any) -> None:
        stored.append((instance.speed, column(Ship, "speed")[0]))

    receivers.connect(pre_save, compare, Ship)
    receivers.connect(post_save, compare, Ship)
    Ship.objects.update(speed=9)
    assert stored == [(9, 1), (9, 9)]


# 8. All or nothing.


class Refusal(Exception):
    pass


def _raise_at(receivers: Receivers, signal: Any, call: int) -> None:
    calls = iter(range(1, 100))

    def refuse(instance: Ship, **arguments: Any) -> None:
        if next(calls) == call:
            raise Refusal

    receivers.connect(signal, refuse, Ship)


@of_every_size
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_an_exception_from_any_receiver_leaves_no_row_changed(
    signal: Any, call: int, batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    _raise_at(receivers, signal, call)
    with pytest.raises(Refusal), transaction.atomic(), bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 10)
    assert column(Ship, "speed") == [1, 2, 3]


@of_every_size
def test_an_exception_leaves_no_row_in_flight(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    _raise_at(receivers, pre_save, 2)
    with bulk_signals(batch_size=batch_size):
        with pytest.raises(Refusal), transaction.atomic():
            Ship.objects.update(speed=9)
        log = receivers.record(Ship)
        assert Ship.objects.update(speed=9) == 3
    assert len(log.of("post_save")) == 3


@of_every_size
def test_an_exception_from_the_database_leaves_no_row_changed(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    receivers.record(Ship)
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=batch_size):
        Ship.objects.update(slug="same for all")
    assert column(Ship, "slug") == [None, None, None]


def test_an_exception_spoils_the_surrounding_transaction(
    receivers: Receivers,
) -> None:
    ships(1)
    _raise_at(receivers, post_save, 1)
    with transaction.atomic():
        with pytest.raises(Refusal):
            Ship.objects.update(speed=9)
        assert connection.needs_rollback
    assert column(Ship, "speed") == [1]


@pytest.mark.django_db(transaction=True)
def test_receivers_run_inside_the_transaction_and_on_commit_after_it(receivers: Receivers) -> None:
    ships(1, 2)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        order.append("in" if connection.in_atomic_block else "out")
        transaction.on_commit(lambda: order.append("out" if not connection.in_atomic_block else "in"))

    receivers.connect(pre_save, hook, Ship)
    receivers.connect(post_save, hook, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.update(speed=9)
    assert order == ["in"] * 4 + ["out"] * 4


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_transaction_is_one_of_the_database_written_to(receivers: Receivers) -> None:
    rows(Ship, {"speed": 1}, using="other")
    seen: list[tuple[bool, bool]] = []

    def look(instance: Ship, using: str, **arguments: Any) -> None:
        seen.append((connections[using].in_atomic_block, connection.in_atomic_block))

    receivers.connect(pre_save, look, Ship)
    _raise_at(receivers, post_save, 1)
    with pytest.raises(Refusal):
        Ship.objects.using("other").update(speed=9)
    assert seen == [(True, False)]
    assert column(Ship, "speed", using="other") == [1]


@pytest.mark.django_db(transaction=True)
def test_inside_an_outer_transaction_on_commit_waits_for_that(receivers: Receivers) -> None:
    ships(1)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        transaction.on_commit(lambda: order.append("commit"))

    receivers.connect(post_save, hook, Ship)
    with transaction.atomic():
        Ship.objects.update(speed=9)
        order.append("updated")
    assert order == ["updated", "commit"]


@pytest.mark.django_db(transaction=True)
def test_on_commit_does_not_run_after_an_exception(receivers: Receivers) -> None:
    ships(1, 2)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        transaction.on_commit(lambda: order.append("commit"))

    receivers.connect(pre_save, hook, Ship)
    _raise_at(receivers, post_save, 2)
    with pytest.raises(Refusal):
        Ship.objects.update(speed=9)
    assert order == []
    assert column(Ship, "speed") == [1, 2]


# 9. Batches.


def test_each_batch_gets_its_pre_saves_one_write_and_its_post_saves(receivers: Receivers) -> None:
    ships(1, 2, 3, 4, 5)
    events: list[str] = []

    def note(instance: Ship, signal: Any, **arguments: Any) -> None:
        written = Ship.objects.filter(tonnage=9).count()
        events.append(f"{'pre' if signal is pre_save else 'post'} {instance.name} {written}")

    receivers.connect(pre_save, note, Ship)
    receivers.connect(post_save, note, Ship)
    with bulk_signals(batch_size=2):
        Ship.objects.update(tonnage=9)
    assert events == [
        *("pre a 0", "pre b 0", "post a 2", "post b 2"),
        *("pre c 2", "pre d 2", "post c 4", "post d 4"),
        *("pre e 4", "post e 5"),
    ]


@pytest.mark.parametrize("ordering", [[], ["speed"], ["?"]], ids=["by key", "by column", "at random"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_at_most_batch_size_instances_are_alive(
    batch_size: int, ordering: list[str], receivers: Receivers
) -> None:
    ships(*range(7))
    alive: weakref.WeakSet[Ship] = weakref.WeakSet()
    most = 0

    def born(instance: Ship, **arguments: Any) -> None:
        alive.add(instance)

    def count(instance: Ship, **arguments: Any) -> None:
        nonlocal most
        gc.collect()
        most = max(most, len(alive))

    receivers.connect(post_init, born, Ship)
    receivers.connect(pre_save, count, Ship)
    receivers.connect(post_save, count, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.order_by(*ordering).update(speed=F("speed") + 1) == 7
    assert most == batch_size


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 6])
def test_progress_is_told_after_each_batch(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3, 4, 5)
    receivers.record(Ship)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    with bulk_signals(batch_size=batch_size, progress=progress):
        Ship.objects.update(speed=9)
    assert told == [(min(done, 5), 5) for done in range(batch_size, 5 + batch_size, batch_size)]


# 10. The return value.


def test_the_return_value_is_the_rows_matched_not_the_rows_changed(receivers: Receivers) -> None:
    ships(9, 9, 1)
    receivers.record(Ship)
    assert Ship.objects.update(speed=9) == 3
    assert Ship.objects.filter(speed=9).update(speed=9) == 3


def test_an_evaluated_queryset_is_read_anew_after_the_update(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.record(Ship)
    queryset = Ship.objects.order_by("pk")
    assert [ship.speed for ship in queryset] == [1, 2]
    queryset.update(speed=9)
    assert queryset._result_cache is None
    assert [ship.speed for ship in queryset] == [9, 9]


def test_the_receivers_instances_are_not_the_ones_of_the_cache(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    queryset = Ship.objects.all()
    (held,) = queryset
    queryset.update(speed=9)
    assert log[0].instance is not held
    assert held.speed == 1


def _delete_once(receivers: Receivers, signal: Any, deleter: str, deleted: str) -> None:
    def delete(instance: Ship, **arguments: Any) -> None:
        if instance.name == deleter:
            Ship.objects.filter(name=deleted).delete()

    receivers.connect(signal, delete, Ship)


@of_every_size
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_a_row_that_a_receiver_deleted_gets_no_post_save_and_is_not_counted(
    signal: Any, batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    _delete_once(receivers, signal, "a", "b")
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=F("speed") + 10) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]
    assert column(Ship, "speed") == [11, 13]


@of_every_size
def test_a_receiver_may_delete_its_own_row(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    _delete_once(receivers, pre_save, "b", "b")
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


def test_a_row_deleted_after_its_post_save_counts(receivers: Receivers) -> None:
    ships(1, 2, 3)
    _delete_once(receivers, post_save, "c", "a")
    assert Ship.objects.update(speed=9) == 3


@of_every_size
def test_a_row_deleted_by_raw_means_gets_no_post_save(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)

    def delete(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            doomed = Ship.objects.filter(name="b")
            doomed._raw_delete(using="default")

    receivers.connect(pre_save, delete, Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


# 11. Primary keys may change.


def test_an_instance_carries_its_new_natural_key(receivers: Receivers) -> None:
    rows(Beacon, {"code": "a"}, {"code": "b"})
    log = receivers.record(Beacon)
    assert Beacon.objects.filter(code="a").update(code="z", lit=True) == 1
    assert [sent.instance.pk for sent in log] == ["z", "z"]
    assert log.of("post_save")[0].values == {"code": "z", "lit": True}
    assert list(Beacon.objects.order_by("code").values_list("code", "lit")) == [("b", False), ("z", True)]


@of_every_size
def test_keys_may_change_by_expression(batch_size: int, receivers: Receivers) -> None:
    fleet = ships(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(id=F("id") + 1000, speed=9) == 3
    expected = [ship.pk + 1000 for ship in fleet]
    assert [sent.instance.pk for sent in log.of("pre_save")] == expected
    assert [sent.instance.pk for sent in log.of("post_save")] == expected
    assert column(Ship, "pk") == expected
    assert column(Ship, "speed") == [9, 9, 9]


def test_keys_that_move_up_in_turn_move_as_django_moves_them(receivers: Receivers) -> None:
    ships(1, 2, 3)

    def update() -> int:
        return Ship.objects.order_by("-id").update(id=F("id") + 1)

    with no_bulk_signals():
        expected = refusal(update)
        keys = column(Ship, "pk")
        if expected is None:
            Ship.objects.order_by("id").update(id=F("id") - 1)
    log = receivers.record(Ship)
    got = refusal(update)
    assert (got and got[0]) == (expected and expected[0])
    assert column(Ship, "pk") == keys
    assert [sent.instance.pk for sent in log.of("post_save")] == ([] if expected else keys[::-1])


@of_every_size
def test_keys_may_change_while_receivers_change_the_instance(batch_size: int, receivers: Receivers) -> None:
    rows(Beacon, {"code": "a"}, {"code": "b"})

    def light(instance: Beacon, **arguments: Any) -> None:
        instance.lit = instance.code == "b!"

    receivers.connect(pre_save, light, Beacon)
    log = receivers.record(Beacon)
    with bulk_signals(batch_size=batch_size):
        Beacon.objects.update(code=Concat("code", Value("!")))
    assert list(Beacon.objects.order_by("code").values_list("code", "lit")) == [("a!", False), ("b!", True)]
    assert [sent.values for sent in log.of("post_save")] == [
        {"code": "a!", "lit": False},
        {"code": "b!", "lit": True},
    ]


@of_every_size
@pytest.mark.parametrize("part", ["quay", "day"])
def test_each_part_of_a_composite_key_may_change(part: str, batch_size: int, receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2}, {"quay": 2, "day": 1})
    log = receivers.record(Mooring)
    with bulk_signals(batch_size=batch_size):
        assert Mooring.objects.update(**{part: F(part) + 10, "holder": "me"}) == 3
    expected = [(11, 1), (11, 2), (12, 1)] if part == "quay" else [(1, 11), (1, 12), (2, 11)]
    assert [sent.instance.pk for sent in log.of("post_save")] == expected
    assert list(Mooring.objects.order_by("pk").values_list("pk", "holder")) == [
        (key, "me") for key in expected
    ]


# 12. Every kind of model.


@of_every_size
def test_a_childs_and_its_parents_columns_are_updated_in_one_call(
    batch_size: int, receivers: Receivers
) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title, price=2)
    log = receivers.record(Novel, Book)
    with bulk_signals(batch_size=batch_size):
        assert Novel.objects.update(title="t", plot="twist", price=F("price") + 1) == 2
    assert {sent.sender for sent in log} == {Novel}
    assert log.names().count("post_save") == 2
    for sent in log:
        assert sent.arguments["update_fields"] == {"title", "plot", "price"}
        assert (sent.values["title"], sent.values["plot"], sent.values["price"]) == ("t", "twist", 3)
    assert list(Novel.objects.values_list("title", "plot", "price")) == [("t", "twist", Decimal(3))] * 2


@of_every_size
@pytest.mark.parametrize("values", [{"plot": "twist"}, {"title": "twist"}], ids=["child's", "parent's"])
def test_a_child_is_updated_in_one_of_its_tables(
    values: dict[str, str], batch_size: int, receivers: Receivers
) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title)
    log = receivers.record(Novel)
    with bulk_signals(batch_size=batch_size):
        assert Novel.objects.filter(title="a").update(**values) == 1
    assert log.names() == ["pre_save", "post_save"]
    assert Novel.objects.filter(**values).count() == 1


def test_an_update_of_the_parent_is_the_parents(receivers: Receivers) -> None:
    Novel.objects.create(title="a")
    log = receivers.record(Novel, Book)
    Book.objects.update(title="b")
    assert [sent.sender for sent in log] == [Book, Book]


@of_every_size
def test_receivers_change_columns_of_child_and_parent(batch_size: int, receivers: Receivers) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title)

    def spoil(instance: Novel, **arguments: Any) -> None:
        instance.plot = f"of {instance.title}"
        instance.status = f"is {instance.title}"

    receivers.connect(pre_save, spoil, Novel)
    with bulk_signals(batch_size=batch_size):
        assert Novel.objects.update(price=5) == 2
    assert list(Novel.objects.order_by("pk").values_list("plot", "status", "price")) == [
        ("of a", "is a", Decimal(5)),
        ("of b", "is b", Decimal(5)),
    ]


@of_every_size
def test_rows_with_composite_keys_are_updated(batch_size: int, receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2}, {"quay": 2, "day": 1})
    log = receivers.record(Mooring)
    with bulk_signals(batch_size=batch_size):
        assert Mooring.objects.filter(quay=1).update(holder="me") == 2
    assert [sent.instance.pk for sent in log.of("post_save")] == [(1, 1), (1, 2)]
    assert column(Mooring, "holder") == ["me", "me", ""]


@of_every_size
def test_receivers_change_rows_with_composite_keys(batch_size: int, receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2}, {"quay": 2, "day": 1})

    def sign(instance: Mooring, **arguments: Any) -> None:
        instance.holder += f" at {instance.quay}/{instance.day}"

    receivers.connect(pre_save, sign, Mooring)
    with bulk_signals(batch_size=batch_size):
        Mooring.objects.update(holder="me")
    assert column(Mooring, "holder") == ["me at 1/1", "me at 1/2", "me at 2/1"]


@of_every_size
def test_rows_with_uuid_keys_are_updated_in_the_order_of_their_keys(
    batch_size: int, receivers: Receivers
) -> None:
    keys = [uuid.UUID(int=n) for n in (3, 1, 2)]
    rows(Buoy, *({"id": key} for key in keys))
    log = receivers.record(Buoy)
    with bulk_signals(batch_size=batch_size):
        assert Buoy.objects.update(colour="green") == 3
    assert [sent.instance.pk for sent in log.of("post_save")] == sorted(keys)
    assert column(Buoy, "colour") == ["green"] * 3


@of_every_size
def test_rows_with_natural_keys_are_updated(batch_size: int, receivers: Receivers) -> None:
    rows(Beacon, {"code": "b'"}, {"code": "a%"}, {"code": "ç"})
    log = receivers.record(Beacon)
    with bulk_signals(batch_size=batch_size):
        assert Beacon.objects.update(lit=True) == 3
    assert {sent.instance.pk for sent in log.of("post_save")} == {"a%", "b'", "ç"}
    assert column(Beacon, "lit") == [True, True, True]


def test_a_related_managers_update_is_an_update(receivers: Receivers) -> None:
    publisher = Publisher.objects.create(name="p")
    rows(Book, {"publisher": publisher}, {})
    log = receivers.record(Book)
    assert publisher.books.update(status="sold") == 1
    assert log.names() == ["pre_save", "post_save"]
    assert sorted(column(Book, "status")) == ["draft", "sold"]


def test_filters_over_aggregates_choose_rows(receivers: Receivers) -> None:
    _harbour()
    log = receivers.record(Ship)
    most = Ship.objects.aggregate(mean=Avg("speed"))["mean"]
    assert Ship.objects.annotate(hands=Count("crew")).filter(hands=3, speed__gt=most).update(tonnage=1) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["cc", "AAA"]
