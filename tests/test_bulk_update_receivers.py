"""`bulk_update()`: what receivers change is saved (contract.md, sections 1.7 and 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db.models import (
    F,
)
from django.db.models.functions import Upper

from signal_patch import bulk_signals
from tests.fleet import column, faster_ships, of_every_size, rows
from tests.models import (
    Ship,
    Signpost,
)

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@of_every_size
def test_what_receivers_change_is_saved(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3, notes=["old"])

    def change(ship: Ship) -> None:
        if ship.name != "b":
            ship.slug = f"slug-{ship.name}"
            ship.speed += 1
            ship.notes.append(ship.name)

    receivers.before_saves(Ship, change)
    log = receivers.record(Ship)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 3
    assert column(Ship, "slug") == ["slug-a", None, "slug-c"]
    assert column(Ship, "speed") == [11, 20, 31]
    assert column(Ship, "notes") == [["old", "a"], ["old"], ["old", "c"]]
    assert [sent.arguments["update_fields"] for sent in log.of("post_save")] == [
        {"speed", "slug", "notes"},
        {"speed"},
        {"speed", "slug", "notes"},
    ]
    assert truth == [True] * 3


def test_what_the_caller_changed_but_did_not_name_is_not_saved(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    for ship in fleet:
        ship.name = "changed"
    receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "name") == ["a", "b"]


@of_every_size
def test_without_write_back_only_named_fields_are_saved(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)

    def change(ship: Ship) -> None:
        ship.speed += 1
        ship.name = "changed"

    receivers.before_saves(Ship, change)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size, write_back=False):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "speed") == [11, 21]
    assert column(Ship, "name") == ["a", "b"]
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"speed"})}


@of_every_size
def test_a_receiver_may_replace_an_expression(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    for ship in fleet:
        ship.speed = F("speed") + 100

    def halve(ship: Ship) -> None:
        if ship.name == "a":
            ship.speed = ship.speed // 2

    receivers.before_saves(Ship, halve)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "speed") == [50, 102]
    assert truth == [True, True]


@of_every_size
def test_a_receiver_may_set_an_expression(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)

    def change(ship: Ship) -> None:
        ship.name = Upper("name")
        if ship.speed == 10:
            ship.speed = F("speed") - 1

    receivers.before_saves(Ship, change)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "name") == ["A", "B"]
    assert column(Ship, "speed") == [0, 20]
    assert truth == [True, True]


@of_every_size
@pytest.mark.parametrize("names", [["height"], ["height", "text"]], ids=["unnamed", "named"])
def test_a_receivers_change_is_saved_as_the_field_prepares_it(
    names: list[str], batch_size: int, receivers: Receivers
) -> None:
    posts = rows(Signpost, {"text": "a"}, {"text": "b"}, {"text": "c"})

    def spread(post: Signpost) -> None:
        if post.text != "b":
            post.text = f"  to {post.text} "

    receivers.before_saves(Signpost, spread)
    truth = receivers.check_truth(Signpost)
    with bulk_signals(batch_size=batch_size):
        Signpost.objects.bulk_update(posts, names)
    assert column(Signpost, "text") == ["to a", "b", "to c"]
    assert truth == [True] * 3


def test_if_a_key_is_given_twice_each_instance_keeps_its_own_change(receivers: Receivers) -> None:
    (post,) = rows(Signpost, {"text": "a"})
    twice = [Signpost(pk=post.pk, text="a", height=height) for height in (1, 2)]
    receivers.before_saves(Signpost, lambda post: setattr(post, "text", f"{post.height} miles"))
    Signpost.objects.bulk_update(twice, ["height"])
    assert list(Signpost.objects.values_list("text", "height")) == [("1 miles", 1)]


def test_an_expression_that_a_receiver_sets_is_a_change_even_if_it_equals_the_old_one(
    receivers: Receivers,
) -> None:
    fleet = faster_ships(1, 2, tonnage=5)
    fleet[0].tonnage = F("tonnage") + 1
    fleet[1].tonnage = F("tonnage") + 1

    def load(ship: Ship) -> None:
        if ship.name == "a":
            ship.tonnage = F("tonnage") + 1

    receivers.before_saves(Ship, load)
    log = receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "tonnage") == [6, 5]
    assert log.of("post_save")[0].values["tonnage"] == 6
