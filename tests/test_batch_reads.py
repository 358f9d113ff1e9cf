"""Reads of single rows of the batch, answered from one query for all of them (contract.md, 8.3)."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Count, F, Sum, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_delete, post_init, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

import signal_patch
from signal_patch import bulk_receiver, bulk_signals
from signal_patch.options import Options
from tests.fleet import column, rows, ships
from tests.loops import Work
from tests.models import Beacon, Berth, Buoy, Mooring, Novel, Port, Sailor, Ship
from tests.receiver_models import Cover, Entry, Page
from tests.recording import field_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Receivers

pytestmark = pytest.mark.django_db

ROWS = 6
BOTH = (pre_save, post_save)


@pytest.fixture(autouse=True)
def _leaves_the_connection_alone() -> Iterator[None]:
    yield
    assert "compiler" not in vars(connection.ops)
    assert not connection.execute_wrappers


def values(obj: Any) -> Any:
    """Return the values of an object, except the time of its last save."""
    return obj and {name: value for name, value in field_values(obj).items() if name != "changed"}


def fleet() -> None:
    """Create ships, each with its own berth; the keys begin at 1."""
    (port,) = rows(Port, {"id": 1, "code": "P"})
    berths = rows(Berth, *({"id": number + 1, "number": number, "port": port} for number in range(ROWS)))
    rows(
        Ship,
        *(
            {"id": b.pk, "name": "abcdefgh"[b.number], "speed": b.number, "berth": b, "notes": [b.number]}
            for b in berths
        ),
    )


def berth_of(ship: Ship) -> Berth:
    assert ship.berth is not None
    return ship.berth


def work(*receivers: Any) -> Work:
    return Work(
        fleet,
        Ship,
        lambda: {"name": "z", "price": 5},
        [(post_save, receive) if callable(receive) else receive for receive in receivers],
        [Ship, Entry, Sailor],
    )


def selects(statements: list[str], table: str = "tests_ship") -> int:
    start = f"FROM {connection.ops.quote_name(table)}"
    return sum(sql.startswith("SELECT") and start in sql for sql in statements)


def attempt(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # noqa: BLE001  # to be compared
        return repr(error)


def shown(read: Callable[[Any], Any]) -> Callable[[list[Any], Any], None]:
    def receive(seen: list[Any], ship: Any) -> None:
        seen.append(attempt(lambda: read(ship)))

    return receive


# Reads that are answered


def refreshed(ship: Ship, fields: list[str] | None = None) -> Ship:
    other = Ship(pk=ship.pk)
    other.refresh_from_db(fields=fields)
    return other


ANSWERED: dict[str, Callable[[Ship], Any]] = {
    "get": lambda ship: values(Ship.objects.get(pk=ship.pk)),
    "get by id": lambda ship: values(Ship.objects.get(id=ship.id)),
    "get by text": lambda ship: values(Ship.objects.get(pk=str(ship.pk))),
    "first": lambda ship: values(Ship._default_manager.filter(pk=ship.pk).first()),
    "exists": lambda ship: Ship.objects.filter(pk=ship.pk).exists(),
    "contains": lambda ship: Ship.objects.all().contains(ship),
    "slice": lambda ship: values(Ship.objects.filter(pk=ship.pk)[0]),
    "latest": lambda ship: values(Ship.objects.filter(pk=ship.pk).latest("speed")),
    "values": lambda ship: Ship.objects.filter(pk=ship.pk).values("name", "speed").get(),
    "flat": lambda ship: Ship.objects.filter(pk=ship.pk).values_list("price", flat=True).first(),
    "named": lambda ship: tuple(Ship.objects.values_list("price", "name", named=True).get(pk=ship.pk)),
    "only": lambda ship: values(Ship.objects.only("speed").get(pk=ship.pk)),
    "defer": lambda ship: values(Ship.objects.defer("speed").get(pk=ship.pk)),
    "deferred attribute": lambda ship: Ship.objects.only("pk").get(pk=ship.pk).name,
    "refresh_from_db": lambda ship: values(refreshed(ship)),
    "some fields": lambda ship: refreshed(ship, ["price"]).price,
    "using": lambda ship: values(Ship._base_manager.using("default").get(pk=ship.pk)),
    "twice": lambda ship: [
        values(o) for qs in [Ship.objects.filter(pk=ship.pk)] for q in (qs, qs.all()) for o in q
    ],
    "with another condition": lambda ship: values(Ship.objects.filter(pk=ship.pk, status="afloat").first()),
    "without another one": lambda ship: attempt(
        lambda: Ship.objects.exclude(status="afloat").get(pk=ship.pk)
    ),
    "one of some": lambda ship: values(Ship.objects.filter(pk=ship.pk, speed__in=[1, 2, 3]).first()),
    "ordered by chance": lambda ship: values(Ship.objects.order_by("?").filter(pk=ship.pk).first()),
    "JSON that is changed": lambda ship: [
        (other := Ship.objects.get(pk=ship.pk)).notes.append(1) or other.notes for _ in "ab"
    ],
}


@pytest.mark.parametrize("batch_size", [3, 2000])
@pytest.mark.parametrize("read", ANSWERED.values(), ids=ANSWERED)
def test_reads_by_key_are_answered_from_one_query(read: Callable[[Ship], Any], batch_size: int) -> None:
    scenario = work((pre_save, shown(read)))
    one_by_one = scenario.by_update(batch_size=batch_size)
    answered = scenario.by_update(batch_reads=True, batch_size=batch_size)
    assert answered.of() == one_by_one.of()
    assert len(answered.seen) == ROWS
    # The first read runs its own query; then there is one query for each batch of more than two rows.
    assert selects(one_by_one.statements) - selects(answered.statements) >= ROWS - 3
    again = scenario.by_bulk_update(batch_reads=True, batch_size=batch_size)
    assert again.of() == scenario.by_bulk_update(batch_size=batch_size).of()


@pytest.mark.parametrize("name", ["get", "first", "flat", "exists", "JSON that is changed"])
def test_what_is_read_before_and_after_the_write_is_what_was_there(name: str) -> None:
    read = shown(ANSWERED[name])
    scenario = work(*((signal, read) for signal in BOTH), (post_save, read))
    assert scenario.by_update(batch_reads=True).of() == scenario.by_update().of()
    loop = work((pre_save, read))
    assert loop.by_update(batch_reads=True).seen == loop.by_loop().seen


def test_a_round_takes_one_query_for_each_kind_of_read(receivers: Receivers) -> None:
    def statements(count: int) -> int:
        Ship.objects.all().delete()
        ships(*range(count))
        with bulk_signals(batch_reads=True), CaptureQueriesContext(connection) as queries:
            Ship.objects.update(speed=F("speed") + 1)
        return len(queries)

    for signal in BOTH:
        receivers.connect(
            signal,
            lambda instance, **arguments: [
                Ship.objects.get(pk=instance.pk),
                Ship.objects.filter(pk=instance.pk, speed=-1).exists(),
            ],
            Ship,
        )
    assert statements(4) == statements(40)


# Reads that are not answered: their query runs.

NOTHING: Any = None
RUN: dict[str, Callable[[Ship], Any]] = {
    "count": lambda ship: Ship.objects.filter(pk=ship.pk).count(),
    "aggregate": lambda ship: Ship.objects.filter(pk=ship.pk).aggregate(Sum("speed")),
    "annotation": lambda ship: Ship.objects.annotate(more=F("speed") + 1).get(pk=ship.pk).more,
    "group": lambda ship: Ship.objects.values("name").annotate(n=Count("pk")).filter(pk=ship.pk).get(),
    "distinct": lambda ship: values(Ship.objects.distinct().get(pk=ship.pk)),
    "select_related": lambda ship: berth_of(Ship.objects.select_related("berth").get(pk=ship.pk)).number,
    "ordered by another table": lambda ship: values(
        Ship.objects.order_by("berth__number").filter(pk=ship.pk).first()
    ),
    "condition on another table": lambda ship: values(
        Ship.objects.filter(pk=ship.pk, berth__number=1).first()
    ),
    "condition on an expression": lambda ship: values(
        Ship.objects.filter(pk=ship.pk, speed=F("tonnage")).first()
    ),
    "condition on a transform": lambda ship: values(Ship.objects.filter(pk=ship.pk, notes__0=1).first()),
    "condition on JSON": lambda ship: values(Ship.objects.filter(pk=ship.pk, notes=[1]).first()),
    "two keys": lambda ship: values(Ship.objects.filter(pk=ship.pk).filter(pk=ship.pk).first()),
    "one key or another": lambda ship: len(
        Ship.objects.filter(pk=ship.pk) | Ship.objects.filter(pk=ship.pk + 1)
    ),
    "not the key": lambda ship: len(Ship.objects.exclude(pk=ship.pk)),
    "a list of keys": lambda ship: [values(other) for other in Ship.objects.filter(pk__in=[ship.pk])],
    "in_bulk": lambda ship: [values(other) for other in Ship.objects.in_bulk([ship.pk]).values()],
    "offset": lambda ship: len(Ship.objects.filter(pk=ship.pk)[1:]),
    "lock": lambda ship: values(Ship.objects.select_for_update().get(pk=ship.pk)),
    "union": lambda ship: len(Ship.objects.filter(pk=ship.pk).union(Ship.objects.filter(pk=ship.pk))),
    "subquery": lambda ship: Berth.objects.filter(
        pk__in=Ship.objects.filter(pk=ship.pk).values("berth")
    ).count(),
    "raw": lambda ship: [
        values(other) for other in Ship.objects.raw("SELECT * FROM tests_ship WHERE id = %s", [ship.pk])
    ],
    "extra": lambda ship: Ship.objects.extra(select={"one": "1"}).get(pk=ship.pk).one,
    "no key": lambda ship: attempt(lambda: Ship.objects.get(pk=NOTHING)),
    "wrong key": lambda ship: attempt(lambda: Ship.objects.get(pk="none")),
    "a key of no row of the batch": lambda ship: values(Ship.objects.filter(pk=ship.pk + 10_000).first()),
    "related manager": lambda ship: berth_of(ship).ships.filter(pk=ship.pk).exists(),
    "iterator": lambda ship: [values(other) for other in Ship.objects.filter(pk=ship.pk).iterator()],
    "no condition": lambda ship: len(Ship.objects.all()),
    "other values each time": lambda ship: Ship.objects.filter(pk=ship.pk, speed=ship.pk - 1).exists(),
    "true or one": lambda ship: len(Ship.objects.filter(pk=ship.pk, name__in=[ship.name, "z"], slug=None)),
}


@pytest.mark.parametrize("read", RUN.values(), ids=RUN)
def test_other_queries_run_as_ever(read: Callable[[Ship], Any]) -> None:
    scenario = work(*((signal, shown(read)) for signal in BOTH))
    one_by_one, answered = scenario.by_update(), scenario.by_update(batch_reads=True)
    assert answered.of() == one_by_one.of()


def test_more_kinds_of_reads_than_are_tracked_give_the_right_answers() -> None:
    def read(ship: Ship) -> Any:
        return [Ship.objects.filter(pk=ship.pk, speed__lt=limit).exists() for limit in range(20)]

    scenario = work((pre_save, shown(read)))
    assert scenario.by_update(batch_reads=True).of() == scenario.by_update().of()


def test_instances_are_made_for_each_read(receivers: Receivers) -> None:
    fleet()
    loaded: list[Any] = []
    receivers.connect(post_init, lambda instance, **arguments: loaded.append(instance.pk), Ship)

    def read(instance: Ship, **arguments: Any) -> None:
        first, second = (Ship.objects.get(pk=instance.pk) for _ in "ab")
        assert first is not second
        assert first._state.db == "default"

    receivers.connect(pre_save, read, Ship)
    with bulk_signals(batch_reads=True):
        Ship.objects.order_by("pk").update(name="z")
    keys = column(Ship, "pk")
    assert sorted(loaded) == sorted([*keys] * 3)


# Receivers that write


def another_row(ship: Ship) -> Any:
    return values(Ship.objects.filter(pk=ship.pk and ship.pk % ROWS + 1).first())


def write_next(ship: Ship) -> None:
    Ship.objects.filter(pk=ship.pk % ROWS + 1).update(tonnage=F("tonnage") + 1)


def write_raw(ship: Ship) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE tests_ship SET gross_tonnage = 7 WHERE id = %s", [ship.pk % ROWS + 1])


def write_many(ship: Ship) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE tests_ship SET gross_tonnage = 8 WHERE id = %s", [(ship.pk % ROWS + 1,)])


def write_after_a_select(ship: Ship) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 -- UPDATE")


def save_next(ship: Ship) -> None:
    if ship.pk == 3:
        other = Ship.objects.get(pk=4)
        other.tonnage = 9
        other.save(update_fields=["tonnage"])


def delete_next(ship: Ship) -> None:
    if ship.pk == 3:
        Ship.objects.filter(pk=4).delete()


def insert_next(ship: Ship) -> None:
    if ship.pk == 3:
        Ship.objects.create(id=99, speed=ship.speed)


def insert_or_ignore(ship: Ship) -> None:
    Entry.objects.bulk_create([Entry(number=1, mark=5)], ignore_conflicts=True)


def update_by_batches(ship: Ship) -> None:
    if ship.pk == 2 and not ship.tonnage:
        Ship.objects.filter(pk__gt=2, pk__lte=5).update(tonnage=3)


def undo(ship: Ship) -> None:
    try:
        with transaction.atomic():
            write_next(ship)
            assert Ship.objects.get(pk=ship.pk % ROWS + 1).tonnage
            raise LookupError
    except LookupError:
        pass


def fail(ship: Ship) -> None:
    with connection.cursor() as cursor, pytest.raises(DatabaseError), transaction.atomic():
        cursor.execute("SELECT none FROM nowhere")


def break_transaction(ship: Ship) -> None:
    if ship.pk == 4:
        transaction.set_rollback(True)


def call(ship: Ship) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT random()" if connection.vendor != "mysql" else "SELECT rand()")


def select_lower(ship: Ship) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select 1")


WRITES = [
    write_next,
    write_raw,
    write_many,
    write_after_a_select,
    save_next,
    delete_next,
    insert_next,
    insert_or_ignore,
    update_by_batches,
    undo,
    fail,
    break_transaction,
    call,
    select_lower,
]


@pytest.mark.parametrize("batch_size", [4, 2000])
@pytest.mark.parametrize("signal", BOTH, ids=["pre_save", "post_save"])
@pytest.mark.parametrize("write", WRITES)
def test_what_a_receiver_writes_is_read(write: Callable[[Ship], None], signal: Any, batch_size: int) -> None:
    own, other = shown(ANSWERED["first"]), shown(another_row)

    def receive(seen: list[Any], ship: Ship) -> None:
        write(ship)

    scenario = work((signal, own), (signal, other), (signal, receive), (signal, other), (signal, own))
    one_by_one = scenario.by_update(batch_size=batch_size)
    assert scenario.by_update(batch_reads=True, batch_size=batch_size).of() == one_by_one.of()


def log_it(ship: Ship) -> None:
    Entry.objects.create(number=ship.speed)


def log_in_a_savepoint(ship: Ship) -> None:
    with transaction.atomic():
        log_it(ship)


def look_elsewhere(ship: Ship) -> None:
    Berth.objects.filter(number__lt=ship.speed).count()


HARMLESS = [log_it, log_in_a_savepoint, look_elsewhere]


@pytest.mark.parametrize("write", HARMLESS)
def test_statements_that_cannot_change_the_rows_do_not_end_the_answers(write: Callable[[Ship], None]) -> None:
    def receive(seen: list[Any], ship: Ship) -> None:
        write(ship)

    scenario = work((pre_save, shown(ANSWERED["get"])), (pre_save, receive))
    one_by_one, answered = scenario.by_update(), scenario.by_update(batch_reads=True)
    assert answered.of() == one_by_one.of()
    # One loads the rows to change, one is the first read, and one answers all later reads.
    assert selects(answered.statements) == 3


@pytest.mark.parametrize("write", [log_it, log_in_a_savepoint])
def test_reads_are_answered_with_batched_inserts_too(write: Callable[[Ship], None]) -> None:
    def receive(seen: list[Any], ship: Ship) -> None:
        write(ship)

    scenario = work((pre_save, shown(ANSWERED["get"])), (pre_save, receive))
    both = scenario.by_update(batch_reads=True, batch_inserts=[Entry])
    assert both.of() == scenario.by_update().of()
    assert selects(both.statements) == 3


RAISE = "UPDATE tests_ship SET gross_tonnage = gross_tonnage + 1"
BODY = f"BEGIN {RAISE}; RETURN NEW; END"
TRIGGERS = {
    "sqlite": [f"CREATE TRIGGER raises AFTER INSERT ON tests_entry BEGIN {RAISE}; END"],
    "postgresql": [
        f"CREATE FUNCTION pg_temp.rise() RETURNS trigger LANGUAGE plpgsql AS '{BODY}'",
        "CREATE TRIGGER raises AFTER INSERT ON tests_entry FOR EACH ROW EXECUTE FUNCTION pg_temp.rise()",
    ],
}


@pytest.mark.skipif(connection.vendor not in TRIGGERS, reason="here a trigger would commit")
@pytest.mark.parametrize("in_between", [False, True])
def test_a_table_whose_inserts_change_others_is_not_harmless(in_between: bool) -> None:
    def make_trigger() -> None:
        with connection.cursor() as cursor:
            for statement in TRIGGERS[connection.vendor]:
                cursor.execute(statement)

    def make() -> None:
        fleet()
        if not in_between:
            make_trigger()

    def receive(seen: list[Any], ship: Ship) -> None:
        if in_between and ship.pk == 3:
            make_trigger()
        log_it(ship)

    read = shown(ANSWERED["get"])
    scenario = work((pre_save, read), (pre_save, receive), (pre_save, read))
    scenario.make = make
    one_by_one = scenario.by_update()
    assert one_by_one.seen[-1]["tonnage"] > 0
    assert scenario.by_update(batch_reads=True).of() == one_by_one.of()


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="only PostgreSQL has functions in a transaction"
)
def test_a_function_that_writes_is_not_harmless() -> None:
    def make() -> None:
        fleet()
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION pg_temp.load(bigint) RETURNS bigint LANGUAGE sql AS $$ UPDATE tests_ship SET"
                " gross_tonnage = 5 WHERE id = $1 RETURNING 1 $$"
            )

    def receive(seen: list[Any], ship: Ship) -> None:
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_temp."load"(%s)', [ship.pk % ROWS + 1])

    scenario = work(
        (pre_save, shown(another_row)),
        (pre_save, receive),
        (pre_save, shown(another_row)),
    )
    scenario.make = make
    one_by_one = scenario.by_update()
    assert one_by_one.seen[-1]["tonnage"] == 5
    assert scenario.by_update(batch_reads=True).of() == one_by_one.of()


def test_a_read_that_is_dropped_more_than_used_is_given_up(receivers: Receivers) -> None:
    ships(*range(30))

    def receive(instance: Ship, **arguments: Any) -> None:
        Ship.objects.get(pk=instance.pk)
        Berth.objects.filter(pk=1).update(number=instance.pk)

    receivers.connect(pre_save, receive, Ship)
    with CaptureQueriesContext(connection) as queries, bulk_signals(batch_reads=True):
        Ship.objects.update(name="z")
    reads = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    # One query loads the rows to change, two are for all rows but in vain, and the others are single reads.
    assert len([sql for sql in reads[1:] if "LIMIT" not in sql]) == 2
    assert len(reads) == 31


# Other models


def pages() -> None:
    rows(
        Page,
        *(
            {"id": uuid.UUID(int=n + 1), "title": f"t{n}", "tenant": 3 + n % 3, "data": {"a": [n]}}
            for n in range(ROWS)
        ),
    )
    rows(Cover, *({"page_id": uuid.UUID(int=n + 1)} for n in range(ROWS)))


PAGES: dict[str, Callable[[Page], Any]] = {
    "by the manager that hides some": lambda page: attempt(lambda: values(Page.objects.get(pk=page.pk))),
    "by text": lambda page: attempt(lambda: values(Page.objects.get(pk=str(page.pk)))),
    "by both managers": lambda page: (
        attempt(lambda: values(Page.objects.get(pk=page.pk))),
        values(Page.everything.get(pk=page.pk)),
    ),
    "for the other side of a relation": lambda page: values(Cover.objects.get(pk=page.pk).page),
    "by its constraints": lambda page: page.full_clean() or values(Page.everything.get(pk=page.pk)),  # type: ignore[func-returns-value]  # to do both
}


@pytest.mark.parametrize("read", PAGES.values(), ids=PAGES)
def test_keys_of_uuids(read: Callable[[Page], Any]) -> None:
    receivers = [(signal, shown(read)) for signal in BOTH]
    scenario = Work(pages, Page, lambda: {"title": "new"}, receivers, [Page])
    one_by_one, answered = scenario.by_update(), scenario.by_update(batch_reads=True)
    assert answered.of() == one_by_one.of()
    assert len(answered.statements) < len(one_by_one.statements)


def covers() -> Work:
    read = shown(
        lambda cover: (
            values(Cover.objects.get(pk=cover.pk)),
            Cover.objects.filter(pk=uuid.UUID(int=1)).count(),
        )
    )
    missing = shown(lambda cover: Cover.objects.filter(pk=cover.pk, colour="none").first())
    return Work(pages, Cover, lambda: {"colour": "red"}, [(pre_save, read), (pre_save, missing)], [Cover])


def test_keys_that_are_relations() -> None:
    one_by_one, answered = covers().by_update(), covers().by_update(batch_reads=True)
    assert answered.of() == one_by_one.of()
    assert len(answered.statements) < len(one_by_one.statements)


TEXTS: dict[str, Callable[[Beacon], Any]] = {
    "get": lambda beacon: values(Beacon.objects.get(pk=beacon.pk)),
    "absent": lambda beacon: values(Beacon.objects.filter(pk=beacon.pk, lit=True).first()),
    "other case": lambda beacon: values(Beacon.objects.filter(pk=beacon.pk.upper()).first()),
}


@pytest.mark.parametrize("read", TEXTS.values(), ids=TEXTS)
def test_keys_of_text(read: Callable[[Beacon], Any]) -> None:
    def make() -> None:
        rows(Beacon, *({"code": code} for code in "abcdef"))

    receivers = [(signal, shown(read)) for signal in BOTH]
    scenario = Work(make, Beacon, lambda: {"lit": False}, receivers, [Beacon])
    assert scenario.by_update(batch_reads=True).of() == scenario.by_update().of()


def test_keys_that_change(receivers: Receivers) -> None:
    seen: list[Any] = []
    for signal in BOTH:
        receivers.connect(
            signal,
            lambda instance, **arguments: seen.append(Beacon.objects.filter(pk=instance.pk).first()),
            Beacon,
        )
    outcomes = []
    for reads in (False, True):
        Beacon.objects.all().delete()
        rows(Beacon, *({"code": code} for code in "abcdef"))
        seen.clear()
        with bulk_signals(batch_reads=reads):
            Beacon.objects.update(code=Concat(Value("k"), "code"))
        outcomes.append([beacon and beacon.pk for beacon in seen])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] == [None] * 6 + [f"k{code}" for code in "abcdef"]


def test_keys_of_several_columns_are_read_one_by_one(receivers: Receivers) -> None:
    rows(Mooring, *({"quay": 1, "day": day} for day in range(4)))
    seen: list[Any] = []
    receivers.connect(
        pre_save,
        lambda instance, **arguments: seen.append(Mooring.objects.get(pk=instance.pk).holder),
        Mooring,
    )
    with bulk_signals(batch_reads=True):
        Mooring.objects.update(holder="z")
    assert seen == [""] * 4


def test_rows_of_several_tables() -> None:
    def make() -> None:
        for number in range(ROWS):
            Novel.objects.create(title=f"t{number}", plot="p")

    receivers = [
        (signal, shown(lambda novel: (n := Novel.objects.get(pk=novel.pk)) and (n.title, n.plot)))
        for signal in BOTH
    ]
    scenario = Work(make, Novel, lambda: {"title": "new", "plot": "q"}, receivers, [])
    one_by_one, answered = scenario.by_update(), scenario.by_update(batch_reads=True)
    assert answered.of() == one_by_one.of()
    assert len(answered.statements) < len(one_by_one.statements)


def test_other_models_are_read_as_ever(receivers: Receivers) -> None:
    fleet()
    receivers.connect(pre_save, lambda instance, **arguments: Berth.objects.get(pk=instance.berth_id), Ship)
    with bulk_signals(batch_reads=True), CaptureQueriesContext(connection) as queries:
        Ship.objects.update(name="z")
    assert selects([query["sql"] for query in queries], "tests_berth") == ROWS


# Async receivers, threads, nesting, other operations


async def aget(seen: list[Any], ship: Ship) -> None:
    seen.append(values(await Ship.objects.aget(pk=ship.pk)))


async def get_in_sync(seen: list[Any], ship: Ship) -> None:
    seen.append(values(await sync_to_async(Ship.objects.get)(pk=ship.pk)))


async def read_and_write(seen: list[Any], ship: Ship) -> None:
    read = Ship.objects.aget(pk=ship.pk)
    write = Ship.objects.filter(pk=ship.pk % ROWS + 1).aupdate(tonnage=ship.speed)
    seen.append((values(await read), await write))
    found = await asyncio.gather(Ship.objects.aget(pk=ship.pk), Ship.objects.filter(pk=ship.pk).aexists())
    seen.append((values(found[0]), found[1]))


@pytest.mark.parametrize("signal", BOTH, ids=["pre_save", "post_save"])
@pytest.mark.parametrize("receive", [aget, get_in_sync, read_and_write])
def test_async_receivers(receive: Any, signal: Any) -> None:
    for others in ((), ((signal, shown(ANSWERED["get"])),)):
        scenario = work((signal, receive), *others)
        assert scenario.by_update(batch_reads=True).of() == scenario.by_update().of()


def test_another_thread_has_another_connection(receivers: Receivers) -> None:
    ships(1, 2, 3)
    seen: list[Any] = []

    def receive(**arguments: Any) -> None:
        def look() -> None:
            seen.append(vars(connections["default"].ops).keys() & {"compiler"})

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    receivers.connect(pre_save, receive, Ship)
    with bulk_signals(batch_reads=True):
        Ship.objects.update(name="z")
    assert seen == [set()] * 3


def test_a_wrapper_that_a_receiver_leaves_behind_stays(receivers: Receivers) -> None:
    ships(1, 2, 3)

    def watch(execute: Any, *arguments: Any) -> Any:
        return execute(*arguments)

    def receive(instance: Ship, **arguments: Any) -> None:
        if instance.speed == 2:
            connection.execute_wrappers.append(watch)

    receivers.connect(pre_save, receive, Ship)
    with bulk_signals(batch_reads=True, batch_inserts=[Entry]):
        Ship.objects.update(name="z")
    assert connection.execute_wrappers == [watch]
    connection.execute_wrappers.clear()


def test_an_operation_in_the_middle_of_a_round_has_reads_of_its_own(receivers: Receivers) -> None:
    def read(seen: list[Any], ship: Ship) -> None:
        seen.append(values(Ship.objects.get(pk=ship.pk)))
        if ship.pk == 2:
            Berth.objects.filter(number__gt=0).update(number=F("number") + 10)
            Ship.objects.filter(pk__lt=5).update(tonnage=2)
        seen.append(values(Ship.objects.get(pk=ship.pk)))

    found: list[Any] = []
    receivers.connect(
        pre_save, lambda instance, **arguments: found.append(values(Berth.objects.get(pk=instance.pk))), Berth
    )
    scenario = work((pre_save, read))
    one_by_one = scenario.by_update()
    expected, found[:] = list(found), []
    assert scenario.by_update(batch_reads=True).of() == one_by_one.of()
    assert found == expected


def test_rows_that_are_deleted(receivers: Receivers) -> None:
    seen: list[Any] = []
    for signal in (pre_delete, post_delete):
        receivers.connect(
            signal,
            lambda instance, **arguments: seen.append(
                (
                    values(Ship.objects.filter(pk=instance.pk).first()),
                    Sailor.objects.filter(ship=instance).count(),
                )
            ),
            Ship,
        )
    outcomes = []
    for reads in (False, True):
        fleet_of_four = ships(1, 2, 3, 4, id=None)
        rows(Sailor, *({"ship": ship} for ship in fleet_of_four))
        seen.clear()
        with bulk_signals(batch_reads=reads), CaptureQueriesContext(connection) as queries:
            Ship.objects.all().delete()
        outcomes.append([(ship and ship["name"], crew) for ship, crew in seen])
    assert outcomes[0] == outcomes[1] == [*((name, 1) for name in "abcd"), *[(None, 0)] * 4]
    # One collects the rows, one is the first read, one answers later reads, and one answers those after the
    # DELETE.
    assert selects([query["sql"] for query in queries]) == 4


def test_rows_that_are_created(receivers: Receivers) -> None:
    seen: list[Any] = []
    for signal in BOTH:
        receivers.connect(
            signal,
            lambda instance, **arguments: seen.append(Buoy.objects.filter(pk=instance.pk).exists()),
            Buoy,
        )
    with bulk_signals(batch_reads=True), CaptureQueriesContext(connection) as queries:
        Buoy.objects.bulk_create([Buoy() for _ in range(5)])
    assert seen == [False] * 5 + [True] * 5
    assert selects([query["sql"] for query in queries], "tests_buoy") == 3


def test_receivers_of_lists_are_answered_too(receivers: Receivers) -> None:
    fleet()

    def receive(instances: list[Ship], **arguments: Any) -> None:
        for ship in instances:
            Ship.objects.get(pk=ship.pk)

    receivers.adopt([post_save], bulk_receiver(post_save, sender=Ship)(receive), Ship)
    with bulk_signals(batch_reads=True), CaptureQueriesContext(connection) as queries:
        Ship.objects.update(name="z")
    assert selects([query["sql"] for query in queries]) == 3


@pytest.mark.parametrize("signal", BOTH, ids=["pre_save", "post_save"])
def test_an_exception_leaves_nothing_behind(signal: Any) -> None:
    def receive(seen: list[Any], ship: Ship) -> None:
        seen.append(values(Ship.objects.get(pk=ship.pk)))
        if ship.pk == 4:
            raise LookupError

    scenario = work((signal, receive))
    assert scenario.by_update(batch_reads=True).of() == scenario.by_update().of()


# The option


def test_it_needs_locks() -> None:
    with pytest.raises(ValueError, match="batch_reads needs lock=True"):
        signal_patch.enable(batch_reads=True, lock=False)
    with pytest.raises(TypeError, match="batch_reads must be True or False, not 1"):
        Options(batch_reads=1)  # type: ignore[arg-type]  # that is the point


def test_a_placeholder_for_a_key_that_a_receiver_gives_is_no_key(receivers: Receivers) -> None:
    seen: list[bool] = []

    def give_key(instance: Ship, **arguments: Any) -> None:
        instance.pk = 1000 + instance.speed
        seen.append(Ship.objects.filter(pk=5).exists())

    receivers.connect(pre_save, give_key, Ship)
    with bulk_signals(batch_reads=True):
        Ship.objects.bulk_create([Ship(pk=f"later {number}", speed=number) for number in range(5)])
    assert seen == [False] * 5
    assert column(Ship, "pk") == [1000, 1001, 1002, 1003, 1004]
