"""Differences that the oracle has found, kept as ordinary tests."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import (
    Case,
    Count,
    F,
    OuterRef,
    QuerySet,
    SmallIntegerField,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, Concat, RowNumber, Upper
from django.db.models.signals import pre_save
from django.utils import timezone

from signal_patch import bulk_signals
from tests.database import is_mysql
from tests.parity.models import Berth, Ferry, Harbour, Ship, Wide
from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db


def test_a_composite_key_is_whole_beside_annotations(log: Log) -> None:
    for number in (1, 2):
        Berth.objects.create(dock="a", number=number)
    log.clear()
    ranked = Berth.objects.annotate(place=Window(RowNumber())).annotate(upper=Upper("note"))
    subquery = Subquery(Berth.objects.filter(pk=OuterRef("pk")).values("rank")[:1])
    # MySQL's UPDATE cannot read the table that it writes.
    same: Any = F("rank") if is_mysql() else subquery
    with bulk_signals():
        assert ranked.order_by("-upper", "pk").update(rank=1) == 2
        assert ranked.order_by("-upper", "pk").distinct().update(rank=1) == 2
        assert ranked.order_by("-upper", "pk").update(rank=same) == 2
        assert ranked.values("place").update(rank=1) == 2
    assert [sent.values["number"] for sent in log.of("post_save")] == [1, 2] * 4


def test_a_whole_number_of_a_column_of_floats_is_a_float(log: Log) -> None:
    Wide.objects.create(floating=1.5)
    log.clear()
    with bulk_signals():
        Wide.objects.update(floating=F("floating") * 2)
    assert [type(sent.values["floating"]) for sent in log] == [float, float]


def test_a_composite_key_stands_beside_a_column_that_is_converted(log: Log) -> None:
    for number in (1, 2):
        Berth.objects.create(dock="a", number=number, log=["x"])
    log.clear()
    with bulk_signals():
        assert Berth.objects.update(log=F("log")) == 2
    assert [(sent.values["number"], sent.values["log"]) for sent in log.of("post_save")] == [
        (1, ["x"]),
        (2, ["x"]),
    ]


def _outcome(queryset: QuerySet[Any], **values: Any) -> str:
    try:
        with transaction.atomic():
            return str(queryset.update(**values))
    except DatabaseError as error:
        return repr(error)


def test_locks_of_the_caller_are_refused_where_django_refuses_them(log: Log) -> None:
    harbour = Harbour.objects.create(code="A", number=1)
    Berth.objects.create(dock="a", number=1, rank=1)
    log.clear()
    following = Berth.objects.filter(rank__gt=OuterRef("rank")).order_by("rank").values("log")[:1]
    for queryset, values in (
        (Ferry.objects.annotate(total=Count("note")).select_for_update(), {"memo": "x"}),
        (
            Berth.objects.annotate(total=Count("note")).filter(rank__gte=1).select_for_update(),
            {"log": Coalesce(Subquery(following), F("log"))},
        ),
        (Harbour.objects.filter(pk=harbour.pk).select_for_update(), {"log": ["b"]}),
    ):
        vanilla = _outcome(queryset, **values)
        with bulk_signals(lock=False):
            assert _outcome(queryset, **values) == vanilla


def test_a_model_with_binary_columns_can_be_updated(receivers: Receivers) -> None:
    Wide.objects.create(binary=b"abc")
    log = receivers.record(Wide)
    with bulk_signals():
        assert Wide.objects.update(rank=0) == 1
        assert Wide.objects.update(binary=memoryview(b"y")) == 1
    assert bytes(log.of("post_save")[-1].values["binary"]) == b"y"


@pytest.mark.skipif("connection.vendor == 'mysql'", reason="Django's own statement is malformed there")
def test_an_annotation_over_a_parents_column_can_give_the_order(log: Log) -> None:
    Ferry.objects.create()
    log.clear()
    with bulk_signals():
        queryset = Ferry.objects.annotate(next_rank=F("rank") + 1).order_by("next_rank", "pk")
        assert queryset.update(log=["a"]) == 1
    assert log.names() == ["pre_save", "post_save"]


def test_a_named_field_that_a_receiver_changed_wins_over_the_callers_expression(
    receivers: Receivers,
) -> None:
    harbour = Harbour.objects.create(code="A", number=1, log=["a"])

    def append(instance: Harbour, **arguments: Any) -> None:
        instance.log.append("b")

    harbour.log = F("log")
    receivers.connect(pre_save, append, Harbour)
    with bulk_signals(write_back=False):
        Harbour.objects.bulk_update([harbour], ["log"])
    assert Harbour.objects.get().log == ["a", "b"]


def test_a_case_of_times_arrives_as_a_time(receivers: Receivers) -> None:
    Ship.objects.create(registry=Harbour.objects.create(code="A", number=1), rank=2)
    moment = timezone.now().replace(microsecond=0)
    log = receivers.record(Ship)
    with bulk_signals():
        Ship.objects.update(touched=Case(When(rank__gt=1, then=Value(moment)), default=F("touched")))
    assert [sent.values["touched"] for sent in log] == [moment, moment]


def test_a_decimal_expression_may_be_null(receivers: Receivers) -> None:
    Wide.objects.create(decimal_null=None)
    log = receivers.record(Wide)
    with bulk_signals():
        Wide.objects.update(decimal_null=F("decimal_null") + 1)
    assert [sent.values["decimal_null"] for sent in log] == [None, None]


def test_an_ip_address_is_what_the_row_holds(receivers: Receivers) -> None:
    Wide.objects.create()
    log = receivers.record(Wide)
    with bulk_signals():
        Wide.objects.update(ip="::ffff:10.0.0.2")
    assert log[-1].values["ip"] == Wide.objects.get().ip


@pytest.mark.parametrize("order", [F("number").desc(), F("number") * -1, "-number", "-same", "downwards"])
def test_an_order_that_keeps_unique_values_apart_reaches_the_write(log: Log, order: Any) -> None:
    for number in (1, 2):
        Harbour.objects.create(code=str(number), number=number)
    log.clear()
    queryset = Harbour.objects.annotate(same=F("number"), downwards=F("number").desc()).order_by(
        order, "code"
    )
    with bulk_signals(batch_size=1 if connection.vendor != "mysql" else 2):
        # Only MariaDB and MySQL can do it in one statement, because they have UPDATE … ORDER BY.
        assert queryset.update(number=F("number") + 1) == 2
    assert [sent.values["code"] for sent in log.of("post_save")] == ["2", "1"]


def test_what_only_django_refuses_is_refused_first(log: Log) -> None:
    ferry = Ferry.objects.create(rank=2, decks=3)
    log.clear()
    # Its first statement, on the child's table, does not have the parent's column.
    decks = Case(When(rank__gt=1, then=Value(None)), default=F("decks"))
    with pytest.raises(ValueError, match="rank"), transaction.atomic(), bulk_signals():
        Ferry.objects.update(decks=decks, rank="abc")
    assert not log
    ferry.refresh_from_db()
    assert (ferry.rank, ferry.decks) == (2, 3)


# What a receiver changes, and what the caller writes.
RANK = ({"rank": 0}, {"rank": F("rank"), "note": Concat(F("rank"), Value("!"))})
CHAIN = ({"rank": 0}, {"rank": F("number"), "length": F("rank"), "note": Concat(F("length"), Value("!"))})
KEY = ({"memo": "x"}, {"number": F("number") + 5, "note": Concat(F("number"), Value("!"))})


@pytest.mark.parametrize(
    ("by", "changed", "values"),
    [
        ("update", *RANK),
        ("update", *CHAIN),
        ("update", *KEY),
        ("bulk_update", *RANK),
        ("bulk_update", *CHAIN),
    ],
)
def test_what_pre_save_announced_is_written_whatever_a_receiver_changes(
    receivers: Receivers, by: str, changed: dict[str, Any], values: dict[str, Any]
) -> None:
    # MariaDB assigns from left to right, so the expressions would see what a receiver has set.
    berths = [Berth.objects.create(dock="a", number=number, rank=3) for number in (1, 20)]
    log = receivers.record(Berth)
    receivers.before_saves(Berth, lambda instance: vars(instance).update(changed))
    with bulk_signals():
        if by == "update":
            assert Berth.objects.update(**values) == 2
        else:
            for berth in berths:
                vars(berth).update(values)
            assert Berth.objects.bulk_update(berths, [*values]) == 2
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2
    stored: list[dict[str, Any]] = [*map(dict, Berth.objects.order_by("pk").values())]
    written = {*values, *changed}
    for announced, seen, row in zip(log, log[2:], stored, strict=False):
        assert {name: row[name] for name in written} == {
            name: {**announced.values, **changed}[name] for name in written
        }
        assert seen.values == {name: row[name] for name in seen.values}


@pytest.mark.parametrize("rank", [9, 0], ids=["no row", "a row"])
@pytest.mark.parametrize("lock", [True, False])
def test_a_parents_column_that_the_filter_joins_once_more(lock: bool, rank: int, log: Log) -> None:
    """Django's statement names a table that it does not contain, which only matters if a row matches."""
    harbour = Harbour.objects.create(code="A", number=1)
    Ferry.objects.create(route=harbour, rank=rank)
    log.clear()

    def update() -> str:
        ferries = Ferry.objects.filter(route__ferries__rank__gte=0).filter(rank__lt=3)
        decks = Case(When(rank__gt=1, then="decks"), default=Value(7), output_field=SmallIntegerField())
        return _outcome(ferries, rank=0, decks=decks)

    expected = update()
    with bulk_signals(lock=lock):
        assert update() == expected
    assert not log
