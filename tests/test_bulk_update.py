"""`bulk_update()`: the signals of a loop, on the caller's own instances (contract.md, sections 4 and 7)."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import (
    F,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.functions import Concat
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, faster_ships, of_every_size, rows, ships
from tests.models import (
    Berth,
    Port,
    Ship,
)
from tests.refusals import is_refused, reads_its_own_table, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


# The signals


@of_every_size
def test_each_of_the_callers_own_instances_gets_one_pair(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed", "berth"]) == 3
    for signal in ("pre_save", "post_save"):
        assert all(sent.instance is ship for sent, ship in zip(log.of(signal), fleet, strict=True))
    assert column(Ship, "speed") == [10, 20, 30]


def test_signals_carry_the_arguments_of_save(receivers: Receivers) -> None:
    fleet = faster_ships(1)
    log = receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["speed", "berth"])
    assert [sent.arguments for sent in log] == [
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"})},
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"}), "created": False},
    ]
    assert all(type(sent.arguments["update_fields"]) is frozenset for sent in log)


def test_pre_save_comes_before_the_write(receivers: Receivers) -> None:
    fleet = faster_ships(1)
    stored: list[tuple[int, int]] = []

    def compare(instance: Ship, **arguments: Any) -> None:
        stored.append((instance.speed, column(Ship, "speed")[0]))

    receivers.connect(pre_save, compare, Ship)
    receivers.connect(post_save, compare, Ship)
    Ship.objects.bulk_update(fleet, ["speed"])
    assert stored == [(10, 1), (10, 10)]


def test_proxies_of_instances_send_what_a_save_sends(receivers: Receivers) -> None:
    first, second = faster_ships(1, 2)
    log = receivers.record(Ship)
    objs: list[Any] = [SimpleLazyObject(lambda: first), second]
    assert Ship.objects.bulk_update(objs, ["speed"]) == 2
    assert [sent.instance for sent in log.of("post_save")] == [first, second]
    assert log[0].instance is first
    assert column(Ship, "speed") == [10, 20]


@of_every_size
def test_generators_are_read_once(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)
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
    fleet = faster_ships(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"], batch_size=own) == 3
    assert column(Ship, "speed") == [10, 20, 30]
    assert [sent.instance for sent in log.of("post_save")] == fleet


def test_signals_follow_the_callers_order(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)[::-1]
    log = receivers.record(Ship)
    with bulk_signals(batch_size=2):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert [sent.instance for sent in log.of("pre_save")] == fleet
    assert [sent.instance for sent in log.of("post_save")] == fleet


# Refusals, and where nothing is sent


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
    fleet = faster_ships(1, 2)
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


def test_without_receivers_djangos_own_statements_run(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    receivers.record(Port)
    with no_bulk_signals(), CaptureQueriesContext(connection) as djangos:
        Ship.objects.bulk_update(fleet, ["speed"])
    with CaptureQueriesContext(connection) as ours:
        Ship.objects.bulk_update(fleet, ["speed"])
    assert [query["sql"] for query in ours] == [query["sql"] for query in djangos]


# Which rows


@of_every_size
def test_an_instance_without_a_row_gets_pre_save_and_no_post_save(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = faster_ships(1, 2, 3)
    with no_bulk_signals():
        Ship.objects.filter(name="b").delete()
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 2
    assert [sent.values["name"] for sent in log.of("pre_save")] == ["a", "b", "c"]
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


@of_every_size
def test_the_querysets_filter_is_evaluated_before_the_write(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(speed__lt=3).bulk_update(fleet, ["speed"]) == 2
    assert column(Ship, "speed") == [10, 20, 3]
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "b"]


@of_every_size
def test_what_receivers_change_is_only_saved_for_rows_that_match_the_filter(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = faster_ships(1, 2, 3)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "tonnage", 7))
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.filter(speed__lt=3).bulk_update(fleet, ["speed"]) == 2
    assert column(Ship, "tonnage") == [7, 7, 0]


@of_every_size
def test_a_row_that_a_receiver_deleted_gets_no_post_save(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)

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
    fleet = faster_ships(1, 2, 3)

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
def test_a_new_instance_belongs_to_its_row_after_the_write(receivers: Receivers) -> None:
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


# All or nothing


class Refusal(Exception):
    pass


def _refusing(call: int) -> Callable[..., None]:
    """Return a receiver that raises at its call with this number."""
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
    fleet = faster_ships(1, 2, 3)
    receivers.connect(signal, _refusing(call), Ship)
    with bulk_signals(batch_size=batch_size):
        with pytest.raises(Refusal), transaction.atomic():
            Ship.objects.bulk_update(fleet, ["speed"])
        assert column(Ship, "speed") == [1, 2, 3]
        log = receivers.record(Ship)
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 3
    assert len(log.of("post_save")) == 3


@reads_its_own_table
@of_every_size
@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_after_an_exception_the_instances_have_their_expressions_again(
    signal: Any, call: int, batch_size: int, receivers: Receivers
) -> None:
    fleet = faster_ships(1, 2, 3)
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


def test_after_a_database_error_the_instances_have_their_expressions_again(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    for ship in fleet:
        ship.slug = Concat(Value("same"), Value("!"))
    receivers.record(Ship)
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=1):
        Ship.objects.bulk_update(fleet, ["slug"])
    assert all(isinstance(ship.slug, Concat) for ship in fleet)


def test_an_exception_from_the_database_leaves_no_row_changed(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    for ship in fleet:
        ship.slug = "same"
    receivers.record(Ship)
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=1):
        Ship.objects.bulk_update(fleet, ["slug", "speed"])
    assert column(Ship, "slug") == [None, None]
    assert column(Ship, "speed") == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_on_commit_runs_after_the_commit(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        order.append("post_save")
        transaction.on_commit(lambda: order.append("commit"))

    receivers.connect(post_save, hook, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert order == ["post_save", "post_save", "commit", "commit"]


# Batches and statements


def test_progress_is_reported_after_each_batch(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)
    receivers.record(Ship)
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    with bulk_signals(batch_size=2, progress=progress):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert seen == [(2, 3), (3, 3)]


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
    # Older Djangos give SQLite 999 parameters.
    assert statements(200) == statements(3) <= 2


# Instances given twice, or deleted by a receiver


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
    first, second, third = fleet = faster_ships(1, 2, 3)

    def delete(instance: Ship, **arguments: Any) -> None:
        second.delete()
        third.delete()

    receivers.connect(post_save, delete, Ship)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["speed"]) == 1
    assert [sent.instance for sent in log.of("post_save")] == [first]


def test_a_deleted_row_whose_key_is_given_twice_is_left_out_of_the_count_once(
    receivers: Receivers,
) -> None:
    first, second = faster_ships(1, 2)

    def delete(instance: Ship, **arguments: Any) -> None:
        Ship.objects.exclude(pk=instance.pk).delete()

    receivers.connect(post_save, delete, Ship)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update([first, second, second], ["speed"]) == 1
    assert [sent.instance for sent in log.of("post_save")] == [first]


def test_the_unbound_method_sends_signals_too(receivers: Receivers) -> None:
    fleet = faster_ships(1)
    log = receivers.record(Ship)
    QuerySet.bulk_update(Ship.objects.all(), fleet, ["speed"])
    assert log.names() == ["pre_save", "post_save"]


def test_the_condition_of_the_queryset_may_read_other_rows(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3)
    slower = Ship.objects.filter(pk__in=Ship.objects.filter(speed__lt=3))
    if is_refused(lambda: slower.bulk_update(fleet, ["speed"]), receivers):
        return
    log = receivers.record(Ship)
    assert slower.bulk_update(fleet, ["speed"]) == 2
    assert [sent.instance for sent in log.of("post_save")] == fleet[:2]
    assert column(Ship, "speed") == [10, 20, 3]
