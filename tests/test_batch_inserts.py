"""Rows that receivers insert, written together (contract.md, section 8.2).

The loop of saves is the oracle.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import F, Field, Model, Value
from django.db.models.functions import Upper
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.forms import model_to_dict
from django.test.utils import CaptureQueriesContext

import signal_patch
from signal_patch import bulk_receiver, bulk_signals
from signal_patch.options import Options
from tests.fleet import column, rows, ships
from tests.loops import Work
from tests.models import Book, Chapter, Foghorn, FoghornQuerySet, Novel, Shelf, Ship
from tests.receiver_models import (
    Aside,
    Empty,
    Entry,
    EntryProxy,
    Numbered,
    NumberedPlate,
    Plate,
    Shout,
    Slip,
    Snow,
    Stamped,
    Stub,
    TicketField,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Receivers

pytestmark = pytest.mark.django_db

TABLES = [Entry, Slip, Stub, Plate, Empty, Ship]
# The models to which the receivers of the scenarios write. All of these but ships are held.
HELD = [Entry, Slip, Stub, Plate, Empty]
ROWS = 5


def work(*receivers: Any, tables: Any = (Entry, Ship)) -> Work:
    return Work(
        lambda: ships(*range(ROWS)),
        Ship,
        lambda: {"name": "z"},
        [(post_save, receive) if callable(receive) else receive for receive in receivers],
        tables,
    )


def inserts(statements: list[str], model: type[Model] = Entry) -> int:
    start = f"INSERT INTO {connection.ops.quote_name(model._meta.db_table)}"
    return sum(sql.startswith(start) for sql in statements)


# Receivers that do not read the rows: one INSERT for each batch.


def create(seen: list[Any], ship: Ship) -> None:
    Entry.objects.create(number=ship.speed, text=ship.name)


def save(seen: list[Any], ship: Ship) -> None:
    seal = bytearray(b"saved")
    entry = Entry(number=ship.speed, text=ship.name, data=[ship.speed], seal=seal)
    entry.save()
    entry.text = "not saved"
    entry.data.append("not saved")
    seal[:] = b"other"
    seen.append((entry.number, entry._state.adding, entry._state.db))


def create_by_proxy(seen: list[Any], ship: Ship) -> None:
    EntryProxy.objects.create(number=ship.speed)


def create_with_key(seen: list[Any], ship: Ship) -> None:
    slip = Slip.objects.create(pk=uuid.UUID(int=ship.speed), number=ship.speed)
    Slip(id=uuid.UUID(int=ship.speed + 100), before=slip).save()
    seen.append((slip.pk, slip == Slip(pk=uuid.UUID(int=ship.speed)), hash(slip)))


def create_with_given_number(seen: list[Any], ship: Ship) -> None:
    Entry.objects.create(pk=100_000 + ship.speed, number=ship.speed)


def ask_elsewhere(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    seen.append(Book.objects.filter(title="x").exists())
    Book.objects.create(title=ship.name)
    Book.objects.filter(pk=0).update(title="y")


async def acreate(seen: list[Any], ship: Ship) -> None:
    await Entry.objects.acreate(number=ship.speed)


async def create_in_sync(seen: list[Any], ship: Ship) -> None:
    await sync_to_async(Entry.objects.create)(number=ship.speed)


UNSEEN: dict[str, tuple[Any, Any]] = {
    "create": (create, Entry),
    "save, then change": (save, Entry),
    "a proxy": (create_by_proxy, Entry),
    "a key that is known": (create_with_key, Slip),
    "a number as key": (create_with_given_number, Entry),
    "statements on other tables": (ask_elsewhere, Entry),
    "acreate": (acreate, Entry),
    "sync_to_async": (create_in_sync, Entry),
}


@pytest.mark.parametrize("batch_size", [1, 2, 2000])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
@pytest.mark.parametrize(("receive", "model"), UNSEEN.values(), ids=UNSEEN)
def test_one_insert_for_each_batch_leaves_what_the_loop_leaves(
    receive: Any, model: Any, signal: Any, batch_size: int
) -> None:
    scenario = work((signal, receive), tables=TABLES)
    loop = scenario.by_loop()
    held = scenario.by_update(batch_inserts=HELD, batch_size=batch_size)
    assert held.of() == loop.of()
    assert loop.error is None
    batches = -(-ROWS // batch_size)
    assert inserts(held.statements, model) == batches
    assert scenario.by_bulk_update(batch_inserts=["tests"], batch_size=batch_size).of() == loop.of()


def test_each_model_has_an_insert_of_its_own() -> None:
    def record(seen: list[Any], ship: Ship) -> None:
        Entry.objects.create(number=ship.speed)
        slip = Slip.objects.create(id=uuid.UUID(int=ship.speed), number=ship.speed)
        Stub.objects.create(slip=slip)

    scenario = work(record, tables=TABLES)
    loop, held = scenario.by_loop(), scenario.by_update(batch_inserts=HELD)
    assert held.of() == loop.of()
    assert [inserts(held.statements, model) for model in (Entry, Slip, Stub)] == [1, 1, 1]


# Receivers that read the rows: the rows are inserted first, and the receivers see what the loop shows.


def read_key(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    seen.append(entry.pk - Entry.objects.order_by("pk")[0].pk)


def read_attribute(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    seen.append(entry.id is None)


def create_and_count(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    seen.append(Entry.objects.filter(number=ship.speed).count())


def get_or_create(seen: list[Any], ship: Ship) -> None:
    seen.append(Entry.objects.get_or_create(number=ship.speed % 2, defaults={"text": "new"})[1])


def update_or_create(seen: list[Any], ship: Ship) -> None:
    seen.append(Entry.objects.update_or_create(number=ship.speed % 2, defaults={"text": ship.name})[1])


def save_again(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    entry.text = "again"
    entry.save()


def clone(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    entry.pk = None
    entry.save()
    seen.append(entry.number)


def set_key(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    entry.id = 5
    seen.append(entry.id)


def remove_key(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    del entry.id
    seen.append("id" in entry.__dict__)


def update_it(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    seen.append(Entry.objects.filter(number=ship.speed).update(text="y"))


def delete_it(seen: list[Any], ship: Ship) -> None:
    Entry.objects.create(number=ship.speed).delete()


def delete_others(seen: list[Any], ship: Ship) -> None:
    slip = Slip.objects.create(id=uuid.UUID(int=ship.speed))
    Stub.objects.create(slip=slip)
    seen.append(Slip.objects.filter(number=0).delete()[0])


def refresh(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    Entry.objects.update(text="fresh")
    entry.refresh_from_db()
    seen.append(entry.text)


def compare(seen: list[Any], ship: Ship) -> None:
    entry, other = Entry.objects.create(number=1), Entry.objects.create(number=2)
    seen.append((entry == other, entry == copy.copy(entry), len({entry, other})))


def copy_it(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    copies = copy.copy(entry), copy.deepcopy(entry), pickle.loads(pickle.dumps(entry))
    seen.append([twin.__dict__["id"] == entry.pk for twin in copies])


def to_dict(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    seen.append(model_to_dict(entry)["id"] == entry.pk)


def refer(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    Slip.objects.create(id=uuid.UUID(int=ship.speed), entry=entry)
    seen.append(entry.slip_set.count())


def refer_without_being_held(seen: list[Any], ship: Ship) -> None:
    key = uuid.UUID(int=ship.speed)
    Slip.objects.create(id=key)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tests_stub (number, slip_id) SELECT 7, %s WHERE 1 = 1"
            if connection.vendor == "mysql"
            else "INSERT INTO tests_stub (number, slip_id) VALUES (7, %s)",
            [Slip._meta.pk.get_db_prep_value(key, connection)],
        )


def refer_to_a_later_model(seen: list[Any], ship: Ship) -> None:
    first = Slip.objects.create(id=uuid.UUID(int=3 * ship.speed + 1))
    Stub.objects.create(slip=first)
    second = Slip.objects.create(id=uuid.UUID(int=3 * ship.speed + 2), before=first)
    Stub.objects.create(slip=second, number=2)


def with_and_without_key(seen: list[Any], ship: Ship) -> None:
    Entry.objects.create(number=1)
    Entry.objects.create(pk=100 * (ship.speed + 1), number=2)
    Entry.objects.create(number=3)


def savepoint_rolled_back(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    try:
        with transaction.atomic():
            Entry.objects.create(number=-ship.speed, text="undone")
            raise RuntimeError
    except RuntimeError:
        seen.append(Entry.objects.filter(text="undone").count())
    create(seen, ship)


def savepoint_kept(seen: list[Any], ship: Ship) -> None:
    with transaction.atomic():
        Entry.objects.create(number=-ship.speed)
    create(seen, ship)


def savepoint_around_what_was_held(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    point = connection.savepoint()
    create(seen, ship)
    assert point is not None
    connection.savepoint_rollback(point)


def conflict_caught(seen: list[Any], ship: Ship) -> None:
    Entry.objects.create(number=ship.speed, mark=ship.speed % 2)


def conflict_caught_in_a_savepoint(seen: list[Any], ship: Ship) -> None:
    try:
        with transaction.atomic():
            Entry.objects.create(number=ship.speed, mark=ship.speed % 2)
    except IntegrityError:
        seen.append("conflict")


def wrong_value(seen: list[Any], ship: Ship) -> None:
    try:
        Entry.objects.create(number="none")
    except ValueError:
        seen.append("wrong")


def wrong_value_uncaught(seen: list[Any], ship: Ship) -> None:
    Entry.objects.create(number="none")


def raw_cursor(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM TESTS_ENTRY"
            if connection.vendor == "sqlite"
            else "SELECT COUNT(*) FROM tests_entry"
        )
        seen.append(cursor.fetchone()[0])


def other_statement(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    with connection.cursor() as cursor:
        cursor.execute("WITH x AS (SELECT 1) SELECT * FROM x")
        seen.append(cursor.fetchone()[0])


def raise_at_third(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    if ship.speed == 2:
        raise RuntimeError


def broken_transaction(seen: list[Any], ship: Ship) -> None:
    if ship.speed == 2:
        transaction.set_rollback(True)
    create(seen, ship)


def nested_update(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    if ship.speed == 2 and ship.tonnage == 0:
        Ship.objects.filter(speed__gt=2).update(tonnage=1)
    create(seen, ship)


def save_expression(seen: list[Any], ship: Ship) -> None:
    entry = Entry(number=ship.speed, text=Upper(Value(ship.name)))
    entry.save()
    entry.refresh_from_db()
    seen.append(entry.text)


def save_what_a_field_makes_an_expression(seen: list[Any], ship: Ship) -> None:
    Plate.objects.create(code=ship.name)
    seen.append(column(Plate, "code")[-1])


def bulk_create_as_well(seen: list[Any], ship: Ship) -> None:
    create(seen, ship)
    Entry.objects.bulk_create([Entry(number=7), Entry(number=8)])


def hand_over(seen: list[Any], ship: Ship) -> None:
    """Give an instance that is not saved yet to the next receiver."""
    ship.entry = Entry.objects.create(number=ship.speed)  # type: ignore[attr-defined]  # for later


def take_over(seen: list[Any], ship: Ship) -> None:
    seen.append(ship.entry.pk - Entry.objects.order_by("pk")[0].pk)  # type: ignore[attr-defined]  # as above


LOOKING: dict[str, Any] = {
    function.__name__: function
    for function in (
        read_key,
        read_attribute,
        create_and_count,
        get_or_create,
        update_or_create,
        save_again,
        clone,
        set_key,
        remove_key,
        update_it,
        delete_it,
        delete_others,
        refresh,
        compare,
        copy_it,
        to_dict,
        refer,
        refer_without_being_held,
        refer_to_a_later_model,
        savepoint_rolled_back,
        savepoint_kept,
        savepoint_around_what_was_held,
        conflict_caught,
        conflict_caught_in_a_savepoint,
        wrong_value_uncaught,
        raw_cursor,
        other_statement,
        raise_at_third,
        broken_transaction,
        save_expression,
        save_what_a_field_makes_an_expression,
        bulk_create_as_well,
    )
}


@pytest.mark.parametrize("batch_size", [2, 2000])
@pytest.mark.parametrize("receive", LOOKING.values(), ids=LOOKING)
def test_a_receiver_that_looks_sees_what_the_loop_shows(receive: Any, batch_size: int) -> None:
    scenario = work(receive, tables=TABLES)
    loop = scenario.by_loop()
    held = scenario.by_update(batch_inserts=HELD, batch_size=batch_size)
    assert held.of() == loop.of()


@pytest.mark.parametrize("batch_size", [2, 2000])
@pytest.mark.parametrize("receive", [wrong_value, nested_update])
def test_where_batches_differ_from_the_loop_the_option_changes_nothing(receive: Any, batch_size: int) -> None:
    scenario = work(receive)
    one_by_one = scenario.by_update(batch_size=batch_size)
    assert scenario.by_update(batch_inserts=[Entry], batch_size=batch_size).of() == one_by_one.of()


def prepare_an_expression(seen: list[Any], ship: Ship) -> None:
    Shout.objects.create(text=ship.name)


def make_a_key(seen: list[Any], ship: Ship) -> None:
    seen.append(Snow.objects.create(number=ship.speed).pk)


def save_again_as_new(seen: list[Any], ship: Ship) -> None:
    entry = Entry.objects.create(number=ship.speed)
    entry._state.adding = True
    entry.text = "again"
    entry.save()


def create_by_proxy_with_its_own_insert(seen: list[Any], ship: Ship) -> None:
    Stamped.objects.create(number=ship.speed)


def keep_the_key_elsewhere(seen: list[Any], ship: Ship) -> None:
    aside = Aside(id=ship.speed + 1)
    aside.save()
    seen.append(aside.pk)


def lack_the_key(seen: list[Any], ship: Ship) -> None:
    entry = Entry(number=4)
    del entry.id
    entry.save()


def draw_a_ticket(seen: list[Any], ship: Ship) -> None:
    plate = NumberedPlate.objects.create(code="a")
    seen.append((plate.number, Numbered.objects.create().number))


def give_the_key_as_text(seen: list[Any], ship: Ship) -> None:
    seen.append(Entry.objects.create(pk=str(500 + ship.speed), number=1).pk)


UNUSUAL = [
    prepare_an_expression,
    make_a_key,
    save_again_as_new,
    create_by_proxy_with_its_own_insert,
    keep_the_key_elsewhere,
    lack_the_key,
    draw_a_ticket,
    give_the_key_as_text,
]


@pytest.mark.parametrize("receive", UNUSUAL)
def test_models_that_prepare_their_rows_in_their_own_way_do_so(receive: Any) -> None:
    models: list[type[Model]] = [Aside, Entry, Numbered, Shout, Snow, NumberedPlate]
    scenario = work(receive, tables=models)
    Aside.tickets = TicketField.tickets = itertools.count(1)
    loop = scenario.by_loop()
    Aside.tickets = TicketField.tickets = itertools.count(1)
    held = scenario.by_update(batch_inserts=[*models, Stamped])
    assert held.of() == loop.of()


TEXT = Entry._meta.get_field("text")


def _replaced(field: Any, instance: Model, add: bool) -> Any:
    value = getattr(instance, field.attname)
    return f"{value} replaced" if field is TEXT else value


@pytest.mark.parametrize(
    ("owner", "pre_save"),
    [(TEXT, partial(_replaced, TEXT)), (Field, _replaced)],
    ids=["of one field", "of all"],
)
def test_a_pre_save_that_somebody_has_replaced_is_called(
    owner: Any, pre_save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "pre_save", pre_save)
    scenario = work(create)
    loop = scenario.by_loop()
    assert "z replaced" in str(loop.rows)
    assert scenario.by_update(batch_inserts=[Entry]).of() == loop.of()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="elsewhere the next key goes on after a rollback")
def test_rows_with_and_without_a_key_of_one_model_keep_their_order() -> None:
    scenario = work(with_and_without_key)
    assert scenario.by_update(batch_inserts=[Entry]).of() == scenario.by_loop().of()


def test_an_instance_may_be_handed_on_and_looked_at_later() -> None:
    scenario = work((pre_save, hand_over), take_over)
    assert scenario.by_update(batch_inserts=[Entry]).of() == scenario.by_update().of()


def test_a_receiver_of_the_rows_own_pre_save_is_called_at_once(receivers: Receivers) -> None:
    def fill(instance: Entry, **arguments: Any) -> None:
        instance.text = f"filled {instance.number}"

    receivers.connect(pre_save, fill, Entry)
    scenario = work(create)
    loop, held = scenario.by_loop(), scenario.by_update(batch_inserts=[Entry])
    assert held.of() == loop.of()
    assert inserts(held.statements) == 1


def test_rows_of_a_model_with_post_save_receivers_are_not_held(receivers: Receivers) -> None:
    keys: list[Any] = []
    receivers.connect(post_save, lambda instance, **arguments: keys.append(instance.pk), Entry)
    scenario = work(create)
    loop = scenario.by_loop()
    keys.clear()
    held = scenario.by_update(batch_inserts=[Entry])
    assert held.of() == loop.of()
    assert inserts(held.statements) == ROWS
    assert None not in keys


def test_models_that_are_not_named_are_not_held() -> None:
    scenario = work(create)
    assert inserts(scenario.by_update(batch_inserts=[Slip, "auth"]).statements) == ROWS


NOT_HELD: dict[str, tuple[type[Model], Callable[[Ship], object]]] = {
    "two tables": (Novel, lambda ship: Novel.objects.create(title=ship.name)),
    "defaults and generated columns": (Shelf, lambda ship: Shelf.objects.create(label=f"{ship.speed}")),
    "nothing but a key": (Empty, lambda ship: Empty.objects.create()),
    "an order of its own": (Chapter, lambda ship: Chapter.objects.create(book=Book.objects.get())),
    "raw": (Entry, lambda ship: Entry(number=1, made="2020-01-01T00:00Z").save_base(raw=True)),
}


@pytest.mark.parametrize(("model", "make"), NOT_HELD.values(), ids=NOT_HELD)
def test_some_rows_are_inserted_at_once(model: type[Model], make: Callable[[Ship], object]) -> None:
    def receive(seen: list[Any], ship: Ship) -> None:
        make(ship)

    if model is Chapter:
        Book.objects.create()
    scenario = work(receive, tables=[Entry, Ship])
    loop, not_held = scenario.by_loop(), scenario.by_update(batch_inserts=["tests"])
    assert not_held.of() == loop.of()
    assert inserts(not_held.statements, model) == ROWS


def test_what_the_database_refuses_is_an_error_that_names_the_model_and_nothing_is_changed() -> None:
    ships(1, 2, 3)

    def conflict(instance: Ship, **arguments: Any) -> None:
        Entry.objects.create(number=instance.speed, mark=5)

    post_save.connect(conflict, sender=Ship)
    try:
        with (
            bulk_signals(batch_inserts=[Entry]),
            pytest.raises(
                IntegrityError, match=r"tests\.Entry, inserted for receivers: .*(?i:unique|duplicate)"
            ),
            transaction.atomic(),
        ):
            Ship.objects.update(name="z")
        assert column(Ship, "name") == ["a", "b", "c"]
        assert not Entry.objects.exists()
    finally:
        post_save.disconnect(conflict, sender=Ship)


def test_another_thread_has_its_own_connection() -> None:
    """A thread that a receiver starts is not part of the operation."""
    seen: list[Any] = []

    def receive(_: list[Any], ship: Ship) -> None:
        create(_, ship)

        def look() -> None:
            seen.append(vars(connections["default"])["execute_wrappers"])

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    work(receive).by_update(batch_inserts=[Entry])
    assert seen == [[]] * ROWS


@pytest.mark.django_db(databases=["default", "other"])
def test_rows_of_another_database_are_not_held(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.connect(
        post_save,
        lambda instance, **arguments: [
            Entry.objects.using("other").create(number=instance.speed).pk,
            Entry.objects.create(number=instance.speed),
        ],
        Ship,
    )
    with bulk_signals(batch_inserts=[Entry]):
        Ship.objects.update(name="z")
    assert column(Entry, "number", using="other") == column(Entry, "number") == [1, 2]


@pytest.mark.django_db(databases=["default", "other"])
def test_a_nested_operation_on_another_database_leaves_held_rows_to_the_outer_one(
    receivers: Receivers,
) -> None:
    ships(1, 2)
    rows(Book, {"title": "a"}, using="other")
    receivers.connect(
        post_save, lambda instance, **arguments: Book.objects.using("other").update(title="z"), Ship
    )
    receivers.connect(post_save, lambda instance, **arguments: Entry.objects.create(number=5), Book)
    with bulk_signals(batch_inserts=[Entry]):
        Ship.objects.update(name="z")
    assert column(Entry, "number") == [5, 5]


def test_nested_operations_keep_the_order(receivers: Receivers) -> None:
    publications = rows(Book, {"title": "a"}, {"title": "b"})

    def receive(seen: list[Any], ship: Ship) -> None:
        create(seen, ship)
        Book.objects.update(status=ship.name)
        create(seen, ship)

    def nested(instance: Book, **arguments: Any) -> None:
        Entry.objects.create(number=100, text=instance.title)

    receivers.connect(post_save, nested, Book)
    scenario = work(receive)
    one_by_one = scenario.by_update()
    assert scenario.by_update(batch_inserts=[Entry]).of() == one_by_one.of()
    assert scenario.by_update(batch_inserts=[Entry], batch_size=1).of() == one_by_one.of()
    assert len(publications) == 2


# The other operations


@pytest.mark.parametrize("batch_size", [1, 2, 2000])
def test_rows_that_receivers_of_bulk_create_save_are_held(batch_size: int, receivers: Receivers) -> None:
    for signal in (pre_save, post_save):
        receivers.connect(signal, lambda instance, **arguments: create([], instance), Ship)
    options: dict[str, Any] = {"batch_size": batch_size, "batch_inserts": [Entry]}
    with bulk_signals(**options), CaptureQueriesContext(connection) as queries:
        Ship.objects.bulk_create([Ship(speed=number) for number in range(4)])
    assert inserts([query["sql"] for query in queries]) == 2 * -(-4 // batch_size)
    assert sorted(column(Entry, "number")) == sorted([*range(4)] * 2)


def test_rows_that_receivers_of_a_delete_save_are_held(receivers: Receivers) -> None:
    ships(1, 2, 3)
    for signal in (pre_delete, post_delete):
        receivers.connect(signal, lambda instance, **arguments: create([], instance), Ship)
    with bulk_signals(batch_inserts=[Entry]), CaptureQueriesContext(connection) as queries:
        assert Ship.objects.all().delete()[0] == 3
    assert inserts([query["sql"] for query in queries]) == 2
    assert column(Entry, "number") == [1, 2, 3, 3, 2, 1]


def test_rows_that_receivers_of_lists_save_are_held(receivers: Receivers) -> None:
    ships(1, 2, 3)

    def record(instances: list[Ship], **arguments: Any) -> None:
        for ship in instances:
            create([], ship)

    receivers.adopt([post_save], bulk_receiver(post_save, sender=Ship)(record), Ship)
    with bulk_signals(batch_inserts=[Entry]), CaptureQueriesContext(connection) as queries:
        Ship.objects.update(name="z")
    assert inserts([query["sql"] for query in queries]) == 1


@pytest.mark.parametrize("inserting", [True, False])
def test_a_batch_takes_as_many_statements_however_many_rows_it_has(
    inserting: bool, receivers: Receivers
) -> None:
    def statements(count: int) -> int:
        Ship.objects.all().delete()
        ships(*range(count))
        with bulk_signals(batch_inserts=[Entry]), CaptureQueriesContext(connection) as queries:
            Ship.objects.update(speed=F("speed") + 1)
        return len(queries)

    if inserting:
        receivers.connect(post_save, lambda instance, **arguments: create([], instance), Ship)
    receivers.connect(pre_save, lambda instance, **arguments: None, Ship)
    assert statements(3) == statements(30)


# What is patched


def test_outside_of_an_operation_nothing_is_held() -> None:
    with bulk_signals(batch_inserts=[Entry]):
        entry = Entry.objects.create(number=1)
        assert entry.__dict__["id"] is not None


def test_the_patched_key_behaves_like_a_plain_attribute() -> None:
    work(create).by_update(batch_inserts=[Entry])
    with bulk_signals(batch_inserts=[Entry]):
        entry = Entry(number=1)
        assert [entry.pk] == [None]
        entry.save()
        assert Entry.objects.only("number").get(pk=entry.pk).number == 1
        del entry.id
        with pytest.raises(AttributeError):
            entry.serializable_value("id")
        entry.id = 3
        assert entry.pk == 3
        assert isinstance(Entry.__dict__["id"], DeferredAttribute)
        attribute: Any = Entry.id
        assert attribute is Entry.__dict__["id"]


def test_patches_come_with_the_first_use_and_go_when_all_is_off() -> None:
    found = Model.__dict__["_save_table"], Model.__dict__["__reduce__"], Entry.__dict__["id"]
    with bulk_signals():
        Ship.objects.update(name="z")
        assert Model.__dict__["_save_table"] is found[0]
    work(create).by_update(batch_inserts=[Entry])
    assert Model.__dict__["_save_table"] is not found[0]
    assert Entry.__dict__["id"] is not found[2]
    signal_patch.disable()
    assert (Model.__dict__["_save_table"], Model.__dict__["__reduce__"], Entry.__dict__["id"]) == found


# The option


def test_the_option_takes_models_as_the_switch_does() -> None:
    assert Options(batch_inserts=[Entry, "tests.Slip", "auth"]).batch_inserts == (Entry, Slip, "auth")
    for wrong, error, message in (
        (
            "tests.Entry",
            TypeError,
            r"batch_inserts must be a collection of models, such as .*not 'tests.Entry'",
        ),
        ([3], TypeError, "3 is neither a model class nor a label"),
        (["a.b.c"], ValueError, "'a.b.c' is not a label"),
        (["tests.Entri"], LookupError, "did you mean 'Entry'"),
    ):
        with pytest.raises(error, match=message):
            signal_patch.enable(batch_inserts=wrong)  # type: ignore[arg-type]  # that is the point


@pytest.fixture
def _forgets_the_mixin(_leaves_no_trace: None) -> Iterator[None]:
    yield
    # The patches that a mixin needs stay.
    signal_patch.scopes.process.holds_inserts = False


@pytest.mark.usefixtures("_forgets_the_mixin")
def test_a_mixin_may_have_it_and_keeps_it_when_all_is_off(receivers: Receivers) -> None:
    class Batched(FoghornQuerySet):
        signal_options = Options(batch_inserts=[Entry])

    rows(Foghorn, {"name": "a"}, {"name": "b"})
    signal_patch.disable()
    receivers.connect(post_save, lambda instance, **arguments: Entry.objects.create(number=1), Foghorn)
    with CaptureQueriesContext(connection) as queries:
        Batched(Foghorn).update(name="z")
    assert inserts([query["sql"] for query in queries]) == 1
