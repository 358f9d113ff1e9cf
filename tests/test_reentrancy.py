"""Rows in flight: which signals bulk operations inside receivers send (contract.md, section 2)."""

from __future__ import annotations

import asyncio
import threading
import uuid
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from signal_patch.dispatch.signals import in_flight
from tests.fleet import column, of_every_size, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    BookProxy,
    Buoy,
    Counter,
    Lot,
    Mooring,
    Novel,
    Port,
    Ship,
    Token,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from django.db.models import Model

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

of_both_signals = pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])


def _on_signal(receivers: Receivers, signal: Any, model: type[Model], react: Callable[[Any], object]) -> None:
    def receive(instance: Model, **arguments: Any) -> None:
        react(instance)

    receivers.connect(signal, receive, model)


def _update_itself(ship: Ship) -> None:
    Ship.objects.filter(pk=ship.pk).update(tonnage=F("tonnage") + 1)


@of_every_size
@of_both_signals
def test_an_update_of_its_own_row_in_a_receiver_sends_nothing_and_is_written(
    signal: Any, batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    _on_signal(receivers, signal, Ship, _update_itself)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 3
    assert log.names().count("pre_save") == log.names().count("post_save") == 3
    assert column(Ship, "tonnage") == [1, 1, 1]
    assert column(Ship, "speed") == [9, 9, 9]


@of_both_signals
def test_an_update_of_its_own_row_sends_nothing_inside_bulk_update_either(
    signal: Any, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    fleet = list(Ship.objects.order_by("pk"))
    _on_signal(receivers, signal, Ship, _update_itself)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["speed"]) == 3
    assert log.names() == ["pre_save"] * 3 + ["post_save"] * 3
    assert column(Ship, "tonnage") == [1, 1, 1]


@of_both_signals
def test_a_bulk_update_of_its_own_instance_in_a_receiver_sends_nothing(
    signal: Any, receivers: Receivers
) -> None:
    ships(1, 2)

    def update_itself(ship: Ship) -> None:
        ship.tonnage = 7
        assert Ship.objects.bulk_update([ship], ["tonnage"]) == 1

    _on_signal(receivers, signal, Ship, update_itself)
    log = receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2
    assert column(Ship, "tonnage") == [7, 7]


@of_both_signals
def test_a_save_is_in_flight(signal: Any, receivers: Receivers) -> None:
    (ship,) = ships(1)
    _on_signal(receivers, signal, Ship, _update_itself)
    log = receivers.record(Ship)
    ship.save(update_fields=["speed"])
    assert log.names() == ["pre_save", "post_save"]
    assert column(Ship, "tonnage") == [1]


@pytest.mark.parametrize("operation", ["save", "delete"])
def test_a_row_named_by_its_key_as_text_is_in_flight(operation: str, receivers: Receivers) -> None:
    (row,) = ships(1)
    ship = Ship(pk=str(row.pk), name="b")
    _on_signal(receivers, pre_save, Ship, _update_itself)
    _on_signal(receivers, pre_delete, Ship, _update_itself)
    log = receivers.record(Ship)
    getattr(ship, operation)()
    assert log.names() == [f"pre_{operation}", f"post_{operation}"]


def test_a_create_whose_receiver_updates_the_same_row_does_not_recurse(receivers: Receivers) -> None:
    _on_signal(receivers, post_save, Ship, _update_itself)
    log = receivers.record(Ship)
    Ship.objects.create(name="new")
    assert log.names() == ["pre_save", "post_save"]
    assert column(Ship, "tonnage") == [1]


def test_a_save_in_a_receiver_of_a_save_is_left_to_django(receivers: Receivers) -> None:
    (ship,) = ships(1)
    _on_signal(receivers, post_save, Ship, _update_itself)
    ship.save()
    ship.save()
    assert column(Ship, "tonnage") == [1]


@pytest.mark.parametrize("signal", [pre_delete, post_delete], ids=["pre_delete", "post_delete"])
@pytest.mark.parametrize("operation", ["instance", "queryset"])
def test_a_delete_is_in_flight(signal: Any, operation: str, receivers: Receivers) -> None:
    ship, other = ships(1, 2)
    pk = ship.pk
    _on_signal(receivers, signal, Ship, lambda ship: Ship.objects.filter(pk=pk).update(tonnage=5))
    log = receivers.record(Ship)
    if operation == "instance":
        ship.delete()
    else:
        Ship.objects.filter(pk=pk).delete()
    assert log.names() == ["pre_delete", "post_delete"]
    assert column(Ship, "pk") == [other.pk]


def test_rows_not_in_flight_get_their_signals(receivers: Receivers) -> None:
    parent, child, grandchild = ships(1, 2, 3)
    Ship.objects.filter(pk=child.pk).update(convoy=parent)
    Ship.objects.filter(pk=grandchild.pk).update(convoy=child)

    def lead(ship: Ship) -> None:
        Ship.objects.filter(convoy=ship).update(speed=ship.speed + 10)

    _on_signal(receivers, post_save, Ship, lead)
    log = receivers.record(Ship)
    Ship.objects.filter(pk=parent.pk).update(speed=50)
    assert column(Ship, "speed") == [50, 60, 70]
    assert [sent.instance for sent in log.of("pre_save")] == [parent, child, grandchild]
    assert len(log.of("post_save")) == 3


def test_a_parents_receiver_may_update_rows_of_another_model(receivers: Receivers) -> None:
    (port,) = rows(Port, {"code": "N"})
    rows(Berth, {"port": port, "number": 1}, {"port": port, "number": 2})
    _on_signal(receivers, post_save, Port, lambda port: port.berths.update(number=F("number") * 10))
    log = receivers.record(Port, Berth)
    Port.objects.update(name="north")
    assert [sent.sender for sent in log.of("pre_save")] == [Port, Berth, Berth]
    assert [sent.sender for sent in log.of("post_save")] == [Berth, Berth, Port]
    assert column(Berth, "number") == [10, 20]


def test_rows_of_one_key_and_another_model_are_not_in_flight(receivers: Receivers) -> None:
    (port,) = rows(Port, {"code": "N"})
    (berth,) = rows(Berth, {"id": port.pk})
    _on_signal(receivers, pre_save, Port, lambda port: Berth.objects.filter(pk=port.pk).update(number=5))
    log = receivers.record(Berth)
    Port.objects.update(name="north")
    assert [sent.instance for sent in log.of("post_save")] == [berth]


@pytest.mark.django_db(databases=["default", "other"])
def test_rows_of_one_key_in_another_database_are_not_in_flight(receivers: Receivers) -> None:
    (ship,) = ships(1)
    rows(Ship, {"id": ship.pk}, using="other")

    def mirror(instance: Ship, using: str, **arguments: Any) -> None:
        if using == "default":
            Ship.objects.using("other").filter(pk=instance.pk).update(speed=instance.speed)

    receivers.connect(post_save, mirror, Ship)
    log = receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert [sent.arguments["using"] for sent in log.of("pre_save")] == ["default", "other"]
    assert column(Ship, "speed", using="other") == [9]


@pytest.mark.django_db(databases=["default", "other"])
def test_a_delete_in_another_database_takes_no_row_from_those_in_flight(receivers: Receivers) -> None:
    ships(1, 2)
    rows(Ship, {"name": "a"}, {"name": "b"}, using="other")
    _on_signal(
        receivers, post_save, Ship, lambda ship: Ship.objects.using("other").filter(name=ship.name).delete()
    )
    log = receivers.record(Ship)
    assert Ship.objects.update(speed=9) == 2
    assert log.names() == ["pre_save", "pre_save", *["pre_delete", "post_delete", "post_save"] * 2]
    assert column(Ship, "name", using="other") == []


def test_a_cycle_between_two_rows_ends(receivers: Receivers) -> None:
    first, second = ships(1, 2)
    Ship.objects.filter(pk=first.pk).update(convoy=second)
    Ship.objects.filter(pk=second.pk).update(convoy=first)
    _on_signal(
        receivers,
        post_save,
        Ship,
        lambda ship: Ship.objects.filter(convoy=ship).update(speed=F("speed") + 10),
    )
    log = receivers.record(Ship)
    Ship.objects.filter(pk=first.pk).update(speed=0)
    assert [sent.instance for sent in log.of("pre_save")] == [first, second]
    # The second row's receiver updates the first, which is in flight: it is written without signals.
    assert column(Ship, "speed") == [10, 12]


def test_a_cycle_between_two_models_ends(receivers: Receivers) -> None:
    (port,) = rows(Port, {"code": "N"})
    rows(Berth, {"port": port})
    _on_signal(receivers, post_save, Port, lambda port: port.berths.update(number=F("number") + 1))
    _on_signal(
        receivers, post_save, Berth, lambda berth: Port.objects.filter(pk=berth.port_id).update(name="again")
    )
    log = receivers.record(Port, Berth)
    Port.objects.update(name="once")
    assert sorted(sent.sender.__name__ for sent in log.of("post_save")) == ["Berth", "Port"]
    assert column(Port, "name") == ["again"]


def test_in_a_nested_update_only_rows_that_are_not_in_flight_send_signals(
    receivers: Receivers,
) -> None:
    ships(1, 2, 3, 4)
    done: list[bool] = []

    def update_all(ship: Ship) -> None:
        if not done:
            done.append(True)
            assert Ship.objects.update(tonnage=F("tonnage") + 1) == 4

    _on_signal(receivers, pre_save, Ship, update_all)
    log = receivers.record(Ship)
    assert Ship.objects.filter(speed__lt=3).update(name="z") == 2
    nested = [sent for sent in log if sent.arguments["update_fields"] == {"tonnage"}]
    assert [sent.values["speed"] for sent in nested] == [3, 4, 3, 4]
    assert column(Ship, "tonnage") == [1, 1, 1, 1]
    assert len(log.of("pre_save")) == 4


def test_all_rows_of_the_current_batch_are_in_flight_and_no_others(receivers: Receivers) -> None:
    ships(1, 2, 3, 4)
    done: list[bool] = []

    def update_all(ship: Ship) -> None:
        if not done:
            done.append(True)
            Ship.objects.update(tonnage=1)

    _on_signal(receivers, post_save, Ship, update_all)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=2):
        Ship.objects.update(speed=9)
    nested = [sent.values["name"] for sent in log.of("post_save") if "tonnage" in str(sent.arguments)]
    assert nested == ["c", "d"]
    assert column(Ship, "tonnage") == [1] * 4


def test_receivers_of_a_nested_update_see_what_the_row_holds(
    receivers: Receivers,
) -> None:
    ships(1, 2)
    seen: list[tuple[str, int]] = []

    def look(instance: Ship, update_fields: frozenset[str], **arguments: Any) -> None:
        if update_fields == {"tonnage"}:
            seen.append((instance.name, instance.speed))
        elif instance.name == "a":
            Ship.objects.exclude(pk=instance.pk).update(tonnage=1)

    receivers.connect(pre_save, look, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.update(speed=9)
    assert seen == [("b", 2)]


@of_both_signals
def test_a_save_in_a_receiver_sends_what_django_sends(signal: Any, receivers: Receivers) -> None:
    ships(1, 2)
    log = receivers.record(Ship)

    def save_once(instance: Ship, update_fields: frozenset[str], **arguments: Any) -> None:
        if "tonnage" not in update_fields:
            copy = Ship.objects.get(pk=instance.pk)
            copy.tonnage = 7
            copy.save(update_fields=["tonnage"])

    receivers.connect(signal, save_once, Ship)
    Ship.objects.update(speed=9)
    saves = [sent for sent in log if sent.arguments["update_fields"] == {"tonnage"}]
    assert [sent.signal for sent in saves] == ["pre_save", "post_save"] * 2
    assert column(Ship, "tonnage") == [7, 7]
    assert column(Ship, "speed") == [9, 9]


def test_a_save_of_the_instance_itself_in_a_receiver_goes_through(receivers: Receivers) -> None:
    ships(1, 2)

    def save(instance: Ship, update_fields: frozenset[str], **arguments: Any) -> None:
        if "tonnage" not in update_fields:
            instance.tonnage = 5
            instance.save(update_fields=["tonnage"])

    receivers.connect(post_save, save, Ship)
    Ship.objects.update(speed=9)
    assert column(Ship, "tonnage") == [5, 5]


def test_a_proxys_row_is_in_flight_as_its_models(receivers: Receivers) -> None:
    rows(Book, {"title": "a"})
    _on_signal(
        receivers, post_save, BookProxy, lambda book: Book.objects.filter(pk=book.pk).update(status="x")
    )
    log = receivers.record(Book, BookProxy)
    BookProxy.objects.update(title="b")
    assert [sent.sender for sent in log] == [BookProxy, BookProxy]
    assert column(Book, "status") == ["x"]


def test_an_update_of_the_parent_row_sends_the_parents_signals(receivers: Receivers) -> None:
    Novel.objects.create(title="a")

    def update_book(novel: Novel) -> None:
        Book.objects.filter(pk=novel.pk).update(status="x")

    _on_signal(receivers, post_save, Novel, update_book)
    log = receivers.record(Book, Novel)
    Novel.objects.update(plot="b")
    # Another concrete model is another sender, to which the novel's receiver is not connected.
    assert [sent.sender for sent in log.of("post_save")] == [Book, Novel]


def test_a_row_whose_key_changes_is_in_flight_under_both_keys(receivers: Receivers) -> None:
    rows(Beacon, {"code": "a"})
    _on_signal(receivers, pre_save, Beacon, lambda beacon: Beacon.objects.filter(code="a").update(lit=True))
    _on_signal(receivers, post_save, Beacon, lambda beacon: Beacon.objects.filter(code="z").update(lit=True))
    log = receivers.record(Beacon)
    Beacon.objects.update(code="z")
    assert log.names() == ["pre_save", "post_save"]
    assert column(Beacon, "lit") == [True]


def test_rows_with_composite_keys_are_in_flight(receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2})
    _on_signal(
        receivers,
        post_save,
        Mooring,
        lambda mooring: Mooring.objects.filter(pk=mooring.pk).update(holder="me"),
    )
    log = receivers.record(Mooring)
    with bulk_signals(batch_size=1):
        Mooring.objects.update(holder="you")
    assert log.names() == ["pre_save", "post_save"] * 2
    assert column(Mooring, "holder") == ["me", "me"]
    log.clear()
    Mooring(quay="1", day="2", holder="you").save()
    assert log.names() == ["pre_save", "post_save"]
    assert column(Mooring, "holder") == ["me", "me"]


KEYS_AS_GIVEN: dict[str, Callable[[], list[Model]]] = {
    "text for a UUID": lambda: [Buoy(id=str(uuid.uuid4())) for _ in range(3)],
    "a number for text": lambda: [Token(code=number) for number in range(3)],
    "text for a part of a composite key": lambda: [Mooring(quay="1", day=day) for day in range(3)],
}


@pytest.mark.parametrize("make", KEYS_AS_GIVEN.values(), ids=KEYS_AS_GIVEN)
def test_created_rows_are_in_flight_whatever_the_type_of_their_given_keys(
    make: Callable[[], list[Model]], receivers: Receivers
) -> None:
    objs: list[Any] = make()
    model: Any = type(objs[0])
    name = model._meta.concrete_fields[-1].name

    def touch(obj: Any) -> None:
        model.objects.filter(pk=obj.pk).update(**{name: getattr(obj, name)})

    _on_signal(receivers, post_save, model, touch)
    log = receivers.record(model)
    model.objects.bulk_create(objs)
    assert log.names() == ["pre_save"] * 3 + ["post_save"] * 3


@pytest.mark.parametrize("make", KEYS_AS_GIVEN.values(), ids=KEYS_AS_GIVEN)
def test_a_delete_by_a_receiver_takes_no_signals_from_rows_that_stay(
    make: Callable[[], list[Model]], receivers: Receivers
) -> None:
    *objs, other = make()
    model: Any = type(other)
    other.save()
    _on_signal(receivers, post_save, model, lambda obj: model.objects.filter(pk=other.pk).delete())
    log = receivers.record(model)
    model.objects.bulk_create(objs)
    assert log.of("post_save")[-1].instance is objs[-1]


@pytest.mark.parametrize("by", ["save", "bulk_create"])
def test_a_key_that_is_not_generated_yet_is_not_in_flight(by: str, receivers: Receivers) -> None:
    Counter.objects.create()

    def follow(lot: Lot) -> None:
        if lot.name == "first":
            Lot.objects.bulk_create([Lot(name="second")])

    _on_signal(receivers, pre_save, Lot, follow)
    log = receivers.record(Lot)
    if by == "save":
        Lot(name="first").save()
    else:
        Lot.objects.bulk_create([Lot(name="first")])
    assert [(sent.signal, sent.values["name"]) for sent in log] == [
        ("pre_save", "second"),
        ("post_save", "second"),
        ("pre_save", "first"),
        ("post_save", "first"),
    ]


def test_a_composite_key_that_lacks_a_part_is_not_in_flight(receivers: Receivers) -> None:
    def place(mooring: Any) -> None:
        mooring.day = 1 if mooring.holder == "first" else 2
        if mooring.holder == "first":
            Mooring.objects.bulk_create([Mooring(quay=1, holder="second")])

    _on_signal(receivers, pre_save, Mooring, place)
    log = receivers.record(Mooring)
    Mooring.objects.bulk_create([Mooring(quay=1, holder="first")])
    assert log.names() == ["pre_save", "post_save"] * 2
    assert set(Mooring.objects.values_list("day", "holder")) == {(1, "first"), (2, "second")}


@pytest.mark.parametrize("by", ["save", "bulk_create"])
def test_a_key_that_no_row_can_have_may_be_a_placeholder(by: str, receivers: Receivers) -> None:
    Buoy.objects.create()

    def place(buoy: Any) -> None:
        if buoy.id == "to come":
            Buoy.objects.update(colour="blue")
            buoy.id = uuid.uuid4()

    _on_signal(receivers, pre_save, Buoy, place)
    buoy = Buoy(id="to come")
    if by == "save":
        buoy.save(force_insert=True)
    else:
        Buoy.objects.bulk_create([buoy])
    assert set(column(Buoy, "colour")) == {"blue", "red"}


@pytest.mark.parametrize("by", ["update", "bulk_create"])
def test_a_delete_of_other_models_rows_by_a_receiver_does_not_query_the_batch(
    by: str, receivers: Receivers
) -> None:
    _on_signal(receivers, post_save, Token, lambda token: Port.objects.filter(pk=token.uses).delete())
    Token.objects.bulk_create([Token(code=str(number)) for number in range(5)])
    with CaptureQueriesContext(connection) as queries:
        if by == "update":
            assert Token.objects.update(uses=-1) == 5
        else:
            Token.objects.bulk_create([Token(code=str(number), uses=-1) for number in range(5, 10)])
    looks = [
        query for query in queries if query["sql"].startswith("SELECT") and "tests_token" in query["sql"]
    ]
    assert len(looks) == (by == "update")


def test_an_update_of_another_table_by_a_field_sends_its_signals(receivers: Receivers) -> None:
    Counter.objects.create()
    log = receivers.record(Counter)
    Lot.objects.bulk_create([Lot(), Lot()])
    assert log.names() == ["pre_save", "post_save"] * 2
    receivers.record(Lot)
    Lot.objects.bulk_create([Lot(), Lot()])
    assert log.names() == ["pre_save", "post_save"] * 4
    assert sorted(column(Lot, "number")) == [1, 2, 3, 4]


# Cleaned up whatever happens.


class Refusal(Exception):
    pass


def _refuse(instance: Any, **arguments: Any) -> None:
    raise Refusal


@of_both_signals
@pytest.mark.parametrize(
    "operation",
    [
        lambda ship: Ship.objects.update(speed=9),
        lambda ship: Ship.objects.bulk_update([ship], ["speed"]),
        lambda ship: ship.save(),
    ],
    ids=["update", "bulk_update", "save"],
)
def test_after_an_exception_nothing_is_in_flight(
    operation: Callable[[Ship], object], signal: Any, receivers: Receivers
) -> None:
    (ship,) = ships(1)
    receivers.connect(signal, _refuse, Ship)
    with pytest.raises(Refusal), transaction.atomic():
        operation(ship)
    receivers.disconnect_all()
    log = receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert log.names() == ["pre_save", "post_save"]


def test_after_an_exception_in_a_delete_nothing_is_in_flight(receivers: Receivers) -> None:
    (ship,) = ships(1)
    receivers.connect(pre_delete, _refuse, Ship)
    with pytest.raises(Refusal), transaction.atomic():
        ship.delete()
    receivers.disconnect_all()
    log = receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert log.names() == ["pre_save", "post_save"]


def test_an_exception_caught_by_a_receiver_leaves_the_outer_rows_in_flight(receivers: Receivers) -> None:
    ship, other = ships(1, 2)

    def try_the_other(instance: Ship, **arguments: Any) -> None:
        if instance == other:
            raise Refusal
        try:
            with transaction.atomic():
                Ship.objects.filter(pk=other.pk).update(tonnage=1)
        except Refusal:
            Ship.objects.filter(pk=instance.pk).update(tonnage=5)

    receivers.connect(pre_save, try_the_other, Ship)
    log = receivers.record(Ship)
    Ship.objects.filter(pk=ship.pk).update(speed=9)
    assert [sent.instance for sent in log.of("post_save")] == [ship]
    assert column(Ship, "tonnage") == [5, 0]


def test_after_its_signals_a_row_is_no_longer_in_flight(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    Ship.objects.update(speed=8)
    Ship.objects.update(speed=9)
    assert log.names() == ["pre_save", "post_save"] * 2


@pytest.mark.django_db(transaction=True)
def test_a_deleted_row_that_a_hook_recreates_is_not_in_flight(receivers: Receivers) -> None:
    def make_anew(beacon: Beacon) -> None:
        beacons = [Beacon(code=beacon.code)]
        transaction.on_commit(lambda: Beacon.objects.bulk_create(beacons))

    rows(Beacon, {"code": "N"})
    _on_signal(receivers, post_delete, Beacon, make_anew)
    log = receivers.record(Beacon)
    Beacon.objects.filter(code="N").delete()
    assert log.names() == ["pre_delete", "post_delete", "pre_save", "post_save"]


def test_after_its_signals_a_row_is_not_in_flight_in_a_context_that_a_receiver_copied(
    receivers: Receivers,
) -> None:
    ships(1)
    contexts: list[Context] = []
    _on_signal(receivers, post_save, Ship, lambda ship: contexts.append(copy_context()))
    log = receivers.record(Ship)
    Ship.objects.update(speed=8)
    for context in contexts[:]:
        context.run(Ship.objects.update, speed=9)
    assert log.names() == ["pre_save", "post_save"] * 2


# Per thread and task.


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, and leave no connection open in the thread of its queries."""

    async def closing() -> None:
        await work
        await sync_to_async(connections.close_all)()

    asyncio.run(closing())


@pytest.mark.django_db(transaction=True)
def test_a_row_in_flight_in_one_task_is_not_in_another(receivers: Receivers) -> None:
    rows(Port, {"code": "N"})
    log = receivers.record(Port)

    keys = column(Port, "pk")

    async def update_twice() -> None:
        inside, done = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            flight = in_flight.flight_of("default", {Port: keys})
            with in_flight.flying(flight):
                inside.set()
                await done.wait()

        async def second() -> None:
            await inside.wait()
            await sync_to_async(Port.objects.update)(name="new")
            done.set()

        await asyncio.gather(first(), second())

    _run(update_twice())
    assert log.names() == ["pre_save", "post_save"]


@pytest.mark.django_db(transaction=True)
def test_what_is_in_flight_follows_into_sync_to_async(receivers: Receivers) -> None:
    rows(Port, {"code": "N"})

    async def update_itself(instance: Port, **arguments: Any) -> None:
        await sync_to_async(Port.objects.filter(pk=instance.pk).update)(name="changed")

    receivers.connect(post_save, update_itself, Port)
    log = receivers.record(Port)

    async def update() -> None:
        await Port.objects.aupdate(name="new")

    _run(update())
    assert log.names() == ["pre_save", "post_save"]
    assert column(Port, "name") == ["changed"]


@pytest.mark.django_db(transaction=True)
def test_a_row_in_flight_in_one_thread_is_not_in_another(receivers: Receivers) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("a second connection does not see an SQLite database in memory")
    (port, other) = rows(Port, {"code": "N"}, {"code": "S"})
    seen: list[str] = []

    def update_elsewhere(instance: Port, update_fields: frozenset[str], **arguments: Any) -> None:
        seen.append(instance.code)
        if instance.code == "N" and threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=in_thread)
            thread.start()
            thread.join()

    def in_thread() -> None:
        # This row is not locked. If threads shared what is in flight, its key would be in flight there, too.
        seen.append(f"in flight here: {in_flight.keys_in_flight('default', Port, [port.pk, other.pk])}")
        Port.objects.filter(pk=other.pk).update(name="new")
        connections["default"].close()

    receivers.connect(pre_save, update_elsewhere, Port)
    with bulk_signals(Port):
        Port.objects.filter(pk=port.pk).update(name="x")
    assert seen == ["N", "in flight here: set()", "S"]
