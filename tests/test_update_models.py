"""`update()`: keys that change, and every kind of model (contract.md, sections 1.11 and 1.12)."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import (
    Avg,
    Count,
    F,
    Value,
)
from django.db.models.functions import Concat
from django.db.models.signals import pre_save

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, harbour, of_every_size, rows, ships
from tests.models import (
    Beacon,
    Book,
    Buoy,
    Mooring,
    Novel,
    Publisher,
    Ship,
)
from tests.refusals import refusal

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


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


def test_keys_that_all_move_up_by_one_move_as_in_django(receivers: Receivers) -> None:
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


def test_an_update_of_the_parent_sends_the_parents_signals(receivers: Receivers) -> None:
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
    harbour()
    log = receivers.record(Ship)
    most = Ship.objects.aggregate(mean=Avg("speed"))["mean"]
    assert Ship.objects.annotate(hands=Count("crew")).filter(hands=3, speed__gt=most).update(tonnage=1) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["cc", "AAA"]
