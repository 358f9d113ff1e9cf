"""`bulk_update()`: the signals of a loop, on the caller's own instances (contract, sections 4 and 7)."""

from __future__ import annotations

import datetime
import gc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.base import ContentFile
from django.db import IntegrityError, connection, transaction
from django.db.models import (
    Case,
    CharField,
    F,
    JSONField,
    Model,
    OuterRef,
    QuerySet,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import Cast, Coalesce, Concat, Now, RowNumber, Upper
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from signal_patch import bulk_signals, no_bulk_signals
from tests.fields import Point
from tests.fleet import LAUNCH, column, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    BookProxy,
    Cargo,
    Chart,
    Mooring,
    Novel,
    Port,
    Ship,
    Sighting,
    Signpost,
    Strongbox,
    Survey,
    Wreck,
)
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal

    from tests.recording import Log, Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

of_every_size = pytest.mark.parametrize("batch_size", [1, 2, 2000])


def _fleet(*speeds: int, **values: Any) -> list[Ship]:
    """Return ships as loaded from the database, each going ten times as fast as its row says."""
    ships(*speeds, **values)
    fleet = list(Ship.objects.order_by("pk"))
    for ship in fleet:
        ship.speed *= 10
    return fleet


@of_every_size
def test_each_of_the_callers_own_instances_gets_one_pair(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed", "berth"]) == 3
    for signal in ("pre_save", "post_save"):
        assert all(sent.instance is ship for sent, ship in zip(log.of(signal), fleet, strict=True))
    assert column(Ship, "speed") == [10, 20, 30]


def test_signals_carry_the_arguments_of_save(receivers: Receivers) -> None:
    fleet = _fleet(1)
    log = receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["speed", "berth"])
    assert [sent.arguments for sent in log] == [
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"})},
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"}), "created": False},
    ]
    assert all(type(sent.arguments["update_fields"]) is frozenset for sent in log)


def test_pre_save_comes_before_the_write(receivers: Receivers) -> None:
    fleet = _fleet(1)
    stored: list[tuple[int, int]] = []

    def compare(instance: Ship, **arguments: Any) -> None:
        stored.append((instance.speed, column(Ship, "speed")[0]))

    receivers.connect(pre_save, compare, Ship)
    receivers.connect(post_save, compare, Ship)
    Ship.objects.bulk_update(fleet, ["speed"])
    assert stored == [(10, 1), (10, 10)]


def test_proxies_of_instances_are_told_of_as_a_save_tells_of_them(receivers: Receivers) -> None:
    first, second = _fleet(1, 2)
    log = receivers.record(Ship)
    objs: list[Any] = [SimpleLazyObject(lambda: first), second]
    assert Ship.objects.bulk_update(objs, ["speed"]) == 2
    assert [sent.instance for sent in log.of("post_save")] == [first, second]
    assert log[0].instance is first
    assert column(Ship, "speed") == [10, 20]


@of_every_size
def test_generators_are_read_once(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        matched = Ship.objects.bulk_update((ship for ship in fleet), (name for name in ("speed", "name")))
    assert matched == 3
    assert column(Ship, "speed") == [10, 20, 30]
    assert log.names().count("post_save") == 3


@pytest.mark.parametrize("own", [None, 1, 2, 100])
@of_every_size
def test_the_callers_batch_size_changes_no_signal(
    batch_size: int, own: int | None, receivers: Receivers
) -> None:
    fleet = _fleet(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"], batch_size=own) == 3
    assert column(Ship, "speed") == [10, 20, 30]
    assert [sent.instance for sent in log.of("post_save")] == fleet


def test_signals_follow_the_callers_order(receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)[::-1]
    log = receivers.record(Ship)
    with bulk_signals(batch_size=2):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert [sent.instance for sent in log.of("pre_save")] == fleet
    assert [sent.instance for sent in log.of("post_save")] == fleet


REFUSED: dict[str, Callable[[QuerySet[Any], list[Ship]], int]] = {
    "no fields": lambda qs, fleet: qs.bulk_update(fleet, []),
    "unknown field": lambda qs, fleet: qs.bulk_update(fleet, ["sped"]),
    "reverse relation": lambda qs, fleet: qs.bulk_update(fleet, ["crew"]),
    "primary key": lambda qs, fleet: qs.bulk_update(fleet, ["id"]),
    "negative batch size": lambda qs, fleet: qs.bulk_update(fleet, ["speed"], batch_size=-1),
    "no batch size": lambda qs, fleet: qs.bulk_update(fleet, ["speed"], batch_size=0),
    "no primary key": lambda qs, fleet: qs.bulk_update([*fleet, Ship()], ["speed"]),
    "sliced": lambda qs, fleet: qs[:1].bulk_update(fleet, ["speed"]),
    "combined": lambda qs, fleet: qs.union(qs).bulk_update(fleet, ["speed"]),
    "unsaved related object": lambda qs, fleet: qs.bulk_update(
        [*fleet, Ship(pk=99, berth=Berth())], ["berth"]
    ),
    "joined expression": lambda qs, fleet: qs.bulk_update(
        [*fleet, Ship(pk=99, speed=F("berth__number"))], ["speed"]
    ),
    "unknown column": lambda qs, fleet: qs.bulk_update([*fleet, Ship(pk=99, speed=F("sped"))], ["speed"]),
    "wrong type": lambda qs, fleet: qs.bulk_update([*fleet, Ship(pk=99, speed="fast")], ["speed"]),
    "missing argument": lambda qs, fleet: qs.bulk_update(fleet),  # type: ignore[call-arg]  # the mistake
    "no objects": lambda qs, fleet: qs.bulk_update(None, ["speed"]),  # type: ignore[arg-type]  # the mistake
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_refusals_come_before_any_signal(
    refused: Callable[[QuerySet[Any], list[Ship]], int], receivers: Receivers
) -> None:
    fleet = _fleet(1, 2)
    log = receivers.record(Ship)
    with no_bulk_signals():
        expected = refusal(lambda: refused(Ship.objects.all(), fleet))
    with bulk_signals(batch_size=1):
        assert refusal(lambda: refused(Ship.objects.all(), fleet)) == expected
    assert log == []
    assert column(Ship, "speed") == [1, 2]


def test_no_objects_send_nothing(log: Log) -> None:
    assert Ship.objects.bulk_update([], ["speed"]) == 0
    assert log == []


def test_where_nobody_listens_djangos_own_statements_run(receivers: Receivers) -> None:
    fleet = _fleet(1, 2)
    receivers.record(Port)
    with no_bulk_signals(), CaptureQueriesContext(connection) as djangos:
        Ship.objects.bulk_update(fleet, ["speed"])
    with CaptureQueriesContext(connection) as ours:
        Ship.objects.bulk_update(fleet, ["speed"])
    assert [query["sql"] for query in ours] == [query["sql"] for query in djangos]


# Expressions become values.


@of_every_size
def test_expressions_are_values_before_and_after_the_write(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3, tonnage=5)
    fleet[0].speed = F("speed") + 100
    fleet[1].name = Concat("name", Value("!"))
    fleet[2].price = F("speed") * Decimal("1.5")
    fleet[2].status = Case(When(name="c", then=Value("sunk")))
    log = receivers.record(Ship)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["price", "speed", "name", "status"]) == 3
    for signal in ("pre_save", "post_save"):
        values = [sent.values for sent in log.of(signal)]
        assert [value["speed"] for value in values] == [101, 20, 30]
        assert [value["name"] for value in values] == ["a", "b!", "c"]
        assert [value["status"] for value in values] == ["afloat", "afloat", "sunk"]
        assert str(values[2]["price"]) == "4.50"
    assert column(Ship, "speed") == [101, 20, 30]
    assert truth == [True] * 3


@pytest.mark.parametrize("names", [["speed", "tonnage"], ["tonnage", "speed"]])
@of_every_size
def test_expressions_over_each_other_are_told_as_the_databases_own_set_has_them(
    names: list[str], batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(1, 2, 3, tonnage=10)
    fleet[0].speed, fleet[0].tonnage = F("tonnage"), F("speed")
    fleet[1].speed, fleet[1].tonnage = F("tonnage") + F("speed"), 7
    fleet[2].speed, fleet[2].tonnage = 5, F("speed") * 2
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, names)
    held = list(Ship.objects.order_by("pk").values_list("speed", "tonnage"))
    for signal in ("pre_save", "post_save"):
        assert [(sent.values["speed"], sent.values["tonnage"]) for sent in log.of(signal)] == held


@of_every_size
def test_expressions_that_read_other_rows_count_before_the_first_write(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = _fleet(1, 2, 3)
    for ship in fleet:
        other = Ship.objects.exclude(pk=OuterRef("pk")).order_by("-speed")
        ship.speed = Subquery(other.values("speed")[:1])
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "speed") == [3, 3, 2]
    assert truth == [True] * 3


def test_a_value_that_is_empty_by_definition_is_null(receivers: Receivers) -> None:
    ships(1, 2)
    fleet = list(Ship.objects.order_by("pk"))
    fleet[0].slug = Subquery(Port.objects.none().values("name"))
    fleet[1].slug = "b"
    truth = receivers.check_truth(Ship)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["slug"]) == 2
    assert [sent.values["slug"] for sent in log] == [None, "b"] * 2
    assert column(Ship, "slug") == [None, "b"]
    assert truth == [True, True]


@of_every_size
def test_a_null_of_json_that_is_of_another_row_stays_one(batch_size: int, receivers: Receivers) -> None:
    other, *_ = rows(Survey, {"findings": Value(None, JSONField())}, {}, {})
    surveys = list(Survey.objects.exclude(pk=other.pk))
    truth = receivers.check_truth(Survey)
    for survey in surveys:
        survey.findings = Subquery(Survey.objects.filter(pk=other.pk).values("findings"))
    with bulk_signals(batch_size=batch_size):
        Survey.objects.bulk_update(surveys, ["findings"])
    assert not Survey.objects.filter(findings__isnull=True).exists()
    assert truth == [True, True]


def test_what_the_database_alone_decides_is_read_again(receivers: Receivers) -> None:
    fleet = _fleet(1, 2)
    for ship in fleet:
        ship.launched = Now()
    truth = receivers.check_truth(Ship)
    Ship.objects.bulk_update(fleet, ["launched"])
    # The speed is not named, and so is not the row's.
    for ship in fleet:
        assert ship.launched == Ship.objects.get(pk=ship.pk).launched
    assert len(truth) == 2


def test_generated_columns_are_read_again(receivers: Receivers) -> None:
    rows(Cargo, {"weight": 1, "amount": 3}, {"weight": 1, "amount": 4})
    lots = list(Cargo.objects.order_by("pk"))
    for cargo in lots:
        cargo.weight = 10
    truth = receivers.check_truth(Cargo)
    Cargo.objects.bulk_update(lots, ["weight"])
    assert [cargo.total for cargo in lots] == [30, 40]
    assert truth == [True, True]


CONSTANTS: dict[str, Any] = {
    "speed": "7",
    "name": 7,
    "status": Ship.Status.SUNK,
    "price": Decimal(15),
    "notes": ("a", {1: 2}),
    "launched": "2020-01-02T03:04:05Z",
    "slug": None,
    "tonnage": True,
}


@of_every_size
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_become_the_fields_python_type(name: str, batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, launched=LAUNCH)
    fleet = list(Ship.objects.order_by("pk"))
    for ship in fleet:
        setattr(ship, name, CONSTANTS[name])
    truth = receivers.check_truth(Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, [name])
    assert truth == [True, True]
    for sent in log:
        assert type(sent.values[name]) is type(column(Ship, name)[0])
        assert str(sent.values[name]) == str(column(Ship, name)[0])


def test_an_auto_now_field_is_written_as_it_is_as_django_does(receivers: Receivers) -> None:
    fleet = _fleet(1)
    fleet[0].changed = LAUNCH
    receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["changed"])
    assert column(Ship, "changed") == [LAUNCH]
    assert column(Ship, "speed") == [1]


# What receivers change.


@of_every_size
def test_what_receivers_change_is_saved(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3, notes=["old"])

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
    fleet = _fleet(1, 2)
    for ship in fleet:
        ship.name = "changed"
    receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "name") == ["a", "b"]


@of_every_size
def test_without_write_back_only_named_fields_are_saved(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2)

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
    fleet = _fleet(1, 2)
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
    fleet = _fleet(1, 2)

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
def test_what_a_field_makes_of_a_receivers_change_is_saved(
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


def test_of_a_key_given_twice_each_instances_change_stays_its_own(receivers: Receivers) -> None:
    (post,) = rows(Signpost, {"text": "a"})
    twice = [Signpost(pk=post.pk, text="a", height=height) for height in (1, 2)]
    receivers.before_saves(Signpost, lambda post: setattr(post, "text", f"{post.height} miles"))
    Signpost.objects.bulk_update(twice, ["height"])
    assert list(Signpost.objects.values_list("text", "height")) == [("1 miles", 1)]


def test_an_expression_that_a_receiver_sets_is_a_change_though_an_equal_one_was_there(
    receivers: Receivers,
) -> None:
    fleet = _fleet(1, 2, tonnage=5)
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


# Which rows.


@of_every_size
def test_an_instance_without_a_row_gets_pre_save_and_no_post_save(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = _fleet(1, 2, 3)
    with no_bulk_signals():
        Ship.objects.filter(name="b").delete()
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 2
    assert [sent.values["name"] for sent in log.of("pre_save")] == ["a", "b", "c"]
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


@of_every_size
def test_the_querysets_filter_holds_though_the_write_undoes_it(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(speed__lt=3).bulk_update(fleet, ["speed"]) == 2
    assert column(Ship, "speed") == [10, 20, 3]
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "b"]


@of_every_size
def test_what_receivers_change_is_saved_for_the_rows_of_the_filter_alone(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = _fleet(1, 2, 3)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "tonnage", 7))
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(speed__lt=3).bulk_update(fleet, ["speed"]) == 2
    assert column(Ship, "tonnage") == [7, 7, 0]


@of_every_size
def test_a_row_that_a_receiver_deleted_gets_no_post_save(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)

    def delete(ship: Ship) -> None:
        if ship.name == "a":
            Ship.objects.filter(name="b").delete()

    receivers.before_saves(Ship, delete)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


@of_every_size
def test_a_row_deleted_in_post_save_is_not_counted(batch_size: int, receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)

    def delete(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            Ship.objects.filter(name="b").delete()

    receivers.connect(post_save, delete, Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


@pytest.mark.django_db(databases=["default", "other"])
def test_the_database_written_to_is_the_one_of_the_signals(receivers: Receivers) -> None:
    rows(Ship, {"name": "there"}, using="other")
    fleet = list(Ship.objects.using("other"))
    fleet[0].speed = F("speed") + 9
    log = receivers.record(Ship)
    assert Ship.objects.using("other").bulk_update(fleet, ["speed"]) == 1
    assert [sent.arguments["using"] for sent in log] == ["other", "other"]
    assert column(Ship, "speed", using="other") == [9]


@pytest.mark.django_db(databases=["default", "other"])
def test_an_instance_that_nobody_loaded_is_that_of_its_row_after_the_write(receivers: Receivers) -> None:
    (row,) = rows(Ship, {"name": "there"}, using="other")
    fleet = [Ship(pk=row.pk, speed=9), Ship(pk=row.pk + 1, speed=9)]
    states: list[tuple[Any, ...]] = []

    def note(instance: Ship, **arguments: Any) -> None:
        states.append((instance._state.adding, instance._state.db))

    receivers.connect(pre_save, note, Ship)
    receivers.connect(post_save, note, Ship)
    assert Ship.objects.using("other").bulk_update(fleet, ["speed"]) == 1
    assert states == [(True, None), (True, None), (False, "other")]
    assert fleet[1]._state.adding


# All or nothing.


class Refusal(Exception):
    pass


def _refusing(call: int) -> Callable[..., None]:
    """Return a receiver that raises when it is called so many times."""
    calls = iter(range(1, 100))

    def refuse(instance: Ship, **arguments: Any) -> None:
        if next(calls) == call:
            raise Refusal

    return refuse


@of_every_size
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_an_exception_from_any_receiver_leaves_no_row_changed(
    signal: Any, call: int, batch_size: int, receivers: Receivers
) -> None:
    fleet = _fleet(1, 2, 3)
    receivers.connect(signal, _refusing(call), Ship)
    with bulk_signals(batch_size=batch_size):
        with pytest.raises(Refusal), transaction.atomic():
            Ship.objects.bulk_update(fleet, ["speed"])
        assert column(Ship, "speed") == [1, 2, 3]
        log = receivers.record(Ship)
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 3
    assert len(log.of("post_save")) == 3


@of_every_size
@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_after_an_exception_the_instances_have_their_expressions_again(
    signal: Any, call: int, batch_size: int, receivers: Receivers
) -> None:
    fleet = _fleet(1, 2, 3)
    for ship in fleet:
        ship.speed = F("speed") + 1
        ship.tonnage = Subquery(Ship.objects.order_by("-speed").values("speed")[:1])
    receivers.connect(signal, _refusing(call), Ship)
    with bulk_signals(batch_size=batch_size):
        with pytest.raises(Refusal), transaction.atomic():
            Ship.objects.bulk_update(fleet, ["speed", "tonnage"])
        with no_bulk_signals():
            Ship.objects.update(speed=F("speed") * 10)
        assert Ship.objects.bulk_update(fleet, ["speed", "tonnage"]) == 3
    assert column(Ship, "speed") == [11, 21, 31]
    assert column(Ship, "tonnage") == [30] * 3


def test_after_a_refusal_by_the_database_too(receivers: Receivers) -> None:
    fleet = _fleet(1, 2)
    for ship in fleet:
        ship.slug = Concat(Value("same"), Value("!"))
    receivers.record(Ship)
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=1):
        Ship.objects.bulk_update(fleet, ["slug"])
    assert all(isinstance(ship.slug, Concat) for ship in fleet)


def test_an_exception_from_the_database_leaves_no_row_changed(receivers: Receivers) -> None:
    fleet = _fleet(1, 2)
    for ship in fleet:
        ship.slug = "same"
    receivers.record(Ship)
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=1):
        Ship.objects.bulk_update(fleet, ["slug", "speed"])
    assert column(Ship, "slug") == [None, None]
    assert column(Ship, "speed") == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_on_commit_runs_after_the_commit(receivers: Receivers) -> None:
    fleet = _fleet(1, 2)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        order.append("told")
        transaction.on_commit(lambda: order.append("commit"))

    receivers.connect(post_save, hook, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert order == ["told", "told", "commit", "commit"]


def test_progress_is_told_after_each_batch(receivers: Receivers) -> None:
    fleet = _fleet(1, 2, 3)
    receivers.record(Ship)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    with bulk_signals(batch_size=2, progress=progress):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert told == [(2, 3), (3, 3)]


def test_many_rows_take_few_statements(receivers: Receivers) -> None:
    def statements(count: int) -> int:
        with no_bulk_signals():
            Ship.objects.all().delete()
        fleet = rows(Ship, *({"name": str(n), "speed": n} for n in range(count)))
        for ship in fleet:
            ship.speed += 1
        with CaptureQueriesContext(connection) as queries:
            assert Ship.objects.bulk_update(fleet, ["speed"]) == count
        return len([query for query in queries if query["sql"].startswith(("SELECT", "UPDATE"))])

    receivers.record(Ship)
    gc.collect()
    assert statements(300) == statements(3) <= 2


# Every kind of model.


@of_every_size
def test_deferred_fields_stay_deferred_and_unwritten(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, tonnage=5)
    fleet = list(Ship.objects.only("speed").order_by("pk"))
    for ship in fleet:
        ship.speed *= 10
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 2
    assert column(Ship, "speed") == [10, 20]
    assert column(Ship, "tonnage") == [5, 5]
    assert all(sent.values.keys() == {"id", "speed"} for sent in log)
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"speed"})}


@of_every_size
@pytest.mark.parametrize("changed", [False, True])
def test_of_plain_columns_too_only_those_that_a_receiver_touches_are_loaded(
    changed: bool, batch_size: int, receivers: Receivers
) -> None:
    rows(Book, {"status": "old"}, {"status": "old"})
    books = list(Book.objects.only("title").order_by("pk"))
    if changed:
        receivers.before_saves(Book, lambda book: setattr(book, "status", f"not {book.status}"))
    log = receivers.record(Book)
    with bulk_signals(batch_size=batch_size):
        assert Book.objects.bulk_update(books, ["title"]) == 2
    assert column(Book, "status") == (["not old"] * 2 if changed else ["old"] * 2)
    loaded = {"id", "title", "status"} if changed else {"id", "title"}
    assert all(sent.values.keys() == loaded for sent in log)


@of_every_size
def test_a_receiver_may_change_a_deferred_field(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, tonnage=5, notes=["old"])
    fleet = list(Ship.objects.only("speed").order_by("pk"))

    def change(ship: Ship) -> None:
        ship.tonnage += 1
        ship.notes.append("new")

    receivers.before_saves(Ship, change)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "tonnage") == [6, 6]
    assert column(Ship, "notes") == [["old", "new"]] * 2
    assert log.of("post_save")[0].arguments["update_fields"] == {"speed", "tonnage", "notes"}


@of_every_size
def test_a_childs_and_its_parents_columns_are_updated_in_one_call(
    batch_size: int, receivers: Receivers
) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title)
    novels = list(Novel.objects.order_by("pk"))
    for novel in novels:
        novel.plot, novel.title = f"of {novel.title}", novel.title.upper()
    receivers.before_saves(Novel, lambda novel: setattr(novel, "status", f"is {novel.title}"))
    log = receivers.record(Novel, Book)
    truth = receivers.check_truth(Novel)
    with bulk_signals(batch_size=batch_size):
        assert Novel.objects.bulk_update(novels, ["plot", "title"]) == 2
    assert {sent.sender for sent in log} == {Novel}
    assert list(Novel.objects.order_by("pk").values_list("plot", "title", "status")) == [
        ("of a", "A", "is A"),
        ("of b", "B", "is B"),
    ]
    assert truth == [True, True]


def test_the_sender_is_the_instances_own_class(receivers: Receivers) -> None:
    novel = Novel.objects.create(title="a")
    proxy = BookProxy.objects.create(title="b")
    novel.title, proxy.title = "A", "B"
    log = receivers.record()
    Book.objects.bulk_update([novel, proxy], ["title"])
    assert [sent.sender for sent in log] == [Novel, BookProxy] * 2
    assert column(Book, "title") == ["A", "B"]


def test_a_receivers_change_to_a_subclasss_column_is_saved(receivers: Receivers) -> None:
    novel = Novel.objects.create(title="a")
    receivers.before_saves(Novel, lambda novel: setattr(novel, "plot", "thick"))
    Book.objects.bulk_update([novel], ["title"])
    assert column(Novel, "plot") == ["thick"]


@of_every_size
def test_rows_with_composite_keys_are_updated(batch_size: int, receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2}, {"quay": 2, "day": 1})
    moorings = list(Mooring.objects.order_by("pk"))
    for mooring in moorings:
        mooring.holder = f"{mooring.quay}/{mooring.day}"
    moorings[1].holder = Concat("holder", Value("by expression"))
    truth = receivers.check_truth(Mooring)
    with bulk_signals(batch_size=batch_size):
        assert Mooring.objects.bulk_update(moorings, ["holder"]) == 3
    assert column(Mooring, "holder") == ["1/1", "by expression", "2/1"]
    assert truth == [True] * 3


@of_every_size
def test_custom_fields_show_their_own_type(batch_size: int, receivers: Receivers) -> None:
    rows(Wreck, {"place": Point(1, 1)}, {})
    wrecks = list(Wreck.objects.order_by("pk"))
    wrecks[0].place = "3;4"
    wrecks[1].place = Point(5, 6)
    wrecks[1].name = "quiet"
    truth = receivers.check_truth(Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.bulk_update(wrecks, ["place", "name"])
    assert column(Wreck, "place") == [Point(3, 4), Point(5, 6)]
    assert truth == [True, True]


def test_columns_of_a_type_that_is_not_djangos_are_told_as_they_come_back(receivers: Receivers) -> None:
    sightings = rows(Sighting, {}, {})
    for sighting in sightings:
        sighting.country = "NO"
        sighting.seen = LAUNCH + datetime.timedelta(milliseconds=600)
    truth = receivers.check_truth(Sighting)
    Sighting.objects.bulk_update(sightings, ["country", "seen"])
    assert truth == [True, True]


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
@pytest.mark.parametrize("touched", [False, True], ids=["as assigned", "touched before"])
def test_a_file_that_waits_to_be_stored_is_stored_only_where_it_is_named(
    signal: Signal, touched: bool, receivers: Receivers
) -> None:
    rows(Chart, {"sheet": "charts/old.txt"})
    (chart,) = Chart.objects.all()
    chart.sheet = ContentFile(b"new", name="waiting.txt")
    assert not touched or chart.sheet
    told: list[Any] = []
    receivers.connect(signal, lambda update_fields, **arguments: told.append({*update_fields}), Chart)
    Chart.objects.bulk_update([chart], ["title"])
    assert column(Chart, "sheet") == ["charts/old.txt"]
    assert not chart.sheet._committed
    Chart.objects.bulk_update([chart], ["sheet"])
    # By now none waits.
    Chart.objects.bulk_update([chart], ["sheet"])
    assert told == [{"title"}, {"sheet"}, {"sheet"}]
    assert column(Chart, "sheet") == [chart.sheet.name]
    assert Chart.objects.get().sheet.read() == b"new"


def test_a_file_that_a_receiver_assigns_in_the_place_of_one_that_waits_is_stored(
    receivers: Receivers,
) -> None:
    rows(Chart, {})
    (chart,) = Chart.objects.all()
    chart.sheet = ContentFile(b"the caller's", name="same.txt")
    receivers.before_saves(
        Chart, lambda chart: setattr(chart, "sheet", ContentFile(b"the receiver's", name="same.txt"))
    )
    Chart.objects.bulk_update([chart], ["title"])
    assert Chart.objects.get().sheet.read() == b"the receiver's"


@pytest.mark.parametrize("notes", [{"not yet": {1, 2}}, {(1, 2): 3}], ids=str)
def test_a_value_that_cannot_be_saved_is_left_alone_where_it_is_not_named(
    notes: Any, receivers: Receivers
) -> None:
    fleet = _fleet(1)
    fleet[0].notes = notes
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["speed"]) == 1
    assert [sent.arguments["update_fields"] for sent in log] == [{"speed"}] * 2
    assert column(Ship, "notes") == [[]]


@of_every_size
def test_what_receivers_change_in_a_column_that_takes_no_expressions_is_saved(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Strongbox, {"content": "gold"}, {"content": "silver"}, {"content": "lead"})
    boxes = list(Strongbox.objects.order_by("pk"))

    def change(box: Strongbox) -> None:
        if box.content != "lead":
            box.content += "!"

    receivers.before_saves(Strongbox, change)
    log = receivers.record(Strongbox)
    truth = receivers.check_truth(Strongbox)
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.bulk_update(boxes, ["label"])
    assert column(Strongbox, "content") == ["gold!", "silver!", "lead"]
    names = [sent.arguments["update_fields"] for sent in log.of("post_save")]
    assert names == [{"label", "content"}, {"label", "content"}, {"label"}]
    assert truth == [True] * 3


def test_rows_with_natural_keys_are_updated(receivers: Receivers) -> None:
    rows(Beacon, {"code": "b'"}, {"code": "a%"})
    beacons = list(Beacon.objects.order_by("pk"))
    for beacon in beacons:
        beacon.lit = True
    log = receivers.record(Beacon)
    assert Beacon.objects.bulk_update(beacons, ["lit"]) == 2
    assert column(Beacon, "lit") == [True, True]
    assert len(log.of("post_save")) == 2


def test_foreign_keys_are_updated_by_object(receivers: Receivers) -> None:
    port, berth = Port.objects.create(code="N"), Berth.objects.create()
    fleet = _fleet(1, 2)
    fleet[0].flag, fleet[1].berth = port, berth
    log = receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["flag", "berth"])
    assert column(Ship, "flag_id") == ["N", None]
    assert column(Ship, "berth_id") == [None, berth.pk]
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"flag", "berth"})}


@pytest.mark.parametrize("speed", [9, F("speed") + 8], ids=["constant", "expression"])
@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
def test_an_instance_may_have_its_key_as_text(speed: Any, filtered: bool, receivers: Receivers) -> None:
    (row,) = ships(1)

    def update_itself(ship: Ship) -> None:
        Ship.objects.filter(pk=ship.pk).update(tonnage=5)

    receivers.before_saves(Ship, update_itself)
    ship = Ship(pk=str(row.pk), name="a", speed=speed)
    log = receivers.record(Ship)
    queryset = Ship.objects.filter(speed=1) if filtered else Ship.objects.all()
    assert queryset.bulk_update([ship], ["speed"]) == 1
    assert log.names() == ["pre_save", "post_save"]
    assert [sent.values["speed"] for sent in log] == [9, 9]
    assert column(Ship, "tonnage") == [5]


def test_an_instance_given_twice_is_told_twice_and_written_once(receivers: Receivers) -> None:
    (ship,) = _fleet(1)
    with no_bulk_signals(), transaction.atomic():
        expected = Ship.objects.bulk_update([ship, ship], ["speed"])
        transaction.set_rollback(True)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update([ship, ship], ["speed"]) == expected
    assert log.names() == ["pre_save", "pre_save", "post_save", "post_save"]


def _highest(model: type[Model], name: str) -> Subquery:
    return Subquery(model._base_manager.order_by(f"-{name}").values(name)[:1])


# MariaDB's SET goes from left to right, but for a statement that reads the table that it writes.
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


@of_every_size
@pytest.mark.parametrize("own", [None, 1, 3])
@pytest.mark.parametrize(("queryset", "given"), IN_TURN.values(), ids=IN_TURN)
def test_an_expression_sees_of_other_columns_what_it_sees_in_djangos_statement(
    queryset: Callable[[], QuerySet[Any]],
    given: list[dict[str, Any]],
    own: int | None,
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

    with no_bulk_signals(), transaction.atomic():
        expected = update()
        transaction.set_rollback(True)
    log = receivers.record(model)
    with bulk_signals(batch_size=batch_size):
        assert update() == expected
    for signal in ("pre_save", "post_save"):
        told = [{"pk": sent.instance.pk, **sent.values} for sent in log.of(signal)]
        assert [{name: values[name] for name in expected[0]} for values in told] == expected


@of_every_size
def test_a_generated_column_that_is_named_is_left_to_the_database(
    batch_size: int, receivers: Receivers
) -> None:
    cargos = rows(Cargo, {"weight": 1, "amount": 3}, {"weight": 2, "amount": 4})
    for cargo in cargos:
        cargo.weight = F("amount") + 1
        cargo.total = 7
    log = receivers.record(Cargo)
    with bulk_signals(batch_size=batch_size):
        assert Cargo.objects.bulk_update(cargos, ["weight", "total"]) == 2
    assert column(Cargo, "total") == [12, 20]
    assert [sent.values["total"] for sent in log.of("post_save")] == [12, 20]


@pytest.mark.parametrize("own", [None, 1, 2, 3])
@pytest.mark.parametrize("places", ["aa", "aba", "abcbacc", "abccba"])
@of_every_size
def test_a_key_given_twice_is_written_and_counted_as_django_does(
    places: str, own: int | None, batch_size: int, receivers: Receivers
) -> None:
    ships(0, 0, 0)
    keys = dict(zip("abc", column(Ship, "pk"), strict=True))

    def fleet() -> list[Ship]:
        return [Ship(pk=keys[name], speed=speed) for speed, name in enumerate(places, 1)]

    with no_bulk_signals(), transaction.atomic():
        expected = Ship.objects.bulk_update(fleet(), ["speed"], batch_size=own), column(Ship, "speed")
        transaction.set_rollback(True)
    truth: list[bool] = []

    def compare(instance: Ship, **arguments: Any) -> None:
        stored = Ship.objects.get(pk=instance.pk)
        truth.append((instance.speed, instance.tonnage) == (stored.speed, stored.tonnage))

    receivers.before_saves(Ship, lambda ship: setattr(ship, "tonnage", ship.speed + 1))
    receivers.connect(post_save, compare, Ship)
    with bulk_signals(batch_size=batch_size):
        matched = Ship.objects.bulk_update(fleet(), ["speed"], batch_size=own)
    assert (matched, column(Ship, "speed")) == expected
    assert truth == [True] * len(places)


def test_the_callers_own_instances_may_be_deleted_by_a_receiver(receivers: Receivers) -> None:
    first, second, third = fleet = _fleet(1, 2, 3)

    def delete(instance: Ship, **arguments: Any) -> None:
        second.delete()
        third.delete()

    receivers.connect(post_save, delete, Ship)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["speed"]) == 1
    assert [sent.instance for sent in log.of("post_save")] == [first]


def test_a_row_that_is_deleted_before_its_key_comes_twice_is_left_out_of_the_count_once(
    receivers: Receivers,
) -> None:
    first, second = _fleet(1, 2)

    def delete(instance: Ship, **arguments: Any) -> None:
        Ship.objects.exclude(pk=instance.pk).delete()

    receivers.connect(post_save, delete, Ship)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update([first, second, second], ["speed"]) == 1
    assert [sent.instance for sent in log.of("post_save")] == [first]


def test_the_unbound_method_sends_signals_too(receivers: Receivers) -> None:
    fleet = _fleet(1)
    log = receivers.record(Ship)
    QuerySet.bulk_update(Ship.objects.all(), fleet, ["speed"])
    assert log.names() == ["pre_save", "post_save"]
