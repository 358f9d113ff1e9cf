"""How many statements bulk operations run, and what they lock (contract.md, 1.2, 1.3 and 1.9)."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_init, post_save, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, no_bulk_signals
from signal_patch.mixins import SignalEnhancedQuerySetMixins
from tests.fleet import column, is_write_lock, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    Buoy,
    Logbook,
    Mooring,
    Novel,
    Port,
    Sailor,
    Ship,
    Tracked,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

TRANSACTIONS = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


def _statements(operation: Callable[[], object]) -> list[str]:
    """Return the statements of an operation, without those that begin and end its transaction."""
    return [sql for sql in _executed(operation) if not is_write_lock(sql)]


def _executed(operation: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        operation()
    return [query["sql"] for query in queries if not query["sql"].startswith(TRANSACTIONS)]


def _listen(receivers: Receivers, model: type[Model]) -> None:
    """Connect receivers that do nothing, and so run no statement."""

    def hear(**arguments: Any) -> None:
        pass

    receivers.connect(pre_save, hear, model)
    receivers.connect(post_save, hear, model)


def _batches(count: int, batch_size: int) -> int:
    return -(-count // batch_size)


UPDATES: dict[str, Callable[[], int]] = {
    "constant": lambda: Ship.objects.update(speed=9, name="z"),
    "expression": lambda: Ship.objects.filter(speed__gte=0).update(speed=F("speed") + 1),
    "joined": lambda: Ship.objects.filter(berth__number__isnull=True).order_by("name").update(speed=9),
    "subquery": lambda: Ship.objects.update(speed=Subquery(Berth.objects.values("number")[:1])),
    "none": lambda: Ship.objects.none().update(speed=9),
    "no row": lambda: Ship.objects.filter(speed=-1).update(speed=9),
    "nothing": lambda: Ship.objects.update(),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_without_receivers_djangos_single_statement_runs(
    update: Callable[[], int], receivers: Receivers
) -> None:
    rows(Berth, {"number": 4})
    ships(1, 2, 3)
    _listen(receivers, Port)
    with no_bulk_signals():
        expected = _executed(update)
    # MySQL cannot read the table that it writes, so Django looks up the keys before.
    assert len(expected) <= (1 if connection.features.update_can_self_select else 2)
    assert _executed(update) == expected


def test_a_receiver_that_no_longer_exists_does_not_count() -> None:
    ships(1)

    def receiver(**arguments: Any) -> None: ...

    pre_save.connect(receiver, sender=Ship)
    post_save.connect(receiver, sender=Ship)
    del receiver
    assert len(_executed(lambda: Ship.objects.update(speed=9))) == 1


def test_a_receiver_of_deletes_does_not_count(receivers: Receivers) -> None:
    ships(1)
    receivers.record(Port)
    assert len(_executed(lambda: Ship.objects.update(speed=9))) == 1


def test_where_no_row_matches_djangos_statement_still_runs(receivers: Receivers) -> None:
    ships(1)
    _listen(receivers, Ship)
    statements = _statements(lambda: Ship.objects.filter(speed=-1).update(speed=9))
    assert [sql.partition(" ")[0] for sql in statements] == ["SELECT", "UPDATE"]


CONSTANTS: dict[str, Callable[[], int]] = {
    "one": lambda: Ship.objects.update(speed=9),
    "several": lambda: Ship.objects.filter(speed__gte=0).update(speed=9, name="z", notes=["a"], berth=None),
    "filter that is undone": lambda: Ship.objects.filter(status="afloat").update(status="sunk"),
    "joined, duplicated": lambda: Ship.objects.filter(crew__name__in="ab").update(speed=9),
    "only": lambda: Ship.objects.only("name").update(speed=9),
    "select_related": lambda: Ship.objects.select_related("berth").update(speed=9),
}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8, 2000])
@pytest.mark.parametrize("update", CONSTANTS.values(), ids=CONSTANTS)
def test_constants_take_two_statements_a_batch_and_one_to_choose_among_batches(
    update: Callable[[], int], batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(*range(7))
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in "ab"))
    _listen(receivers, Ship)
    batches = _batches(7, batch_size)
    with bulk_signals(batch_size=batch_size):
        statements = _statements(lambda: (update(), 0)[1])
    assert len(statements) <= 2 * batches + (batches > 1)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8, 2000])
@pytest.mark.parametrize("ordering", ["-name", "berth__number", "crew__name", "?"])
def test_another_order_than_the_keys_takes_two_statements_more(
    ordering: str, batch_size: int, receivers: Receivers
) -> None:
    """It takes one, besides the one that locks, if the rows fit into one batch."""
    fleet = ships(*range(7))
    rows(Sailor, *({"ship": ship} for ship in fleet))
    _listen(receivers, Ship)
    batches = _batches(7, batch_size)
    with bulk_signals(batch_size=batch_size):
        statements = _statements(lambda: Ship.objects.order_by(ordering).update(speed=9))
    assert len(statements) <= 2 * batches + 1 + 2 * (batches > 1)


def test_a_single_row_needs_no_order(receivers: Receivers) -> None:
    ships(1)
    _listen(receivers, Ship)
    assert len(_statements(lambda: Ship.objects.order_by("-name").update(speed=9))) == 2


EXPRESSIONS: dict[str, Callable[[], int]] = {
    "F": lambda: Ship.objects.update(speed=F("speed") + 1),
    "several": lambda: Ship.objects.update(speed=F("speed") + 1, name=Concat("name", Value("!")), tonnage=4),
    "annotation": lambda: Ship.objects.annotate(n=F("speed") * 2).update(tonnage=F("n")),
    "subquery": lambda: Ship.objects.update(
        speed=Subquery(Sailor.objects.filter(ship=OuterRef("pk")).order_by("pk").values("pk")[:1])
    ),
}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 2000])
@pytest.mark.parametrize("update", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expressions_take_at_most_one_statement_a_batch_more(
    update: Callable[[], int], batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(*range(7))
    rows(Sailor, *({"ship": ship} for ship in fleet))
    _listen(receivers, Ship)
    batches = _batches(7, batch_size)
    with bulk_signals(batch_size=batch_size):
        statements = _statements(update)
    assert len(statements) <= 3 * batches + (batches > 1)


def test_if_an_override_does_not_call_djangos_update_the_rows_are_read(receivers: Receivers) -> None:
    class Slow(QuerySet[Any]):
        def update(self, **values: Any) -> int:
            for obj in self:
                Ship.objects.filter(pk=obj.pk).update(**values)
            return len(self)

    class Signalling(SignalEnhancedQuerySetMixins, Slow):
        pass

    ships(1, 2)
    log = receivers.record(Ship)
    assert Signalling(Ship).update(speed=F("speed") + 10) == 2
    assert [sent.values["speed"] for sent in log.of("post_save")] == [11, 12]


@pytest.mark.parametrize("value", [F("speed") + 1, Value(7)], ids=["F", "value"])
def test_with_post_save_receivers_only_nothing_is_computed_beforehand(
    value: Any, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    seen = []

    def hear(instance: Ship, **arguments: Any) -> None:
        seen.append(instance.speed)

    receivers.connect(post_save, hear, Ship)
    select, *_ = _statements(lambda: Ship.objects.update(speed=value))
    assert "signal_patch_" not in select
    # The old value shows later whether a row was written.
    assert "speed" in select
    assert seen == column(Ship, "speed")


def test_values_that_are_replaced_before_anybody_can_see_them_are_not_loaded(receivers: Receivers) -> None:
    ships(1)
    _listen(receivers, Ship)
    select, _ = _statements(lambda: Ship.objects.update(name="z", berth=None))
    assert "slug" in select
    assert not {"name", "berth_id"} & {*re.findall(r"\w+", select)}


SEEN: dict[str, tuple[type[Model], dict[str, Any]]] = {
    "from_db": (Logbook, {"entry": "z"}),
    "tracker": (Tracked, {"name": "z"}),
    "lock of an ancestor": (Novel, {"title": "z", "plot": "z"}),
    "key": (Beacon, {"code": "z"}),
}


@pytest.mark.parametrize(("model", "values"), SEEN.values(), ids=SEEN)
def test_old_values_are_loaded_if_receivers_may_see_them(
    model: type[Model], values: dict[str, Any], receivers: Receivers
) -> None:
    model._default_manager.create()
    _listen(receivers, model)
    select, *_ = _statements(lambda: model._default_manager.update(**values))
    assert {*values} <= {*re.findall(r"\w+", select.partition(" FROM ")[0])}


def test_a_receiver_of_post_init_sees_old_values(receivers: Receivers) -> None:
    ships(1)
    seen = []

    def look(instance: Ship, **arguments: Any) -> None:
        seen.append(instance.__dict__["speed"])

    _listen(receivers, Ship)
    receivers.connect(post_init, look, Ship)
    Ship.objects.update(speed=9)
    assert seen == [1]


@pytest.mark.parametrize("ordering", ["berth__number", "crew__name", "?"])
def test_the_order_of_other_tables_takes_one_statement(ordering: str, receivers: Receivers) -> None:
    ships(*range(7))
    _listen(receivers, Ship)
    statements = _statements(lambda: Ship.objects.order_by(ordering).update(speed=9))
    assert len(statements) <= 3


def test_with_pre_save_receivers_only_nothing_is_read_again(receivers: Receivers) -> None:
    ships(1, 2, 3)

    def hear(**arguments: Any) -> None:
        pass

    receivers.connect(pre_save, hear, Ship)
    assert len(_statements(lambda: Ship.objects.update(speed=F("speed") + 1))) == 2


@pytest.mark.parametrize(
    "values", [{"speed": 9}, {"speed": F("tonnage")}, {"speed": Value(3)}], ids=["constant", "F", "value"]
)
def test_no_statement_is_run_for_each_row(values: dict[str, Any], receivers: Receivers) -> None:
    def change(instance: Ship, **arguments: Any) -> None:
        instance.notes.append(instance.name)
        if instance.tonnage % 2:
            instance.slug = instance.name

    receivers.connect(pre_save, change, Ship)
    _listen(receivers, Ship)

    def statements(count: int) -> int:
        with no_bulk_signals():
            Ship.objects.all().delete()
        rows(Ship, *({"name": str(n), "tonnage": n} for n in range(count)))
        return len(_statements(lambda: Ship.objects.update(**values)))

    assert statements(100) == statements(3) <= 3


def test_a_child_takes_only_djangos_statements_and_one_to_read(receivers: Receivers) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title)
    with no_bulk_signals():
        own = len(_statements(lambda: Novel.objects.update(title="c", plot="d")))
    _listen(receivers, Novel)
    assert len(_statements(lambda: Novel.objects.update(title="e", plot="f"))) <= own + 1


# More rows than a statement may have parameters.


def _many_berths(count: int) -> None:
    """Create rows whose keys have gaps."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tests_berth (id, number) "
            "WITH RECURSIVE steps (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM steps WHERE n < %s) "
            "SELECT n * 2 + n %% 2, 0 FROM steps",
            [count],
        )


def test_more_rows_than_sqlite_allows_parameters(receivers: Receivers) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the limit is SQLite's, and the rows take their time")
    count = 260_000
    _many_berths(count)
    heard = {"pre": 0, "post": 0}

    def before(**arguments: Any) -> None:
        heard["pre"] += 1

    def after(instance: Berth, **arguments: Any) -> None:
        heard["post"] += instance.number

    receivers.connect(pre_save, before, Berth)
    receivers.connect(post_save, after, Berth)
    with bulk_signals(batch_size=300_000):
        assert Berth.objects.update(number=F("number") + 1) == count
    assert heard == {"pre": count, "post": count}
    assert Berth.objects.filter(number=1).count() == count


def test_more_parts_of_keys_than_the_database_allows_parameters(receivers: Receivers) -> None:
    count = 1_500
    rows(Mooring, *({"quay": n, "day": n % 7} for n in range(count)))

    def sign(instance: Mooring, **arguments: Any) -> None:
        instance.holder = f"{instance.quay}/{instance.day}"

    receivers.connect(pre_save, sign, Mooring)
    with bulk_signals(batch_size=300_000):
        assert Mooring.objects.update(holder="") == count
    assert column(Mooring, "holder") == [f"{n}/{n % 7}" for n in range(count)]


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [(Ship, {"name": "a"}, {"name": "b"}), (Buoy, {"colour": "red"}, {"colour": "green"})],
)
def test_many_keys_with_gaps_cost_no_statement_more(
    model: Any, old: dict[str, Any], new: dict[str, Any], receivers: Receivers
) -> None:
    """This holds for numbers and for UUIDs; rows between the keys stay as they are."""
    chosen = {row.pk for row in rows(model, *[old] * 200)[::2]}
    log = receivers.record(model)
    with bulk_signals(batch_size=60):
        statements = _statements(lambda: model.objects.filter(pk__in=chosen).update(**new))
    # Two batches are loaded and written, and the keys of all rows are chosen once. On each new connection
    # Django also asks SQLite whether it supports JSON.
    assert len([sql for sql in statements if model._meta.db_table in sql]) == 5
    assert {sent.instance.pk for sent in log.of("post_save")} == chosen
    assert set(model.objects.filter(**new).values_list("pk", flat=True)) == chosen


# Rows are locked where the database can.


def _needs_locks() -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("this database has no SELECT … FOR UPDATE")


def _locking(statements: list[str]) -> list[str]:
    return [sql for sql in _reading(statements) if "FOR UPDATE" in sql]


def _reading(statements: list[str]) -> list[str]:
    # Many keys are read through a server-side cursor, where there is one.
    return [sql for sql in statements if sql.startswith(("SELECT", "DECLARE"))]


def test_the_rows_are_locked_when_they_are_chosen(receivers: Receivers) -> None:
    _needs_locks()
    ships(1, 2)
    _listen(receivers, Ship)
    for batch_size in (1, 2000):
        with bulk_signals(batch_size=batch_size):
            statements = _statements(lambda: Ship.objects.update(speed=9))
        # If there are more batches, the second statement chooses the remaining rows, and then all are locked.
        assert _locking(statements)[:2] == _reading(statements)[:2]


def test_without_lock_nothing_is_locked(receivers: Receivers) -> None:
    ships(1, 2)
    _listen(receivers, Ship)
    with bulk_signals(lock=False, batch_size=1):
        assert _locking(_statements(lambda: Ship.objects.select_for_update().update(speed=9))) == []


def _can_lock(queryset: QuerySet[Any]) -> bool:
    """Return whether another connection can lock these rows at this moment."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with transaction.atomic():
                list(queryset.select_for_update(nowait=True))
            answers.append(True)
        except DatabaseError:
            answers.append(False)
        finally:
            connections["default"].close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


CHOICES: dict[str, Callable[[], QuerySet[Any]]] = {
    "plain": lambda: Ship.objects.all(),
    "joined": lambda: Ship.objects.filter(berth__number=4),
    "joined order": lambda: Ship.objects.order_by("berth__number", "-pk"),
    "duplicated": lambda: Ship.objects.filter(crew__name__in="ab"),
    "random": lambda: Ship.objects.order_by("?"),
    "distinct": lambda: Ship.objects.distinct(),
    "related": lambda: Ship.objects.select_related("berth"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("batch_size", [1, 2000])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_all_chosen_rows_are_locked_from_the_start_and_no_other_tables(
    choice: Callable[[], QuerySet[Any]], batch_size: int, receivers: Receivers
) -> None:
    _needs_locks()
    (berth,) = rows(Berth, {"number": 4})
    fleet = ships(1, 2, 3, berth=berth)
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in "ab"))
    lockable: list[tuple[bool, bool, bool]] = []

    def ask(instance: Ship, **arguments: Any) -> None:
        if not lockable:
            free = [_can_lock(Ship.objects.filter(pk=ship.pk)) for ship in fleet]
            lockable.append((any(free), _can_lock(Berth.objects.all()), _can_lock(Sailor.objects.all())))

    receivers.connect(pre_save, ask, Ship)
    with bulk_signals(batch_size=batch_size):
        assert choice().update(speed=9) == 3
    assert lockable == [(False, True, True)]


@pytest.mark.django_db(transaction=True)
def test_rows_that_are_not_chosen_are_not_locked(receivers: Receivers) -> None:
    _needs_locks()
    first, second = ships(1, 2)
    lockable: list[bool] = []

    def ask(instance: Ship, **arguments: Any) -> None:
        lockable.append(_can_lock(Ship.objects.filter(pk=second.pk)))

    receivers.connect(pre_save, ask, Ship)
    Ship.objects.filter(pk=first.pk).update(speed=9)
    assert lockable == [True]


@pytest.mark.django_db(transaction=True)
def test_a_childs_and_its_parents_rows_are_locked(receivers: Receivers) -> None:
    _needs_locks()
    novel = Novel.objects.create(title="a")
    lockable: list[bool] = []

    def ask(instance: Novel, **arguments: Any) -> None:
        lockable.append(_can_lock(Book.objects.filter(pk=novel.pk)))

    receivers.connect(pre_save, ask, Novel)
    Novel.objects.update(plot="b")
    assert lockable == [False]


@pytest.mark.django_db(transaction=True)
def test_the_locks_are_released_at_the_end(receivers: Receivers) -> None:
    _needs_locks()
    ships(1)
    _listen(receivers, Ship)
    Ship.objects.update(speed=9)
    assert _can_lock(Ship.objects.all())
