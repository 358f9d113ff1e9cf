"""`atomic=False`: each batch is a transaction of its own (contract.md, section 9)."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Exists, F, Func, OuterRef, ProtectedError, QuerySet, Subquery, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import RowNumber
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.db.utils import NotSupportedError
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings, strategies as st

import signal_patch
from signal_patch import bulk_signals, explain, no_bulk_signals
from signal_patch.mixins import SignalEnhancedQuerySetMixins
from signal_patch.options import Options
from signal_patch.signals import TooManyRows, bulk_dispatched, limits
from tests.cascade_models import Customs, Harbour, Note
from tests.fleet import column, of_every_size, rows, ships
from tests.jobs.models import Item
from tests.models import Berth, Book, Mooring, Novel, Port, Sailor, Ship
from tests.recording import receiving
from tests.startup import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.recording import Log, Receivers

live = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.django_db


@contextmanager
def another_connection() -> Iterator[BaseDatabaseWrapper]:
    other = connections.create_connection("default")
    try:
        yield other
    finally:
        # SQLite's own close() leaves a database in memory open.
        BaseDatabaseWrapper.close(other)


def seen_by_others(sql: str = "SELECT speed FROM tests_ship ORDER BY id") -> list[Any]:
    """Return what another transaction reads, one value of each row."""
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute(sql)
        return [value for (value,) in cursor.fetchall()]


def is_locked(ship: Ship) -> bool:
    """Return whether another transaction would have to wait before it changes a row."""
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute("SELECT id FROM tests_ship WHERE id = %s FOR UPDATE NOWAIT", [ship.pk])
        except DatabaseError:
            return True
    return False


def raise_at(number: int, error: type[BaseException] = ZeroDivisionError) -> Callable[..., None]:
    """Return a receiver that raises an error at the ship with this speed before the update."""

    def receive(instance: Ship, **arguments: Any) -> None:
        if instance.tonnage == number:
            raise error

    return receive


class TestBatches:
    @of_every_size
    def test_an_update_sends_what_it_sends_in_one_transaction(self, log: Log, batch_size: int) -> None:
        fleet = ships(1, 2, 3, 4, 5)
        with bulk_signals(atomic=False, batch_size=batch_size):
            matched = Ship.objects.filter(speed__gt=1).update(speed=F("speed") * 10)
        assert matched == 4
        assert column(Ship, "speed") == [1, 20, 30, 40, 50]
        for name in ("pre_save", "post_save"):
            assert [(sent.instance.pk, sent.values["speed"]) for sent in log.of(name)] == [
                (ship.pk, ship.speed * 10) for ship in fleet[1:]
            ]
        assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"speed"})}

    @of_every_size
    def test_a_delete_sends_what_it_sends_in_one_transaction(self, log: Log, batch_size: int) -> None:
        fleet = ships(1, 2, 3, 4, 5)
        crew = rows(Sailor, *({"ship": ship} for ship in fleet for _ in range(2)))
        (escort,) = ships(0, convoy=fleet[4])
        with bulk_signals(atomic=False, batch_size=batch_size):
            deleted = Ship.objects.filter(speed__gt=1).delete()
        assert deleted == (12, {"tests.Ship": 4, "tests.Sailor": 8})
        removed = [(type(sent.instance), sent.values["id"]) for sent in log.of("pre_delete")]
        assert sorted(removed, key=str) == sorted(
            [*((Ship, ship.pk) for ship in fleet[1:]), *((Sailor, sailor.pk) for sailor in crew[2:])], key=str
        )
        assert len(log.of("post_delete")) == 12
        assert [sent.instance.pk for sent in log.of("post_save")] == [escort.pk]
        assert column(Ship, "pk") == [fleet[0].pk, escort.pk]

    @live
    def test_each_batch_is_committed_before_the_next(self, receivers: Receivers) -> None:
        ships(1, 2, 3, 4, 5)
        seen: list[list[int]] = []
        with bulk_signals(
            Ship, atomic=False, batch_size=2, progress=lambda done, total: seen.append(seen_by_others())
        ):
            receivers.connect(post_save, lambda **arguments: None, Ship)
            Ship.objects.update(speed=0)
        assert seen == [[0, 0, 3, 4, 5], [0, 0, 0, 0, 5], [0, 0, 0, 0, 0]]

    @live
    def test_each_batch_of_a_delete_is_committed_before_the_next(self, receivers: Receivers) -> None:
        ships(1, 2, 3, 4, 5)
        seen: list[list[int]] = []
        with bulk_signals(
            Ship, atomic=False, batch_size=2, progress=lambda done, total: seen.append(seen_by_others())
        ):
            receivers.connect(post_delete, lambda **arguments: None, Ship)
            Ship.objects.all().delete()
        assert seen == [[3, 4, 5], [5], []]

    @live
    def test_hooks_run_after_each_batch(self, receivers: Receivers) -> None:
        ships(1, 2, 3)
        events: list[str] = []

        def receive(instance: Ship, **arguments: Any) -> None:
            events.append("signal")
            transaction.on_commit(lambda: events.append("hook"))

        receivers.connect(post_save, receive, Ship)
        with bulk_signals(atomic=False, batch_size=2):
            Ship.objects.update(speed=0)
        assert events == ["signal", "signal", "hook", "hook", "signal", "hook"]

    @live
    @pytest.mark.skipif("not connection.features.has_select_for_update", reason="there are no locks of rows")
    @pytest.mark.parametrize("operation", ["update", "delete"])
    def test_only_the_rows_of_the_batch_are_locked(self, receivers: Receivers, operation: str) -> None:
        fleet = ships(1, 2, 3, 4, 5, 6)
        seen: list[list[int]] = []

        def look(instance: Ship, **arguments: Any) -> None:
            if instance.pk == fleet[2].pk:
                left = fleet if operation == "update" else fleet[2:]
                seen.append([place for place, ship in enumerate(left) if is_locked(ship)])

        receivers.connect(pre_save, look, Ship)
        receivers.connect(pre_delete, look, Ship)
        with bulk_signals(atomic=False, batch_size=2):
            if operation == "update":
                Ship.objects.update(speed=0)
            else:
                Ship.objects.all().delete()
        assert seen == ([[2, 3]] if operation == "update" else [[0, 1]])

    @live
    def test_others_can_save_rows_of_all_batches_meanwhile(self, receivers: Receivers) -> None:
        fleet = ships(1, 2, 3, 4)
        sql = "UPDATE tests_ship SET name = 'saved', gross_tonnage = gross_tonnage + 1 WHERE id IN (%s, %s)"

        def save_others(done: int, total: int) -> None:
            if done == 2:
                with another_connection() as other, other.cursor() as cursor:
                    cursor.execute(sql, [fleet[0].pk, fleet[3].pk])

        receivers.connect(post_save, lambda **arguments: None, Ship)
        with bulk_signals(atomic=False, batch_size=2, progress=save_others):
            Ship.objects.update(tonnage=F("tonnage") + 10)
        assert column(Ship, "tonnage") == [11, 10, 10, 11]
        assert column(Ship, "name") == ["saved", "b", "c", "saved"]

    def test_without_locks(self, log: Log) -> None:
        ships(1, 2, 3)
        with (
            bulk_signals(atomic=False, batch_size=2, lock=False),
            CaptureQueriesContext(connection) as queries,
        ):
            assert Ship.objects.update(tonnage=5) == 3
            assert Ship.objects.filter(speed=3).delete()[0] == 1
        assert not any("FOR UPDATE" in query["sql"] for query in queries)
        assert column(Ship, "tonnage") == [5, 5]

    def test_the_batch_size_of_deletes_is_their_own(self, log: Log) -> None:
        rows(Book, {}, {}, {})
        seen: list[int] = []
        with bulk_signals(
            atomic=False, batch_size=1, delete_batch_size=2, progress=lambda done, total: seen.append(done)
        ):
            Book.objects.all().delete()
        assert seen == [2, 3]

    def test_columns_that_are_assigned_in_turn(self, log: Log) -> None:
        ships(1, 2, 3, 4, 5)
        with no_bulk_signals(), transaction.atomic():
            Ship.objects.update(speed=F("speed") + 1, tonnage=F("speed"))
            expected = list(Ship.objects.order_by("pk").values_list("speed", "tonnage"))
            transaction.set_rollback(True)
        with bulk_signals(atomic=False, batch_size=2):
            Ship.objects.update(speed=F("speed") + 1, tonnage=F("speed"))
        assert list(Ship.objects.order_by("pk").values_list("speed", "tonnage")) == expected
        assert [(sent.values["speed"], sent.values["tonnage"]) for sent in log.of("post_save")] == expected

    def test_rows_of_a_filter_over_other_tables_come_once(self, log: Log) -> None:
        fleet = ships(1, 2, 3)
        rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in "abc"))
        log.clear()
        with bulk_signals(atomic=False, batch_size=2):
            assert Ship.objects.filter(crew__name__gte="b").update(speed=0) == 3
            assert [sent.instance.pk for sent in log.of("post_save")] == [ship.pk for ship in fleet]
            assert Ship.objects.filter(crew__name__gte="b").delete()[1]["tests.Ship"] == 3

    def test_annotations_and_a_subquery_in_the_filter(self, log: Log) -> None:
        fleet = ships(1, 2, 3)
        rows(Sailor, *({"ship": ship} for ship in fleet[1:]))
        crew = Sailor.objects.filter(ship=OuterRef("pk"))
        with bulk_signals(atomic=False, batch_size=1):
            manned = Ship.objects.annotate(twice=F("speed") * 2).filter(Exists(crew))
            assert manned.update(tonnage=F("twice")) == 2
        assert column(Ship, "tonnage") == [0, 4, 6]

    def test_composite_keys(self, log: Log) -> None:
        rows(Mooring, *({"quay": quay, "day": day} for quay in (1, 2, 3) for day in (1, 2, 3)))
        with bulk_signals(atomic=False, batch_size=2):
            assert Mooring.objects.filter(day__lt=3).update(holder="x") == 6
            assert [sent.instance.pk for sent in log.of("post_save")] == [
                (quay, day) for quay in (1, 2, 3) for day in (1, 2)
            ]
            assert Mooring.objects.filter(day__lt=3).delete()[0] == 6

    def test_models_with_several_tables(self, log: Log) -> None:
        for title in "abc":
            Novel.objects.create(title=title)
        log.clear()
        with bulk_signals(atomic=False, batch_size=2):
            assert Novel.objects.update(title="x", plot="y") == 3
            assert [sent.values["plot"] for sent in log.of("post_save")] == ["y"] * 3
            assert Novel.objects.all().delete()[1]["tests.Novel"] == 3

    def test_keys_that_are_text(self, log: Log) -> None:
        rows(Port, *({"code": code} for code in "cabd"))
        with bulk_signals(atomic=False, batch_size=3):
            assert Port.objects.update(name="x") == 4
        assert column(Port, "name") == ["x"] * 4

    def test_a_mixin(self, log: Log) -> None:
        seen: list[tuple[int, int]] = []

        class SplitQuerySet(SignalEnhancedQuerySetMixins, QuerySet[Ship]):
            signal_options = Options(
                atomic=False, batch_size=2, progress=lambda done, total: seen.append((done, total))
            )

        ships(1, 2, 3)
        assert SplitQuerySet(Ship).update(speed=0) == 3
        assert SplitQuerySet(Ship).delete()[0] == 3
        assert seen == [(2, 3), (3, 3)] * 2
        assert len(log.of("post_save")) == len(log.of("post_delete")) == 3
        with transaction.atomic(), pytest.raises(RuntimeError):
            SplitQuerySet(Ship).update(speed=0)

    def test_awaited(self, log: Log) -> None:
        ships(1, 2, 3)

        async def run() -> None:
            with bulk_signals(atomic=False, batch_size=2):
                assert await Ship.objects.aupdate(speed=0) == 3
                assert (await Ship.objects.all().adelete())[0] == 3

        async_to_sync(run)()
        assert len(log.of("post_save")) == len(log.of("post_delete")) == 3

    def test_async_receivers(self, receivers: Receivers) -> None:
        ships(1, 2, 3)
        seen: list[int] = []

        async def receive(instance: Ship, **arguments: Any) -> None:
            seen.append(instance.speed)

        receivers.connect(post_save, receive, Ship)
        with bulk_signals(atomic=False, batch_size=2):
            Ship.objects.update(speed=F("speed") + 1)
        assert seen == [2, 3, 4]

    def test_what_receivers_insert_is_batched_in_each(self, receivers: Receivers) -> None:
        fleet = ships(1, 2, 3, 4)
        receivers.connect(post_save, lambda instance, **_: Sailor.objects.create(ship=instance), Ship)
        with (
            bulk_signals(Ship, atomic=False, batch_size=2, batch_inserts=[Sailor]),
            CaptureQueriesContext(connection) as queries,
        ):
            Ship.objects.update(speed=0)
        assert sum("INSERT INTO" in query["sql"] for query in queries) == 2
        assert column(Sailor, "ship_id") == [ship.pk for ship in fleet]

    def test_bulk_update_and_bulk_create_stay_one_operation(self, log: Log) -> None:
        fleet = ships(1, 2, 3)
        with bulk_signals(atomic=False, batch_size=1), transaction.atomic():
            Ship.objects.bulk_update(fleet, ["speed"])
            Ship.objects.bulk_create([Ship(), Ship()])
        assert len(log.of("post_save")) == 5


actions = st.lists(
    st.tuples(
        st.sampled_from(["insert", "remove", "match", "unmatch"]), st.integers(0, 11), st.integers(0, 11)
    ),
    max_size=8,
)


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(
    speeds=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    actions=actions,
    batch_size=st.integers(1, 5),
)
def test_each_row_is_visited_at_most_once_and_what_matched_in_time_is(
    speeds: list[int], actions: list[tuple[str, int, int]], batch_size: int
) -> None:
    """Receivers insert rows, remove them, and move them into the filter and out of it."""
    Ship.objects.all().delete()
    fleet = ships(*speeds)
    visited: list[int] = []
    touched: set[int] = set()

    def receive(instance: Ship, **arguments: Any) -> None:
        place = len(visited)
        visited.append(instance.pk)
        for kind, when, which in actions:
            if when != place:
                continue
            if kind == "insert":
                Ship.objects.create(speed=which % 2)
            elif which < len(fleet) and fleet[which].pk not in visited:
                touched.add(fleet[which].pk)
                target = Ship.objects.filter(pk=fleet[which].pk)
                with no_bulk_signals():
                    if kind == "remove":
                        target.delete()
                    else:
                        target.update(speed=int(kind == "match"))

    with receiving() as receivers:
        receivers.connect(pre_save, receive, Ship)
        # Rows that a receiver has just made have no signals to count.
        with bulk_signals(atomic=False, batch_size=batch_size):
            Ship.objects.filter(speed=1).update(tonnage=F("tonnage") + 1)
    times = Counter(visited)
    updated = dict(Ship.objects.values_list("pk", "tonnage"))
    assert max(updated.values(), default=0) <= 1
    for ship in fleet:
        if ship.pk not in touched:
            assert times[ship.pk] == updated[ship.pk] == ship.speed


class TestErrors:
    @pytest.fixture
    def _failing(self, receivers: Receivers) -> None:
        rows(Ship, *({"tonnage": number} for number in range(1, 8)))
        receivers.connect(pre_save, raise_at(6), Ship)
        receivers.connect(pre_delete, raise_at(6), Ship)

    @pytest.mark.usefixtures("_failing")
    @pytest.mark.parametrize("operation", ["update", "delete"])
    def test_batches_before_an_exception_stay(self, operation: str, caplog: pytest.LogCaptureFixture) -> None:
        keys = column(Ship, "pk")
        fleet = Ship.objects.all()
        run = fleet.delete if operation == "delete" else lambda: fleet.update(speed=9)
        with bulk_signals(atomic=False, batch_size=2), pytest.raises(ZeroDivisionError) as caught:
            run()
        if operation == "update":
            assert column(Ship, "speed") == [9, 9, 9, 9, 0, 0, 0]
        else:
            assert column(Ship, "pk") == keys[4:]
        error: Any = caught.value
        assert error.bulk_committed == (4, keys[3])
        message = (
            f"tests.Ship.{operation}() with atomic=False has failed; committed before: 4 rows, "
            f"up to the primary key {keys[3]}"
        )
        assert getattr(error, "__notes__", [message]) == [message]
        assert ("signal_patch", logging.WARNING, message) in caplog.record_tuples

    def test_an_exception_in_the_first_batch(self, receivers: Receivers) -> None:
        rows(Ship, {"tonnage": 1})
        receivers.connect(pre_save, raise_at(1), Ship)
        with bulk_signals(atomic=False), pytest.raises(ZeroDivisionError) as caught:
            Ship.objects.update(speed=9)
        error: Any = caught.value
        assert error.bulk_committed == (0, None)
        assert str(error.bulk_committed) == "no row"

    @pytest.mark.usefixtures("_failing")
    def test_it_can_be_gone_on_with(self, receivers: Receivers) -> None:
        fleet = Ship.objects.all()
        with bulk_signals(atomic=False, batch_size=2):
            with pytest.raises(ZeroDivisionError) as caught:
                fleet.update(speed=F("speed") + 1)
            error: Any = caught.value
            receivers.disconnect_all()
            receivers.connect(pre_save, lambda **arguments: None, Ship)
            assert fleet.filter(pk__gt=error.bulk_committed.key).update(speed=F("speed") + 1) == 3
        assert column(Ship, "speed") == [1] * 7

    @live
    def test_a_hook_that_fails_does_not_undo_the_commit(self, receivers: Receivers) -> None:
        fleet = ships(1, 2, 3)

        def fail() -> None:
            raise ZeroDivisionError

        receivers.connect(post_save, lambda **arguments: transaction.on_commit(fail), Ship)
        with bulk_signals(atomic=False, batch_size=2), pytest.raises(ZeroDivisionError) as caught:
            Ship.objects.update(speed=0)
        error: Any = caught.value
        assert error.bulk_committed == (2, fleet[1].pk)
        assert column(Ship, "speed") == [0, 0, 3]

    def test_of_the_database(self, log: Log) -> None:
        fleet = ships(1, 2, 3, slug=None)
        rows(Ship, {"slug": "taken"})
        with bulk_signals(atomic=False, batch_size=1), pytest.raises(IntegrityError) as caught:
            Ship.objects.filter(speed__gt=0).update(slug="same")
        error: Any = caught.value
        assert error.bulk_committed == (1, fleet[0].pk)
        assert column(Ship, "slug") == ["same", None, None, "taken"]

    def test_an_interrupt(self, receivers: Receivers) -> None:
        rows(Ship, {"tonnage": 1}, {"tonnage": 2})
        receivers.connect(post_save, raise_at(2, KeyboardInterrupt), Ship)
        with bulk_signals(atomic=False, batch_size=1), pytest.raises(KeyboardInterrupt):
            Ship.objects.update(speed=9)
        assert column(Ship, "speed") == [9, 0]

    def test_protected_rows_are_found_in_their_batch(self, log: Log) -> None:
        harbours = [Harbour.objects.create() for _ in range(3)]
        Customs.objects.create(harbour=harbours[2])
        with bulk_signals(atomic=False, batch_size=1), pytest.raises(ProtectedError) as caught:
            Harbour.objects.all().delete()
        error: Any = caught.value
        assert error.bulk_committed == (2, harbours[1].pk)
        assert column(Harbour, "pk") == [harbours[2].pk]


KILLED = """
import os, signal, sys
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
from django.db import connection
from django.db.models.signals import post_save
from signal_patch import bulk_signals
from tests.jobs.models import Audit, Box, Item
from tests.jobs.rows import write_audit

if sys.argv[2] == "prepare":
    with connection.schema_editor() as editor:
        for model in (Box, Item, Audit):
            editor.create_model(model)
    Item.objects.bulk_create([Item() for _ in range(10)])
else:
    def die(**arguments):
        if Audit.objects.count() == 7:
            os.kill(os.getpid(), signal.SIGKILL)
    post_save.connect(write_audit, Item)
    post_save.connect(die, Item)
    with bulk_signals(atomic=False, batch_size=3):
        Item.objects.update(n=1)
"""


@live
def test_a_process_that_is_killed_leaves_whole_batches(tmp_path: Path) -> None:
    is_file = connection.vendor == "sqlite"
    name = str(tmp_path / "killed.sqlite3") if is_file else connection.settings_dict["NAME"]

    def run(what: str) -> int:
        command = [sys.executable, "-c", KILLED, name, what]
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        return subprocess.run(command, env=environment, cwd=ROOT, check=False, timeout=120).returncode

    if is_file:
        assert run("prepare") == 0
    else:
        Item.objects.bulk_create([Item() for _ in range(10)])
    assert run("update") == -9
    with closing(connections.create_connection("default")) as other:
        other.settings_dict = {**other.settings_dict, "NAME": name}
        with other.cursor() as cursor:
            cursor.execute("SELECT n FROM jobs_item ORDER BY id")
            assert list(cursor.fetchall()) == [(1,)] * 6 + [(0,)] * 4
            cursor.execute("SELECT count(*) FROM jobs_audit")
            assert cursor.fetchone() == (6,)


class TestRefusals:
    SPEED = Ship.objects.values("speed")[:1]

    @pytest.mark.parametrize(
        ("queryset", "values", "reason"),
        [
            (Ship.objects.order_by("name"), {"speed": 1}, "the queryset has an explicit order"),
            (Ship.objects.extra(order_by=["name"]), {"speed": 1}, "the queryset has an explicit order"),
            (Ship.objects.distinct(), {"speed": 1}, r"the queryset has distinct\(\)"),
            (Ship.objects.annotate(k=Count("crew")), {"speed": 1}, "the queryset has an aggregate"),
            (
                Ship.objects.annotate(place=Window(RowNumber(), order_by="name")).filter(place__lt=3),
                {"speed": 1},
                "the queryset filters by a window",
            ),
            (Ship.objects, {"speed": Subquery(SPEED)}, "the value of 'speed' reads other rows"),
            (Ship.objects, {"speed": SPEED}, "the value of 'speed' reads other rows"),
            (Ship.objects, {"speed": RawSQL("1", ())}, "the value of 'speed' reads other rows"),
            (
                Ship.objects.annotate(k=Subquery(SPEED)),
                {"speed": F("k") + 1},
                "the value of 'speed' reads other rows",
            ),
            (Ship.objects, {"id": F("id") + 100}, "'id' is the primary key"),
            (Novel.objects, {"id": 5}, "'id' is the primary key"),
            (Mooring.objects, {"day": 5}, "'day' is the primary key"),
        ],
    )
    def test_updates_with_the_reason(self, log: Log, queryset: Any, values: Any, reason: str) -> None:
        ships(1)
        with (
            bulk_signals(atomic=False),
            pytest.raises(ValueError, match=rf"update\(\) is not possible with atomic=False: .*{reason}"),
        ):
            queryset.update(**values)
        assert log == []

    def test_deletes_with_the_reason(self, log: Log) -> None:
        ships(1)
        with (
            bulk_signals(atomic=False),
            pytest.raises(ValueError, match=r"tests.Ship.delete\(\) is not possible .* an explicit order"),
        ):
            Ship.objects.order_by("name").delete()
        assert log == []

    def test_what_django_refuses_is_refused_by_its_own_error(self, log: Log) -> None:
        with bulk_signals(atomic=False):
            with pytest.raises(TypeError, match="slice"):
                Ship.objects.all()[:3].update(speed=1)
            with pytest.raises(TypeError, match="limit"):
                Ship.objects.all()[:3].delete()
            with pytest.raises(NotSupportedError, match="union"):
                Ship.objects.union(Ship.objects.all()).delete()

    @pytest.mark.parametrize("operation", ["update", "delete"])
    def test_inside_a_transaction(self, log: Log, operation: str) -> None:
        ships(1)
        fleet = Ship.objects.all()
        run = fleet.delete if operation == "delete" else lambda: fleet.update(speed=9)
        with (
            bulk_signals(atomic=False),
            transaction.atomic(),
            pytest.raises(RuntimeError, match="not possible inside a transaction of 'default'"),
        ):
            run()
        assert column(Ship, "speed") == [1]
        assert log == []

    @live
    def test_with_autocommit_turned_off(self, log: Log) -> None:
        transaction.set_autocommit(False)
        try:
            with bulk_signals(atomic=False), pytest.raises(RuntimeError, match="autocommit turned off"):
                Ship.objects.update(speed=2)
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_too_many_rows(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        ships(1, 2, 3)
        monkeypatch.setattr(limits, "max_rows", 2)
        with bulk_signals(atomic=False, batch_size=1), pytest.raises(TooManyRows, match="of 3 rows, more"):
            Ship.objects.update(speed=0)
        assert log == []

    def test_what_only_the_database_refuses_is_refused_without_rows_too(self, log: Log) -> None:
        with bulk_signals(atomic=False), pytest.raises(DatabaseError):
            Ship.objects.update(speed=Func(F("speed"), function="NO_SUCH_FUNCTION"))

    def test_other_operations_alone_are_refused_when_the_switch_is_turned(self) -> None:
        with pytest.raises(
            ValueError, match="atomic=False is for 'delete', 'update', and operations has neit"
        ):
            bulk_signals(atomic=False, operations=["bulk_update"])

    def test_the_option_is_true_or_false(self) -> None:
        wrong: Any = None
        with pytest.raises(TypeError, match="atomic must be True or False, not None"):
            bulk_signals(atomic=wrong)


class TestNobodyListens:
    def test_the_update_is_djangos(self) -> None:
        ships(1, 2, 3)
        with (
            bulk_signals(atomic=False, batch_size=1),
            transaction.atomic(),
            CaptureQueriesContext(connection) as queries,
        ):
            Ship.objects.update(speed=0)
        assert len(queries) == 1

    def test_the_delete_is_djangos(self) -> None:
        rows(Sailor, *({"ship": ship} for ship in ships(1, 2, 3)))
        with (
            bulk_signals(atomic=False, batch_size=1),
            transaction.atomic(),
            CaptureQueriesContext(connection) as queries,
        ):
            assert Sailor.objects.all().delete()[0] == 3
        assert len(queries) == 1

    @pytest.mark.parametrize(
        ("model", "sender", "signal"),
        [
            # A row that a cascade deletes, one that it changes, a parent's, and one of a generic relation.
            (Ship, Sailor, post_delete),
            (Berth, Ship, post_save),
            (Port, Ship, pre_save),
            (Novel, Book, pre_delete),
            (Harbour, Note, post_delete),
        ],
    )
    def test_who_hears_of_other_rows_listens(
        self, receivers: Receivers, model: Any, sender: Any, signal: Any
    ) -> None:
        receivers.connect(signal, lambda **arguments: None, sender)
        with bulk_signals(atomic=False), transaction.atomic(), pytest.raises(RuntimeError):
            model.objects.all().delete()

    @pytest.mark.skipif(django.VERSION < (6, 1), reason="the rules are those of Django 6.1")
    def test_who_hears_of_rows_that_the_database_removes_listens(self, receivers: Receivers) -> None:
        from tests.database_cascade_models import Depot, Rack

        depots = rows(Depot, {}, {}, {})
        racks = rows(Rack, *({"depot": depot} for depot in depots))
        log = receivers.record(Rack)
        with bulk_signals(atomic=False, batch_size=2):
            assert Depot.objects.all().delete()[1]["tests.Rack"] == 3
        # Django chooses the order in which it deletes the rows of a batch.
        assert {sent.values["id"] for sent in log.of("post_delete")} == {rack.pk for rack in racks}

    def test_who_hears_of_rows_that_are_only_changed_does_not(self, receivers: Receivers) -> None:
        receivers.connect(post_delete, lambda **arguments: None, Ship)
        with bulk_signals(atomic=False), transaction.atomic():
            assert Berth.objects.all().delete()[0] == 0


class TestWithinReceivers:
    def test_what_a_receiver_updates_belongs_to_the_batch(self, log: Log, receivers: Receivers) -> None:
        (berth,) = rows(Berth, {"number": 0})
        rows(Ship, *({"tonnage": number, "berth": berth} for number in range(1, 4)))

        def count(instance: Ship, **arguments: Any) -> None:
            Berth.objects.filter(pk=berth.pk).update(number=F("number") + 1)
            Ship.objects.filter(pk=instance.pk).update(name="own")
            if instance.tonnage == 3:
                raise ZeroDivisionError

        receivers.connect(post_save, count, Ship)
        with bulk_signals(atomic=False, batch_size=2), pytest.raises(ZeroDivisionError):
            Ship.objects.update(speed=9)
        assert column(Berth, "number") == [2]
        assert column(Ship, "name") == ["own", "own", ""]
        assert [sent.values["number"] for sent in log.of("post_save") if sent.sender is Berth] == [1, 2, 3]

    def test_what_a_receiver_deletes_belongs_to_the_batch(self, log: Log, receivers: Receivers) -> None:
        fleet = ships(1, 2, 3)
        rows(Sailor, *({"ship": ship} for ship in fleet))
        receivers.connect(post_save, lambda instance, **_: instance.crew.all().delete(), Ship)
        with bulk_signals(atomic=False, batch_size=2):
            Ship.objects.update(speed=0)
        assert len(log.of("post_delete")) == 3

    def test_receivers_of_other_operations_may_update(self, receivers: Receivers) -> None:
        (berth,) = rows(Berth, {"number": 0})
        fleet = ships(1, 2, berth=berth)
        receivers.connect(
            post_save, lambda **_: Berth.objects.filter(pk=berth.pk).update(number=F("number") + 1), Ship
        )
        receivers.connect(
            post_delete, lambda **_: Berth.objects.filter(pk=berth.pk).update(number=F("number") + 10), Ship
        )
        receivers.connect(pre_save, lambda **arguments: None, Berth)
        signal_patch.enable(atomic=False)
        with transaction.atomic():
            Ship.objects.bulk_update(fleet, ["speed"])
            Ship.objects.bulk_create([Ship()])
            fleet[0].save()
        fleet[1].delete()
        assert column(Berth, "number") == [14]

    def test_the_cascade_of_an_instance(self, log: Log) -> None:
        harbour = Harbour.objects.create()
        (port,) = rows(Port, {"code": "N"})
        (berth,) = rows(Berth, {"port": port})
        ships(1, 2, 3, berth=berth, flag=port)
        with bulk_signals(atomic=False, batch_size=1), transaction.atomic():
            port.delete()
            harbour.delete()
        assert column(Ship, "berth_id") == column(Ship, "flag_id") == [None] * 3

    def test_related_managers_are_djangos_transactions(self, log: Log) -> None:
        (berth,) = rows(Berth, {"number": 0})
        first, second, third = ships(1, 2, 3)
        harbour = Harbour.objects.create()
        note, other = rows(Note, {}, {})
        with bulk_signals(atomic=False, batch_size=1):
            berth.ships.set([first, second])
            berth.ships.set([second, third])
            berth.ships.clear()
            berth.ships.add(first)
            harbour.notes.set([note, other])
            harbour.notes.set([note])
            with transaction.atomic(), pytest.raises(RuntimeError):
                berth.ships.update(speed=0)
        assert column(Ship, "berth_id") == [berth.pk, None, None]
        assert column(Note, "object_id") == [harbour.pk]

    @live
    def test_what_is_left_for_a_hook_commits_batch_by_batch_again(self, receivers: Receivers) -> None:
        ships(1)
        rows(Berth, {"number": 1}, {"number": 2})
        seen: list[list[Any]] = []

        def look(done: int, total: int) -> None:
            seen.append(seen_by_others("SELECT number FROM tests_berth ORDER BY id"))

        def renumber() -> None:
            with bulk_signals(atomic=False, batch_size=1, progress=look):
                Berth.objects.update(number=0)

        receivers.connect(post_save, lambda **_: transaction.on_commit(renumber), Ship)
        receivers.connect(post_save, lambda **arguments: None, Berth)
        with bulk_signals(atomic=False):
            Ship.objects.update(speed=2)
        assert seen == [[0, 2], [0, 0]]


class TestReports:
    def test_progress_gets_the_key_if_it_takes_one(self, log: Log) -> None:
        fleet = ships(1, 2, 3)
        seen: list[Any] = []

        def show(done: int, total: int, key: Any = None) -> None:
            seen.append((done, total, key))

        with bulk_signals(atomic=False, batch_size=2, progress=show):
            Ship.objects.update(speed=0)
            Ship.objects.bulk_update(fleet, ["speed"])
        assert seen == [(2, 3, fleet[1].pk), (3, 3, fleet[2].pk), (2, 3, None), (3, 3, None)]

    def test_no_row_is_progress_too(self, log: Log) -> None:
        seen: list[Any] = []
        with bulk_signals(atomic=False, progress=lambda done, total: seen.append((done, total))):
            Ship.objects.update(speed=0)
        assert seen == [(0, 0)]

    def test_more_rows_than_were_counted(self, log: Log) -> None:
        ships(1, 2)
        seen: list[Any] = []

        def show(done: int, total: int) -> None:
            seen.append((done, total))
            if done == 1:
                ships(3)

        with bulk_signals(atomic=False, batch_size=1, progress=show):
            Ship.objects.update(speed=0)
        assert seen == [(1, 2), (2, 3), (3, 3)]

    def test_nothing_is_counted_for_nobody(self, log: Log) -> None:
        ships(1)
        with bulk_signals(atomic=False), CaptureQueriesContext(connection) as queries:
            Ship.objects.update(speed=0)
        assert not any("COUNT" in query["sql"] for query in queries)

    def test_it_is_one_operation_for_metrics(self, log: Log, receivers: Receivers) -> None:
        ships(1, 2, 3)
        dispatched: list[dict[str, Any]] = []

        def receive(**arguments: Any) -> None:
            dispatched.append(arguments)

        bulk_dispatched.connect(receive, weak=False)
        try:
            with bulk_signals(atomic=False, batch_size=2):
                Ship.objects.update(speed=0)
                Ship.objects.all().delete()
        finally:
            bulk_dispatched.disconnect(receive)
        names = ("operation", "rows", "done", "total", "batches", "finished")
        assert [tuple(one[name] for name in names) for one in dispatched] == [
            ("update", 2, 2, 3, 1, False),
            ("update", 1, 3, 3, 2, True),
            ("delete", 2, 2, 3, 1, False),
            ("delete", 1, 3, 3, 2, True),
        ]
        assert dispatched[1]["statements"] > 0
        assert [one["senders"] for one in dispatched] == [[Ship]] * 4

    def test_rows_in_flight_are_reported_for_all_batches(self, log: Log, receivers: Receivers) -> None:
        fleet = ships(1, 2, 3)
        dispatched: list[tuple[int, int]] = []

        def receive(operation: str, done: int, already_in_flight: int, **arguments: Any) -> None:
            dispatched.append((done, already_in_flight))

        def update_all(instance: Ship, **arguments: Any) -> None:
            if instance.pk == fleet[0].pk and not dispatched:
                Ship.objects.exclude(pk=fleet[2].pk).update(tonnage=1)

        receivers.connect(post_save, update_all, Ship)
        bulk_dispatched.connect(receive, weak=False)
        try:
            with bulk_signals(atomic=False, batch_size=2):
                Ship.objects.update(speed=0)
        finally:
            bulk_dispatched.disconnect(receive)
        assert dispatched == [(2, 2), (2, 0), (3, 0)]

    def test_explain_says_it(self, log: Log) -> None:
        ships(1, 2, 3)
        with bulk_signals(atomic=False, batch_size=2):
            update = explain(Ship.objects.all(), speed=0)
            delete = explain(Ship.objects.all(), "delete")
            refused = explain(Ship.objects.order_by("name"), speed=Subquery(TestRefusals.SPEED))
            with CaptureQueriesContext(connection) as queries:
                Ship.objects.update(speed=0)
        assert "batches      2, each committed" in str(update)
        assert (update.batches, delete.batches) == (2, 2)
        assert update.statements is not None
        executed = [query["sql"] for query in queries]
        assert len([sql for sql in executed if "SAVEPOINT" not in sql]) <= update.statements
        assert [warning.split(": ")[0] for warning in refused.warnings] == ["refused with atomic=False"] * 2


def test_the_setting(settings: Any, log: Log) -> None:
    ships(1, 2)
    settings.SIGNAL_PATCH = {"ATOMIC": False, "BATCH_SIZE": 1}
    from signal_patch.conf import Settings

    assert Settings().options == {"atomic": False, "batch_size": 1}
    with bulk_signals(**Settings().options), transaction.atomic(), pytest.raises(RuntimeError):
        Ship.objects.update(speed=0)
