"""`update()`: the rows are chosen once, and in which order (contract.md, section 1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db import connection, transaction
from django.db.models import (
    Count,
    F,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Window,
)
from django.db.models.functions import Length, Lower, Random, RowNumber
from django.db.models.signals import pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, harbour, of_every_size, rows, ships
from tests.models import (
    Port,
    Ship,
)
from tests.refusals import is_refused, reads_its_own_table, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


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
def test_a_queryset_of_any_kind_chooses_each_row_once(
    shape: Callable[[], QuerySet[Any, Any]], batch_size: int, receivers: Receivers
) -> None:
    harbour()
    with bulk_signals(batch_size=batch_size):
        if is_refused(lambda: shape().update(tonnage=7), receivers):
            return
    with no_bulk_signals(), transaction.atomic():
        expected = shape().update(tonnage=7), column(Ship, "tonnage")
        transaction.set_rollback(True)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        matched = shape().update(tonnage=7)
    assert (matched, column(Ship, "tonnage")) == expected
    seen = [sent.instance.pk for sent in log.of("post_save")]
    # Rows that are equal in a queryset's order (such as the years of dates) come in any order.
    ordered = sorted(seen) if shape().query.order_by else seen
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
    harbour()
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        ordered().update(status="docked")
    for signal in ("pre_save", "post_save"):
        assert [sent.values["name"] for sent in log.of(signal)] == expected.split()


class Named(QuerySet[Any]):
    """Accepts keyword arguments only, as Django passes them when it copies a queryset."""

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
    harbour()

    def update() -> int:
        return Ship.objects.annotate(n=Q(speed__gt=1)).order_by("n", "pk").update(status="docked")

    with no_bulk_signals():
        expected = refusal(update)
        Ship.objects.update(status="afloat")
    # MariaDB's UPDATE has an ORDER BY, and Django cannot compile one for a condition.
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
def test_rows_that_are_chosen_randomly_are_chosen_once(
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
def test_signals_follow_the_key_of_randomly_chosen_rows(batch_size: int, receivers: Receivers) -> None:
    ships(*[1] * 40)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        matched = Ship.objects.alias(lot=Random()).filter(lot__lt=0.5).update(tonnage=9)
    seen = [sent.instance.pk for sent in log.of("post_save")]
    assert seen == list(Ship.objects.filter(tonnage=9).order_by("pk").values_list("pk", flat=True))
    assert len(seen) == matched


@pytest.mark.parametrize("turn", [lambda qs: qs.all(), lambda qs: qs.reverse()], ids=["as it is", "reversed"])
def test_the_order_of_meta_does_not_count(
    turn: Callable[[QuerySet[Port]], QuerySet[Port]], receivers: Receivers
) -> None:
    ports = rows(Port, {"code": "A", "name": "a"}, {"code": "C", "name": "c"}, {"code": "B", "name": "b"})
    log = receivers.record(Port)
    turn(Port.objects.all()).update(name="z")
    assert [sent.instance for sent in log.of("pre_save")] == ports


@reads_its_own_table
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
def test_what_is_empty_by_definition_runs_no_query(
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
    """Its `update()` adds something and then calls Django's."""

    def update(self, **values: Any) -> int:
        return super().update(**{**values, "name": "LOUD"})


def test_a_subclass_that_calls_super_sends_one_pair_with_what_it_passed_on(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    assert Shouting(Ship).update(speed=9) == 1
    assert log.names() == ["pre_save", "post_save"]
    assert log[0].arguments["update_fields"] == {"speed", "name"}
    assert column(Ship, "name") == ["LOUD"]


@pytest.mark.parametrize("name", ["only", "defer", "values", "group by", "prefetch", "extra select"])
def test_instances_are_loaded_whole_from_the_database_written_to(name: str, receivers: Receivers) -> None:
    harbour()
    log = receivers.record(Ship)
    SHAPES[name]().update(tonnage=7)
    whole = {field.attname for field in Ship._meta.concrete_fields}
    assert log
    for sent in log:
        assert sent.values.keys() == whole
        assert sent.instance._state.db == "default"
        assert not sent.instance._state.adding
        assert type(sent.instance) is Ship
