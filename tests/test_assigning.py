"""Attributes that refuse assignment. Django's statements write their columns all the same."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import F, Model, Subquery, Value
from django.db.models.functions import Concat, Upper

from signal_patch import bulk_signals
from signal_patch.dispatch.values import columns
from tests.fleet import column, of_every_size, rows
from tests.models import Order, Port, Ship

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


def harbours() -> list[Port]:
    return rows(Port, {"code": "N"}, {"code": "S"})


def orders(**values: Any) -> list[Order]:
    return rows(Order, *({"label": label, **values} for label in "abc"))


VALUES: dict[str, Callable[[Port], tuple[dict[str, Any], str, list[Any]]]] = {
    "constant": lambda port: ({"state": "paid"}, "state", ["paid"] * 3),
    "choice": lambda port: ({"state": Order.State.PAID}, "state", ["paid"] * 3),
    "expression": lambda port: ({"label": Concat("label", Value("!"))}, "label", ["a!", "b!", "c!"]),
    "function": lambda port: ({"state": Upper("state")}, "state", ["NEW"] * 3),
    "subquery": lambda port: (
        {"label": Subquery(Port.objects.order_by("-code").values("code")[:1])},
        "label",
        ["S"] * 3,
    ),
    "related object": lambda port: ({"port": port}, "port_id", [port.pk] * 3),
    "related key": lambda port: ({"port_id": port.pk}, "port_id", [port.pk] * 3),
    "none": lambda port: ({"port": None}, "port_id", [None] * 3),
}


@of_every_size
@pytest.mark.parametrize("given", VALUES.values(), ids=VALUES)
def test_an_update_shows_and_writes_a_value_that_the_attribute_refuses(
    given: Callable[[Port], tuple[dict[str, Any], str, list[Any]]], batch_size: int, receivers: Receivers
) -> None:
    north, south = harbours()
    orders(port=north)
    values, name, expected = given(south)
    log = receivers.record(Order)
    truth = receivers.check_truth(Order)
    with bulk_signals(batch_size=batch_size):
        assert Order.objects.update(**values) == 3
    assert column(Order, name) == expected
    assert [sent.values[name] for sent in log.of("pre_save")] == expected
    assert truth == [True] * 3


def test_a_stale_cached_object_is_dropped_though_its_key_refuses_assignment(receivers: Receivers) -> None:
    north, south = harbours()
    (order, *_) = orders(port=north)
    assert order.port == north
    columns.assign(order, Order._meta.get_field("port"), south.pk)
    assert order.port == south


def test_a_bulk_update_takes_a_choice_for_a_state(receivers: Receivers) -> None:
    made = rows(Order, {"state": Order.State.PAID, "note": "old"})
    truth = receivers.check_truth(Order)
    made[0].note = "new"
    assert Order.objects.bulk_update(made, ["state", "note"]) == 1
    assert (column(Order, "state"), column(Order, "note")) == (["paid"], ["new"])
    assert type(made[0].state) is str
    assert truth == [True]


def test_a_bulk_update_takes_an_expression_for_a_state(receivers: Receivers) -> None:
    (order, *_) = rows(Order, {"label": "a"})
    fresh = Order(pk=order.pk, state=Upper("state"), label=Concat("label", Value("!")))
    log = receivers.record(Order)
    truth = receivers.check_truth(Order)
    Order.objects.bulk_update([fresh], ["state", "label"])
    assert (column(Order, "state"), column(Order, "label")) == (["NEW"], ["a!"])
    assert [(sent.values["state"], sent.values["label"]) for sent in log] == [("NEW", "a!")] * 2
    assert truth == [True]


def test_an_upsert_that_updates_a_row_shows_its_protected_state(receivers: Receivers) -> None:
    (order,) = rows(Order, {"state": "paid", "label": "old", "note": "old"})
    log = receivers.record(Order)
    truth = receivers.check_truth(Order)
    again, other = Order(pk=order.pk, note="again"), Order(pk=order.pk + 1, note="first")
    target: dict[str, Any] = (
        {"unique_fields": ["id"]} if connection.features.supports_update_conflicts_with_target else {}
    )
    Order.objects.bulk_create([again, other], update_conflicts=True, update_fields=["note"], **target)
    assert [sent.arguments["created"] for sent in log.of("post_save")] == [False, True]
    assert (column(Order, "state"), column(Order, "note")) == (["paid", "new"], ["again", "first"])
    assert (again.state, again.label) == ("paid", "old")
    assert truth == [True, True]


def test_a_state_that_a_receiver_sets_by_force_is_saved(receivers: Receivers) -> None:
    orders()

    def pay(order: Order) -> None:
        order.__dict__["state"] = Order.State.PAID

    receivers.before_saves(Order, pay)
    log = receivers.record(Order)
    truth = receivers.check_truth(Order)
    Order.objects.update(note="new")
    assert column(Order, "state") == ["paid"] * 3
    assert {sent.arguments["update_fields"] for sent in log.of("post_save")} == {frozenset({"note", "state"})}
    assert truth == [True] * 3


@pytest.mark.parametrize(
    ("held", "value"),
    [(Decimal("1.5"), Decimal("1.50")), (1, True), (None, 0), ("1", 1)],
    ids=["scale", "type", "none", "text"],
)
def test_an_equal_value_in_another_form_is_assigned(held: Any, value: Any) -> None:
    ship = Ship(speed=held)
    columns.assign_if_different(ship, Ship._meta.get_field("speed"), value)
    assert ship.speed is value


def test_a_value_that_the_instance_already_holds_is_not_assigned() -> None:
    assigned = []

    class Watched(Ship):
        def __setattr__(self, name: str, value: Any) -> None:
            assigned.append(name)
            super().__setattr__(name, value)

        class Meta:
            proxy = True
            app_label = "tests"

    ship: Model = Watched(speed=5)
    assigned.clear()
    for value in (5, 6):
        columns.assign_if_different(ship, Ship._meta.get_field("speed"), value)
    assert assigned == ["speed"]


def test_other_columns_are_written_by_expressions_beside_a_protected_one(receivers: Receivers) -> None:
    orders(price=2)
    receivers.record(Order)
    Order.objects.update(state="paid", price=F("price") + 1)
    assert column(Order, "price") == [Decimal("3.00")] * 3
