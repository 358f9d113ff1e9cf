"""Receivers of lists (contract.md, section 8.1)."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.signals import request_started
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import ModelSignal, m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_receiver, bulk_signals, disable, enable, no_bulk_signals
from tests.fleet import column, of_every_size, rows, ships
from tests.models import Berth, Book, Foghorn, Publisher, Sailor, Shelf, Ship, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model
    from django.dispatch import Signal

    from tests.recording import Receivers

pytestmark = pytest.mark.django_db


class Lists(list[dict[str, Any]]):
    """The arguments with which a receiver of lists was called."""

    def __init__(self, receivers: Receivers, signal: Signal, sender: Any, *, awaited: bool = False) -> None:
        async def areceive(**arguments: Any) -> None:
            self.receive(**arguments)

        self.receiver = bulk_receiver(signal)(areceive if awaited else self.receive)
        signal.disconnect(self.receiver)
        receivers.connect(signal, self.receiver, sender)

    def receive(self, **arguments: Any) -> None:
        self.append(arguments)

    @property
    def instances(self) -> list[list[Any]]:
        return [list(arguments["instances"]) for arguments in self]

    @property
    def keys(self) -> list[list[Any]]:
        return [[instance.pk for instance in instances] for instances in self.instances]


def parts(instances: list[Any], size: int) -> list[list[Any]]:
    return [instances[start : start + size] for start in range(0, len(instances), size)]


# One instance: a list of one, whether or not anything is on.


@pytest.mark.parametrize("on", [True, False])
def test_a_save_gives_a_list_of_one(on: bool, receivers: Receivers) -> None:
    before, after = Lists(receivers, pre_save, Ship), Lists(receivers, post_save, Ship)
    with bulk_signals() if on else no_bulk_signals():
        ship = Ship.objects.create(name="a")
        ship.save(update_fields=["name"])
    common = {"sender": Ship, "instances": [ship], "raw": False, "using": "default"}
    assert before == [
        {**common, "signal": pre_save, "update_fields": None},
        {**common, "signal": pre_save, "update_fields": frozenset({"name"})},
    ]
    assert after == [
        {**common, "signal": post_save, "update_fields": None, "created": True},
        {**common, "signal": post_save, "update_fields": frozenset({"name"}), "created": False},
    ]


@pytest.mark.parametrize("on", [True, False])
def test_the_delete_of_one_object_gives_a_list_of_one(on: bool, receivers: Receivers) -> None:
    (ship,) = ships(1)
    key = ship.pk
    seen: list[Any] = []

    def look(instances: list[Ship], **arguments: Any) -> None:
        seen.append(([instance.pk for instance in instances], Ship.objects.count(), arguments["origin"]))

    looking = bulk_receiver([pre_delete, post_delete], sender=Ship)(look)
    receivers.adopt([pre_delete, post_delete], looking, Ship)
    with bulk_signals() if on else no_bulk_signals():
        ship.delete()
    assert seen == [([key], 1, ship), ([key], 0, ship)]


def test_where_nothing_is_on_each_row_of_a_queryset_is_a_list_of_one(receivers: Receivers) -> None:
    fleet = ships(1, 2)
    lists = Lists(receivers, pre_delete, Ship)
    Ship.objects.all().delete()
    assert [[ship.speed for ship in instances] for instances in lists.instances] == [[1], [2]]
    assert len(fleet) == 2


# Bulk operations: one list for each batch.

OPERATIONS: dict[str, Callable[[list[Ship]], object]] = {
    "update": lambda fleet: Ship.objects.update(speed=F("speed") + 1),
    "bulk_update": lambda fleet: Ship.objects.bulk_update(fleet, ["speed"]),
    "related manager": lambda fleet: Berth.objects.create().ships.set(fleet, bulk=True),
}


@of_every_size
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_bulk_operation_gives_one_list_for_each_batch(
    operation: Callable[[list[Ship]], object], awaited: bool, batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(1, 2, 3)
    before = Lists(receivers, pre_save, Ship, awaited=awaited)
    after = Lists(receivers, post_save, Ship, awaited=awaited)
    with bulk_signals(batch_size=batch_size):
        operation(fleet)
    expected = parts([ship.pk for ship in fleet], batch_size)
    assert before.keys == after.keys == expected
    for earlier, later in zip(before.instances, after.instances, strict=True):
        assert all(one is other for one, other in zip(earlier, later, strict=True))


@of_every_size
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
def test_a_bulk_create_gives_one_list_for_each_batch(
    awaited: bool, batch_size: int, receivers: Receivers
) -> None:
    before = Lists(receivers, pre_save, Ship, awaited=awaited)
    after = Lists(receivers, post_save, Ship, awaited=awaited)
    fleet = [Ship(name=name) for name in "abc"]
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_create(fleet)
    assert before.instances == after.instances == parts(fleet, batch_size)
    assert after.keys == parts(column(Ship, "pk"), batch_size)
    assert all(arguments["created"] for arguments in after)


@of_every_size
def test_an_upsert_gives_a_list_for_new_rows_and_one_for_others(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Shelf, {"label": "b"})
    lists = Lists(receivers, post_save, Shelf)
    with bulk_signals(batch_size=batch_size):
        Shelf.objects.bulk_create(
            [Shelf(label=label, width=7) for label in "abc"],
            update_conflicts=True,
            update_fields=["width"],
            unique_fields=["label"] if connection.features.supports_update_conflicts_with_target else None,
        )
    given: dict[bool, list[str]] = {True: [], False: []}
    for arguments in lists:
        given[arguments["created"]] += [shelf.label for shelf in arguments["instances"]]
    assert given == {True: ["a", "c"], False: ["b"]}
    assert len(lists) == {1: 3, 2: 3, 2000: 2}[batch_size]


def test_the_lists_come_after_the_receivers_of_single_instances(receivers: Receivers) -> None:
    ships(1, 2)
    seen: list[Any] = []
    bulk = bulk_receiver([pre_save, post_save], sender=Ship)(
        lambda instances, **arguments: seen.append([ship.speed for ship in instances])
    )
    receivers.adopt([pre_save, post_save], bulk, Ship)
    for signal in (pre_save, post_save):
        receivers.connect(signal, lambda instance, **arguments: seen.append(instance.speed), Ship)
    with bulk_signals():
        Ship.objects.update(speed=F("speed") + 10)
    assert seen == [11, 12, [11, 12]] * 2


def test_instances_whose_other_arguments_differ_come_in_lists_of_their_own(receivers: Receivers) -> None:
    ships(1, 2, 3)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "name", "z") if ship.tonnage == 2 else None)
    Ship.objects.filter(speed=2).update(tonnage=2)
    lists = Lists(receivers, post_save, Ship)
    with bulk_signals():
        Ship.objects.update(price=1)
    assert [
        ([ship.speed for ship in arguments["instances"]], arguments["update_fields"]) for arguments in lists
    ] == [([1, 3], {"price"}), ([2], {"price", "name"})]


@of_every_size
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
def test_what_it_changes_at_pre_save_is_saved(awaited: bool, batch_size: int, receivers: Receivers) -> None:
    fleet = ships(1, 2, 3)

    def rename(instances: list[Ship], **arguments: Any) -> None:
        for ship in instances:
            ship.name = f"{ship.name}{ship.speed}"
            ship.notes.append(ship.speed)

    async def arename(instances: list[Ship], **arguments: Any) -> None:
        rename(instances)

    bulk = bulk_receiver(pre_save, sender=Ship)(arename if awaited else rename)
    receivers.adopt([pre_save], bulk, Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 10)
        assert column(Ship, "name") == ["a11", "b12", "c13"]
        assert column(Ship, "notes") == [[11], [12], [13]]
        assert {tuple(sorted(sent.arguments["update_fields"])) for sent in log.of("post_save")} == {
            ("name", "notes", "speed")
        }
        Ship.objects.bulk_update(fleet, ["speed"])
        assert column(Ship, "name") == ["a1", "b2", "c3"]
        Ship.objects.bulk_create([Ship(name="n", speed=9)])
        assert column(Ship, "name") == ["a1", "b2", "c3", "n9"]


def test_rows_that_a_receiver_deletes_are_in_no_list_of_post_save(receivers: Receivers) -> None:
    ships(1, 2, 3)

    def sink(instance: Ship, **arguments: Any) -> None:
        if instance.speed == 1:
            Ship.objects.filter(speed=2).delete()

    receivers.connect(post_save, sink, Ship)
    lists = Lists(receivers, post_save, Ship)
    with bulk_signals():
        assert Ship.objects.update(name="z") == 2
    assert [[ship.speed for ship in instances] for instances in lists.instances] == [[1, 3]]


# Deletes


@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
def test_a_delete_gives_one_list_for_each_model(awaited: bool, receivers: Receivers) -> None:
    fleet = ships(1, 2)
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in "ab"))
    seen: list[Any] = []

    def look(sender: Any, signal: Any, instances: list[Any], **arguments: Any) -> None:
        counts = Ship.objects.count(), Sailor.objects.count()
        seen.append((signal, sender, [instance.pk for instance in instances], counts, arguments["origin"]))

    async def alook(**arguments: Any) -> None:
        await sync_to_async(look)(**arguments)

    receivers.connect(pre_delete, lambda **arguments: seen.append("single"), Ship)
    bulk = bulk_receiver([pre_delete, post_delete])(alook if awaited else look)
    receivers.adopt([pre_delete, post_delete], bulk)
    ship_keys, sailor_keys = column(Ship, "pk"), column(Sailor, "pk")
    queryset = Ship.objects.all()
    with bulk_signals():
        assert queryset.delete() == (6, {"tests.Ship": 2, "tests.Sailor": 4})
    origin = seen[2][-1]
    assert origin.model is Ship
    assert seen == [
        "single",
        "single",
        (pre_delete, Sailor, sailor_keys, (2, 4), origin),
        (pre_delete, Ship, ship_keys, (2, 4), origin),
        (post_delete, Sailor, sailor_keys[::-1], (2, 0), origin),
        (post_delete, Ship, ship_keys[::-1], (0, 0), origin),
    ]


def test_a_model_that_is_not_on_gives_lists_of_one(receivers: Receivers) -> None:
    fleet = ships(1, 2)
    rows(Sailor, *({"ship": ship} for ship in fleet))
    of_ships, of_sailors = Lists(receivers, pre_delete, Ship), Lists(receivers, pre_delete, Sailor)
    with bulk_signals(Ship):
        Ship.objects.all().delete()
    assert [len(instances) for instances in of_ships.instances] == [2]
    assert [len(instances) for instances in of_sailors.instances] == [1, 1]


def test_rows_whose_list_comes_before_the_delete_can_still_be_moved(receivers: Receivers) -> None:
    first, second = ships(1, 2)
    rows(Sailor, {"ship": first, "name": "a"})

    def move(instances: list[Ship], **arguments: Any) -> None:
        Sailor.objects.update(ship=second)

    bulk = bulk_receiver(pre_delete, sender=Ship)(move)
    receivers.adopt([pre_delete], bulk, Ship)
    with bulk_signals():
        Ship.objects.filter(pk=first.pk).delete()
    assert column(Sailor, "ship_id") == [second.pk]


def test_rows_that_a_cascade_changes_come_in_a_list(receivers: Receivers) -> None:
    (berth,) = rows(Berth, {"number": 1})
    ships(1, 2, berth=berth)
    lists = Lists(receivers, post_save, Ship)
    with bulk_signals():
        berth.delete()
    assert [[ship.berth_id for ship in instances] for instances in lists.instances] == [[None, None]]


def test_an_exception_leaves_no_row_deleted_and_the_next_delete_works(receivers: Receivers) -> None:
    ships(1, 2)
    fail = [True]

    def refuse(**arguments: Any) -> None:
        if fail:
            fail.clear()
            raise RuntimeError("no")

    bulk = bulk_receiver(post_delete, sender=Ship)(refuse)
    receivers.adopt([post_delete], bulk, Ship)
    with bulk_signals():
        with pytest.raises(RuntimeError, match="no"), transaction.atomic():
            Ship.objects.all().delete()
        assert Ship.objects.count() == 2
        Ship.objects.all().delete()
    assert not Ship.objects.exists()


# Nested saves, in flight, transactions


@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
def test_a_save_in_the_middle_of_a_round_gives_its_list_at_once(awaited: bool, receivers: Receivers) -> None:
    ships(1, 2)
    seen: list[Any] = []

    def save_others(instance: Ship, **arguments: Any) -> None:
        if instance.name != "z":
            return
        seen.append("before")
        Ship(name="new", speed=instance.speed + 10).save()
        seen.append("after")

    receivers.connect(post_save, save_others, Ship)

    def look(instances: list[Ship], **arguments: Any) -> None:
        seen.append([ship.speed for ship in instances])

    async def alook(**arguments: Any) -> None:
        look(**arguments)

    bulk = bulk_receiver(post_save, sender=Ship)(alook if awaited else look)
    receivers.adopt([post_save], bulk, Ship)
    with bulk_signals():
        Ship.objects.update(name="z")
    assert seen == ["before", [11], "after", "before", [12], "after", [1, 2]]


def test_the_save_of_an_instance_of_the_round_gives_a_list_of_its_own(receivers: Receivers) -> None:
    ships(1, 2)

    def save_again(instance: Ship, update_fields: Any, **arguments: Any) -> None:
        if update_fields == {"name"}:
            instance.save(update_fields=["name", "speed"])

    receivers.connect(post_save, save_again, Ship)
    lists = Lists(receivers, post_save, Ship)
    with bulk_signals():
        Ship.objects.update(name="z")
    assert [[ship.speed for ship in instances] for instances in lists.instances] == [[1], [2], [1, 2]]


def test_a_bulk_operation_in_the_middle_of_a_round_has_rounds_of_its_own(receivers: Receivers) -> None:
    fleet = ships(1, 2)
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in "ab"))
    receivers.connect(post_save, lambda instance, **arguments: instance.crew.update(name=instance.name), Ship)
    of_ships, of_sailors = Lists(receivers, post_save, Ship), Lists(receivers, post_save, Sailor)
    with bulk_signals():
        Ship.objects.update(name="z")
    assert [len(instances) for instances in of_ships.instances] == [2]
    assert [len(instances) for instances in of_sailors.instances] == [2, 2]


def test_the_rows_are_in_flight_and_the_transaction_is_open(receivers: Receivers) -> None:
    ships(1, 2)
    calls: list[bool] = []

    def touch(instances: list[Ship], **arguments: Any) -> None:
        calls.append(connection.in_atomic_block)
        Ship.objects.filter(pk__in=[ship.pk for ship in instances]).update(tonnage=F("tonnage") + 1)

    bulk = bulk_receiver(post_save, sender=Ship)(touch)
    receivers.adopt([post_save], bulk, Ship)
    with bulk_signals():
        Ship.objects.update(name="z")
    assert calls == [True]
    assert column(Ship, "tonnage") == [1, 1]


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_an_exception_of_its_own_leaves_no_row_changed(signal: Any, receivers: Receivers) -> None:
    ships(1, 2)

    def refuse(**arguments: Any) -> None:
        raise RuntimeError("no")

    bulk = bulk_receiver(signal, sender=Ship)(refuse)
    receivers.adopt([signal], bulk, Ship)
    with bulk_signals(), pytest.raises(RuntimeError, match="no"), transaction.atomic():
        Ship.objects.update(name="z")
    assert column(Ship, "name") == ["a", "b"]


def test_a_mixin_gives_lists_even_if_nothing_is_on(receivers: Receivers) -> None:
    Foghorn.objects.bulk_create([Foghorn(name=name) for name in "ab"])
    lists = Lists(receivers, post_save, Foghorn)
    Foghorn.objects.update(size=5)
    assert [[foghorn.name for foghorn in instances] for instances in lists.instances] == [["a", "b"]]


def test_it_costs_no_statement(receivers: Receivers) -> None:
    def statements() -> int:
        with bulk_signals(), CaptureQueriesContext(connection) as queries:
            Ship.objects.update(speed=F("speed") + 1)
        return len(queries)

    ships(1, 2, 3)
    receivers.connect(post_save, lambda **arguments: None, Ship)
    without = statements()
    Lists(receivers, post_save, Ship)
    assert statements() == without


# It behaves like any other receiver.


def test_disconnect_accepts_what_the_decorator_returned(receivers: Receivers) -> None:
    @bulk_receiver(post_save, sender=Ship)
    def look(**arguments: Any) -> None: ...

    assert post_save.has_listeners(Ship)
    assert post_save.disconnect(look, sender=Ship)
    assert not post_save.has_listeners(Ship)


def test_dispatch_uid_connects_and_disconnects_it_once() -> None:
    seen: list[Any] = []
    for _ in range(2):

        @bulk_receiver(post_save, sender=Ship, dispatch_uid="index", weak=False)
        def look(instances: list[Ship], **arguments: Any) -> None:
            seen.append(instances)

    ship = Ship.objects.create()
    assert seen == [[ship]]
    assert post_save.disconnect(sender=Ship, dispatch_uid="index")
    assert not post_save.has_listeners(Ship)


def test_a_signal_only_holds_a_weak_reference() -> None:
    @bulk_receiver(post_save, sender=Ship)
    def look(**arguments: Any) -> None: ...

    del look
    gc.collect()
    assert not post_save.has_listeners(Ship)


def test_a_sender_may_be_named_by_its_label(receivers: Receivers) -> None:
    seen: list[Any] = []
    bulk = bulk_receiver(post_save, sender="tests.Ship")(
        lambda instances, **arguments: seen.append(instances)
    )
    receivers.adopt([post_save], bulk, Ship)
    ship = Ship.objects.create()
    assert seen == [[ship]]


def test_it_may_be_connected_by_other_means_too(receivers: Receivers) -> None:
    seen: list[Any] = []

    @receiver(post_delete, sender=Ship)
    @bulk_receiver(post_save, sender=Ship)
    @bulk_receiver(pre_save, sender=Book)
    def look(signal: Signal, instances: list[Any], **arguments: Any) -> None:
        seen.append((signal, len(instances)))

    receivers.adopt([post_delete, post_save], look, Ship)
    receivers.adopt([pre_save], look, Book)
    with bulk_signals():
        ships(1, 2)
        Book.objects.bulk_create([Book(), Book()])
        Ship.objects.bulk_create([Ship()])
        Ship.objects.all().delete()
    assert seen == [(pre_save, 2), (post_save, 1), (post_delete, 3)]


def test_it_can_be_called_by_its_name() -> None:
    @bulk_receiver(post_save, sender=Ship)
    def count(sender: type[Model], instances: list[Ship], **arguments: Any) -> int:
        """Count them."""
        return len(instances)

    @bulk_receiver(post_save, sender=Ship)
    async def acount(sender: type[Model], instances: list[Ship], **arguments: Any) -> int:
        return len(instances)

    assert count(Ship, instances=[Ship()]) == count(Ship, [Ship()]) == 1
    assert async_to_sync(acount)(Ship, instances=[Ship()]) == 1
    assert (count.__name__, count.__doc__) == ("count", "Count them.")
    assert iscoroutinefunction(acount)
    assert not iscoroutinefunction(count)


def test_an_async_one_may_stand_beside_a_plain_receiver(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.connect(post_save, lambda **arguments: None, Ship)
    lists = Lists(receivers, post_save, Ship, awaited=True)
    with bulk_signals():
        Ship.objects.update(name="z")
    Ship.objects.create(speed=3)
    assert [[ship.speed for ship in instances] for instances in lists.instances] == [[1, 2], [3]]


def test_one_connected_in_the_middle_of_a_round_gets_lists_of_one_until_the_next(
    receivers: Receivers,
) -> None:
    rows(Token, *({"code": code} for code in "abcd"))
    lists: list[Lists] = []

    def connect(instance: Token, **arguments: Any) -> None:
        if not lists:
            lists.append(Lists(receivers, post_save, Token))

    receivers.connect(post_save, connect, Token)
    with bulk_signals(batch_size=2):
        Token.objects.update(uses=1)
    assert lists[0].keys == [["b"], ["c", "d"]]


@pytest.mark.parametrize("signal", [m2m_changed, [post_save, m2m_changed]])
def test_other_signals_are_refused(signal: Any) -> None:
    with pytest.raises(
        ValueError,
        match="cannot be used with bulk_receiver; valid are pre_save, post_save, pre_delete, post_",
    ):
        bulk_receiver(signal)


def test_a_function_that_does_not_take_what_signals_may_send_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must accept keyword arguments \(\*\*kwargs\)"):

        @bulk_receiver(post_save, sender=Ship)
        def look(sender: Any, instances: Any) -> None: ...

    assert not post_save.has_listeners(Ship)


def _of_one(sender: Any, instance: Any, **kwargs: Any) -> None: ...


def _of_one_by_default(sender: Any, instance: Any = None, **kwargs: Any) -> None: ...


def _of_none(sender: Any) -> None: ...


def _of_what_is_not_sent(instances: Any, created: bool, **kwargs: Any) -> None: ...


@pytest.mark.parametrize("function", [_of_one, _of_one_by_default, _of_none, _of_what_is_not_sent])
def test_a_function_that_does_not_take_a_list_is_refused_at_once(function: Any) -> None:
    message = rf"write {function.__name__}\(sender, instances, \*\*kwargs\)"
    with pytest.raises(TypeError, match=message):
        bulk_receiver([post_save, pre_save], sender=Ship)(function)
    assert not post_save.has_listeners(Ship)


def test_what_a_signal_gives_besides_may_be_a_parameter(receivers: Receivers) -> None:
    seen: list[bool] = []

    def look(instances: Any, created: bool, **kwargs: Any) -> None:
        seen.append(created)

    heard = bulk_receiver(post_save)(look)
    post_save.disconnect(heard)
    receivers.connect(post_save, heard, Ship)
    Ship.objects.create().save()
    assert seen == [True, False]


@pytest.mark.parametrize("sender", [[Ship], (Ship, Berth), 3])
def test_a_sender_that_is_not_one_model_is_refused(sender: Any) -> None:
    with pytest.raises(TypeError, match=r"sender must be one model class or its label 'app_label\.Model'"):
        bulk_receiver(post_save, sender=sender)


def test_the_decorator_without_a_signal_is_refused() -> None:
    function: Any = _of_one
    with pytest.raises(TypeError, match=r"needs a signal: @bulk_receiver\(post_save, sender=…\)"):
        bulk_receiver(function)


@pytest.mark.parametrize(
    ("signal", "name"),
    [
        (m2m_changed, "m2m_changed"),
        (request_started, "request_started"),
        (ModelSignal(), "this ModelSignal"),
        ("post_save", "'post_save'"),
    ],
)
def test_a_wrong_signal_is_named(signal: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} cannot be used with bulk_receiver"):
        bulk_receiver(signal)


def test_the_process_wide_switch_gives_lists_too(receivers: Receivers) -> None:
    publisher = Publisher.objects.create()
    rows(Book, {"publisher": publisher}, {"publisher": publisher})
    lists = Lists(receivers, post_delete, Book)
    enable()
    try:
        publisher.delete()
    finally:
        disable()
    assert [len(instances) for instances in lists.instances] == [2]
