"""What is locked, when and in which order, and how locked rows are read (contract.md, section 1.3)."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.db import DatabaseError, OperationalError, connection, connections, models, transaction
from django.db.models import Case, Exists, F, Subquery, When
from django.db.models.functions import Coalesce
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from tests.creating import upserting
from tests.fleet import column, is_write_lock, rows, ships
from tests.models import Berth, Novel, Shelf, Ship
from tests.startup import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.recording import Receivers

# SQLite: a transaction that has read cannot begin to write while another one writes.


def _start(path: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.contending", str(path), str(rounds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the lock is SQLite's")
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_operations_of_several_processes_wait_for_each_other(journal: str, tmp_path: Path) -> None:
    path, rounds = tmp_path / "db.sqlite3", 3
    database = sqlite3.connect(path)
    assert database.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    database.close()
    with _start(path, 0) as maker:
        assert maker.wait() == 0
    with ExitStack() as stack:
        writers = [stack.enter_context(_start(path, rounds)) for _ in range(4)]
        assert [_said(writer) for writer in writers] == ["ready\n"] * 4
        for writer in writers:
            _say(writer, "go\n")
        found = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    # Three operations each add one.
    assert max(map(json.loads, found)) == [4 * rounds * 3] * 4


# The first statement of each operation takes the lock, unless BEGIN has taken it.


def _sink(ship: Ship) -> object:
    return ship.delete()


def _delete_in_batches(ship: Ship) -> object:
    with bulk_signals(delete_batch_size=1):
        return Ship.objects.filter(pk=ship.pk).delete()


def _update_batch_by_batch(ship: Ship) -> object:
    with bulk_signals(atomic=False):
        return Ship.objects.update(speed=1)


def _delete_batch_by_batch(ship: Ship) -> object:
    with bulk_signals(atomic=False):
        return Ship.objects.filter(pk=ship.pk).delete()


# The operation, the table that it reads, and the statement that it begins with.
WRITING: dict[str, tuple[Callable[[Ship], object], str, str]] = {
    "update": (
        lambda ship: Ship.objects.update(speed=1),
        "tests_ship",
        'UPDATE "tests_ship" SET "speed" = "speed" WHERE 0',
    ),
    "update of an ancestor": (
        lambda ship: Novel.objects.update(title="a"),
        "tests_novel",
        'UPDATE "tests_book" SET "title" = "title" WHERE 0',
    ),
    "bulk_update": (
        lambda ship: Ship.objects.filter(speed=1).bulk_update([ship], ["speed"]),
        "tests_ship",
        'UPDATE "tests_ship" SET "speed" = "speed" WHERE 0',
    ),
    "bulk_create": (
        lambda ship: Ship.objects.bulk_create([Ship()]),
        "tests_ship",
        'INSERT INTO "tests_ship" ("id") SELECT NULL WHERE 0',
    ),
    "related manager": (
        lambda ship: ship.captain_set.clear(),
        "tests_captain",
        'UPDATE "tests_captain" SET "ship_id" = "ship_id" WHERE 0',
    ),
    "SET_NULL": (_sink, "tests_captain", 'UPDATE "tests_captain" SET "ship_id" = "ship_id" WHERE 0'),
    "delete in batches": (_delete_in_batches, "tests_ship", 'DELETE FROM "tests_ship" WHERE 0'),
    "update batch by batch": (
        _update_batch_by_batch,
        "tests_ship",
        'UPDATE "tests_ship" SET "speed" = "speed" WHERE 0',
    ),
    "delete batch by batch": (_delete_batch_by_batch, "tests_ship", 'DELETE FROM "tests_ship" WHERE 0'),
}


@pytest.fixture
def _heard(receivers: Receivers) -> None:
    """Connect receivers of all signals; they do nothing."""

    def hear(**arguments: Any) -> None:
        pass

    for signal in (pre_save, post_save):
        receivers.connect(signal, hear)


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the lock is SQLite's")
@pytest.mark.django_db
@pytest.mark.usefixtures("everything_on", "_heard")
@pytest.mark.parametrize(("operation", "table", "lock"), WRITING.values(), ids=WRITING)
def test_sqlites_write_lock_is_taken_once_before_anything_is_read(
    operation: Callable[[Ship], object], table: str, lock: str
) -> None:
    (ship,) = ships(1)
    with CaptureQueriesContext(connection) as queries:
        operation(ship)
    statements = [query["sql"] for query in queries]
    assert statements.count(lock) == 1
    assert not [sql for sql in statements[: statements.index(lock)] if f'FROM "{table}"' in sql]


def _delete_depots(connection: Any) -> list[str]:
    """Delete a depot to which a label refers, and return the statements that took the write lock."""
    from tests.database_cascade_models import Depot, Label

    (depot,) = rows(Depot, {})
    rows(Label, {"depot": depot})
    with CaptureQueriesContext(connection) as queries:
        depot.delete()
    return [query["sql"] for query in queries if is_write_lock(query["sql"])]


OF_DEPOT = 'DELETE FROM "tests_depot" WHERE 0'
OF_LABEL = 'UPDATE "tests_label" SET "depot_id" = "depot_id" WHERE 0'


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the lock is SQLite's")
@pytest.mark.skipif(django.VERSION < (6, 1), reason="it came with Django 6.1")
@pytest.mark.django_db
@pytest.mark.usefixtures("everything_on")
def test_rows_that_the_database_would_change_are_read_under_the_lock(receivers: Receivers) -> None:
    from tests.database_cascade_models import Label

    receivers.record(Label)
    assert _delete_depots(connection) == [OF_DEPOT, OF_LABEL]


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the lock is SQLite's")
@pytest.mark.django_db
@pytest.mark.usefixtures("everything_on", "_heard")
@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_where_begin_takes_the_lock_no_statement_does(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "transaction_mode", mode)
    with CaptureQueriesContext(connection) as queries:
        Ship.objects.update(speed=1)
    assert not [query for query in queries if is_write_lock(query["sql"])]


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the lock is SQLite's")
@pytest.mark.skipif(django.VERSION < (6, 1), reason="it came with Django 6.1")
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("everything_on")
def test_what_a_delete_reads_outside_of_a_transaction_takes_no_lock(receivers: Receivers) -> None:
    from tests.database_cascade_models import Label

    receivers.connect(post_save, lambda **arguments: None, Label)
    assert _delete_depots(connection) == [OF_LABEL]


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="other databases have no such triggers")
@pytest.mark.django_db
@pytest.mark.usefixtures("everything_on", "_heard")
def test_a_view_accepts_the_kinds_of_statements_that_its_triggers_accept() -> None:
    class Anchored(models.Model):
        speed = models.IntegerField()
        name = models.CharField(max_length=10)

        class Meta:
            app_label = "tests_views"
            managed = False
            db_table = "tests_anchored"

    ships(1, 2)
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW tests_anchored AS SELECT id, speed, name FROM tests_ship")
        cursor.execute(
            "CREATE TRIGGER tests_anchor INSTEAD OF UPDATE OF name ON tests_anchored "
            "BEGIN UPDATE tests_ship SET name = NEW.name WHERE id = OLD.id; END"
        )
    Anchored._base_manager.update(name="z")
    assert column(Ship, "name") == ["z", "z"]
    with pytest.raises(OperationalError, match="cannot modify tests_anchored because it is a view"):
        Anchored._base_manager.update(speed=1)


# PostgreSQL and MariaDB: locks are taken in the order of the key.

ORDERED: dict[str, Callable[[], object]] = {
    "key": lambda: Ship.objects.order_by("-pk").update(speed=9),
    "column": lambda: Ship.objects.order_by("-name").update(speed=9),
    "other table": lambda: Ship.objects.order_by("-berth__number").update(speed=9),
    "joined": lambda: Ship.objects.filter(berth__number__gt=0).order_by("-name").update(speed=9),
    "bulk_update": lambda: Ship.objects.bulk_update(
        [Ship(pk=pk, speed=9) for pk in Ship.objects.order_by("-pk").values_list("pk", flat=True)], ["speed"]
    ),
    "upsert by the key": lambda: _upsert("pk"),
    "upsert by another column": lambda: _upsert("slug"),
}


def _upsert(*unique_fields: str) -> None:
    objs = list(Ship.objects.order_by("-pk"))
    for ship in objs:
        ship.speed = 9
    Ship.objects.bulk_create(objs, **upserting(*unique_fields, update_fields=["speed"]))


def _is_free(ship: Ship) -> bool:
    try:
        with transaction.atomic():
            Ship.objects.select_for_update(nowait=True).get(pk=ship.pk)
    except DatabaseError:
        return False
    return True


@pytest.mark.skipif("not connection.features.has_select_for_update", reason="there are no locks of rows")
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("everything_on", "_heard")
@pytest.mark.parametrize("batch_size", [1, 2000])
@pytest.mark.parametrize("operation", ORDERED.values(), ids=ORDERED)
def test_rows_are_locked_in_the_order_of_their_keys(operation: Callable[[], object], batch_size: int) -> None:
    """While the second row is held, the operation has locked the first, and not yet the third."""
    berths = rows(Berth, {"number": 1}, {"number": 2}, {"number": 3})
    first, second, third = (
        ships(1, name=name, slug=name, berth=berth)[0] for name, berth in zip("abc", berths, strict=True)
    )

    def run() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute(GIVING_UP[connection.vendor])
            with bulk_signals(batch_size=batch_size):
                operation()
        finally:
            connection.close()

    holder = connections.create_connection("default")
    with ThreadPoolExecutor() as pool:
        try:
            holder.set_autocommit(False)
            with holder.cursor() as cursor:
                cursor.execute("SELECT id FROM tests_ship WHERE id = %s FOR UPDATE", [second.pk])
            running = pool.submit(run)
            while _is_free(first) and not running.done():
                pass
            assert _is_free(third)
        finally:
            holder.rollback()
            holder.close()
        running.result()
    assert column(Ship, "speed") == [9, 9, 9]


# The error of a transaction that waits in vain.
GIVING_UP = {"postgresql": "SET lock_timeout = '10s'", "mysql": "SET innodb_lock_wait_timeout = 10"}


@pytest.mark.skipif("not connection.features.has_select_for_update", reason="there are no locks of rows")
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("everything_on", "_heard")
def test_updates_in_opposite_orders_do_not_wait_for_each_other() -> None:
    ships(*range(20))
    # If one of them fails, the other one must not wait for ever.
    barrier = threading.Barrier(2, timeout=60)

    def run(*ordering: str) -> None:
        try:
            for _ in range(10):
                barrier.wait()
                with bulk_signals(batch_size=5):
                    Ship.objects.order_by(*ordering).update(tonnage=F("tonnage") + 1)
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(run, ordering) for ordering in ("name", "-name")]:
            running.result()
    assert set(column(Ship, "tonnage")) == {20}


# MariaDB and MySQL: a plain SELECT returns what the transaction has once seen; a locking read does not.


@contextmanager
def _behind(*statements: str) -> Iterator[None]:
    """Open a transaction that has read all rows before another one committed these statements."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    other = connections.create_connection("default")
    try:
        with transaction.atomic():
            for model in (Ship, Berth, Shelf):
                list(model._default_manager.all())
            with other.cursor() as cursor:
                for sql in statements:
                    cursor.execute(sql)
            yield
    finally:
        other.close()
        # The next connection is set up with its usual isolation level.
        connection.close()


def snapshots(test: Any) -> Any:
    test = pytest.mark.skipif(
        "connection.vendor != 'mysql'", reason="others read what is committed, or fail"
    )(test)
    return pytest.mark.django_db(transaction=True)(pytest.mark.usefixtures("everything_on")(test))


@snapshots
@pytest.mark.parametrize("ordering", ["pk", "-name", "-berth__number"])
def test_instances_of_each_batch_have_current_values(ordering: str, receivers: Receivers) -> None:
    ships(1, 2, 3, 4, status="ours")
    receivers.before_saves(Ship, lambda ship: setattr(ship, "status", ship.status.upper()))
    with _behind("UPDATE tests_ship SET status = 'theirs'"), bulk_signals(batch_size=2):
        Ship.objects.order_by(ordering).update(speed=1)
    assert column(Ship, "status") == ["THEIRS"] * 4


@snapshots
@pytest.mark.parametrize("lock", [True, False])
def test_a_row_that_the_statement_does_not_change_is_read_with_current_values(
    lock: bool, receivers: Receivers
) -> None:
    """MariaDB writes no new version of it, so a plain SELECT returns the snapshot's, or no row."""
    ships(1)
    log = receivers.record(Ship)
    with _behind("UPDATE tests_ship SET speed = 5", _copying()), bulk_signals(lock=lock):
        # Without locks, the rows are those of the snapshot.
        assert Ship.objects.update(speed=F("speed") + 0) == 1 + lock
    assert [sent.values["speed"] for sent in log.of("post_save")] == [5] * (1 + lock)


def _copying() -> str:
    names = [str(field.column) for field in Ship._meta.concrete_fields if not field.primary_key]
    return (
        f"INSERT INTO tests_ship (id, {', '.join(names)}) SELECT id + 1, {', '.join(names)} FROM tests_ship"
    )


VALUES: dict[str, Any] = {
    "subquery": lambda: Subquery(Berth.objects.values("number")[:1]),
    "in a function": lambda: Coalesce(Subquery(Berth.objects.values("number")[:1]), 0) + 0,
    "nested": lambda: Subquery(
        Berth.objects.filter(pk__in=Berth.objects.filter(number=9)).values("number")[:1]
    ),
    "condition": lambda: Case(When(Exists(Berth.objects.filter(number=9)), then=9), default=4),
}


@snapshots
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("operation", ["update", "update in batches", "bulk_update"])
def test_subqueries_give_what_djangos_statement_would_write(
    operation: str, value: Callable[[], Any], receivers: Receivers
) -> None:
    rows(Berth, {"number": 4})
    fleet = ships(1, 2, 3)
    log = receivers.record(Ship)
    with (
        _behind("UPDATE tests_berth SET number = 9"),
        bulk_signals(batch_size=2 if "batches" in operation else 9),
    ):
        if operation == "bulk_update":
            for ship in fleet:
                ship.speed = value()
            Ship.objects.bulk_update(fleet, ["speed"])
        else:
            Ship.objects.update(speed=value())
    assert [sent.values["speed"] for sent in log] == [9] * 6
    assert column(Ship, "speed") == [9] * 3


TONNAGE = Ship._meta.get_field("tonnage").column


@snapshots
def test_bulk_update_reads_current_rows(receivers: Receivers) -> None:
    first, second = ships(1, 1)
    log = receivers.record(Ship)
    first.tonnage = second.tonnage = F("tonnage") + 1
    with _behind(
        f"UPDATE tests_ship SET {TONNAGE} = 5", f"UPDATE tests_ship SET speed = 2 WHERE id = {second.pk}"
    ):
        Ship.objects.filter(speed=1).bulk_update([first, second], ["tonnage"])
    assert [sent.values["tonnage"] for sent in log.of("pre_save")] == [6, 6]
    assert [(sent.instance.pk, sent.values["tonnage"]) for sent in log.of("post_save")] == [(first.pk, 6)]


@snapshots
@pytest.mark.parametrize("lock", [True, False])
def test_an_upsert_sees_rows_that_others_have_inserted(lock: bool, receivers: Receivers) -> None:
    log = receivers.record(Shelf)
    with (
        _behind("INSERT INTO tests_shelf (label, width, colour, touched) VALUES ('a', 3, 'red', NOW())"),
        bulk_signals(lock=lock),
    ):
        Shelf.objects.bulk_create([Shelf(label="a", width=3)], update_conflicts=True, update_fields=["width"])
    (sent,) = log.of("post_save")
    assert (sent.arguments["created"], sent.values["width"], sent.values["colour"]) == (False, 3, "red")
