"""Expressions that read columns assigned before in the same statement (contract.md, section 7).

MariaDB's and MySQL's SET shows them the new values. On other databases these tests pass as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Case, CharField, F, Func, JSONField, Value, When
from django.db.models.functions import Cast, Concat
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, of_every_size, rows, ships
from tests.models import Mooring, Novel, Shelf, Ship

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


def _fleet(*speeds: int, **values: Any) -> list[Ship]:
    ships(*speeds, **values)
    # MySQL's INSERT does not return their keys.
    return list(Ship.objects.order_by("pk"))


def _expected(update: Callable[[], object], model: type[Model]) -> list[dict[str, Any]]:
    """Return the rows as Django's own statement leaves them."""
    with no_bulk_signals(), transaction.atomic():
        update()
        result = [*model._base_manager.order_by("pk").values()]
        transaction.set_rollback(True)
    return result


def _holds(receivers: Receivers, model: type[Model], update: Callable[[], int], batch_size: int) -> bool:
    """Return whether both signals show what Django's own statement leaves in the rows."""
    expected = _expected(update, model)
    log = receivers.record(model)
    with bulk_signals(batch_size=batch_size):
        assert update() == len(expected)
    assert [*model._base_manager.order_by("pk").values()] == expected
    seen = [
        [{name: getattr(sent.instance, name) for name in expected[0]} for sent in log.of(signal)]
        for signal in ("pre_save", "post_save")
    ]
    return seen == [expected, expected]


def _unknown_function(name: str) -> Any:
    return Func(name, function="NO_SUCH_FUNCTION", output_field=CharField())


@pytest.mark.parametrize("operation", ["update", "bulk_update"])
def test_an_expression_on_an_inherited_table_is_refused_before_any_signal(
    operation: str, receivers: Receivers
) -> None:
    with no_bulk_signals():
        novel = Novel.objects.create(title="Emma")
    log = receivers.record(Novel)
    values = {"title": "new", "status": _unknown_function("title")}
    vars(novel).update(values)

    def run() -> None:
        if operation == "update":
            Novel.objects.update(**values)
        else:
            Novel.objects.bulk_update([novel], list(values))

    with pytest.raises(DatabaseError, match=r"(?i)no_such_function"), transaction.atomic():
        run()
    assert log == []
    assert column(Novel, "title") == ["Emma"]


KEYS: dict[str, Callable[[], int]] = {
    "read after it changes": lambda: Ship.objects.update(id=F("id") + 1000, tonnage=F("id")),
    "read before it changes": lambda: Ship.objects.update(tonnage=F("id"), id=F("id") + 1000),
    "a constant": lambda: Ship.objects.filter(speed=2).update(id=5000, tonnage=F("id") + 1),
    "computed from what is assigned": lambda: Ship.objects.update(tonnage=F("id") + 2000, id=F("tonnage")),
    "and both": lambda: Ship.objects.update(tonnage=F("id") + 2000, id=F("tonnage"), price=F("id")),
}


@of_every_size
@pytest.mark.parametrize("update", KEYS.values(), ids=KEYS)
def test_a_key_that_changes_is_seen_by_expressions_to_its_right(
    update: Callable[[], int], batch_size: int, receivers: Receivers
) -> None:
    for number, ship in enumerate(_fleet(1, 2, 3)):
        Ship.objects.filter(pk=ship.pk).update(tonnage=3000 + number)
    expected = _expected(update, Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        update()
    assert [*Ship.objects.order_by("pk").values()] == expected
    by_key = {row["id"]: row for row in expected}
    for sent in log:
        assert (sent.values["tonnage"], sent.values["price"]) == (
            by_key[sent.instance.pk]["tonnage"],
            by_key[sent.instance.pk]["price"],
        )


@of_every_size
def test_a_part_of_a_key_that_changes_is_seen_by_expressions_to_its_right(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Mooring, *({"quay": 1, "day": day} for day in range(3)))

    def update() -> int:
        return Mooring.objects.update(day=F("day") + 10, holder=Cast("day", CharField()))

    assert _holds(receivers, Mooring, update, batch_size)


@of_every_size
@pytest.mark.parametrize("operation", ["update", "bulk_update"])
def test_jsons_null_from_an_assigned_column_is_written_as_such(
    operation: str, batch_size: int, receivers: Receivers
) -> None:
    # The column takes no NULL.
    fleet = _fleet(1, 2, 3, notes=Value(None, JSONField()))
    notes = Case(When(speed=5, then=F("notes")), default=F("notes"))

    def update() -> int:
        if operation == "update":
            return Ship.objects.update(speed=5, notes=notes)
        for ship in fleet:
            ship.speed, ship.notes = 5, notes
        return Ship.objects.bulk_update(fleet, ["speed", "notes"])

    assert _holds(receivers, Ship, update, batch_size)


def test_a_receiver_may_replace_a_value_that_the_database_would_refuse(receivers: Receivers) -> None:
    rows(Shelf, {"label": "a"}, {"label": "b"})
    receivers.before_saves(Shelf, lambda shelf: setattr(shelf, "label", f"shelf {shelf.pk}"))
    assert Shelf.objects.update(colour="red", label=Concat("colour", Value("!"))) == 2
    assert column(Shelf, "label") == [f"shelf {key}" for key in column(Shelf, "pk")]


@pytest.mark.parametrize("operation", ["update", "bulk_update"])
@pytest.mark.parametrize("lock", [True, False])
def test_without_locks_an_increment_by_others_is_not_lost(
    lock: bool, operation: str, receivers: Receivers
) -> None:
    (ship,) = _fleet(1, tonnage=100)
    seen = 5 if connection.vendor == "mysql" else 1

    def add(sender: Any, **arguments: Any) -> None:
        # This stands for another transaction, which would wait for the locked row.
        Ship.objects.update(tonnage=F("tonnage") + 1000)

    receivers.before_saves(Ship, add)
    log = receivers.record(Ship)
    ship.speed, ship.tonnage = 5, F("tonnage") + F("speed")
    with bulk_signals(lock=lock):
        if operation == "update":
            Ship.objects.update(speed=5, tonnage=F("tonnage") + F("speed"))
        else:
            Ship.objects.bulk_update([ship], ["speed", "tonnage"])
    is_value = lock and connection.vendor == "mysql"
    assert log.of("pre_save")[0].values["tonnage"] == 100 + seen
    assert column(Ship, "tonnage") == [100 + seen + (0 if is_value else 1000)]
    assert log.of("post_save")[0].values["tonnage"] == 100 + seen + (0 if is_value else 1000)


@pytest.mark.parametrize("operation", ["update", "bulk_update"])
def test_without_locks_an_expression_does_not_read_what_a_receiver_assigns(
    operation: str, receivers: Receivers
) -> None:
    (ship,) = _fleet(1, tonnage=100)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "speed", 7))
    ship.speed, ship.tonnage = 5, F("tonnage") + F("speed")
    with bulk_signals(lock=False):
        if operation == "update":
            Ship.objects.update(speed=5, tonnage=F("tonnage") + F("speed"))
        else:
            Ship.objects.bulk_update([ship], ["speed", "tonnage"])
    assert column(Ship, "speed") == [7]
    assert column(Ship, "tonnage") == [105 if connection.vendor == "mysql" else 101]


def _statements(run: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        run()
    return len(captured)


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="only there does SET work from left to right")
@pytest.mark.parametrize("operation", ["update", "bulk_update"])
def test_a_rehearsal_costs_five_statements(operation: str, receivers: Receivers) -> None:
    fleet = _fleet(*range(20))
    receivers.record(Ship)

    def run(**values: Any) -> None:
        for ship in fleet:
            vars(ship).update(values)
        if operation == "update":
            Ship.objects.update(**values)
        else:
            Ship.objects.bulk_update(fleet, list(values))

    without = _statements(lambda: run(tonnage=F("speed"), speed=3))
    assert _statements(lambda: run(speed=F("speed") + 1, tonnage=F("speed"))) == without + 5


def test_where_no_row_is_found_nothing_is_rehearsed(receivers: Receivers) -> None:
    receivers.record(Ship)
    within = _statements(lambda: Ship.objects.update(speed=5, tonnage=F("speed")))
    assert within == _statements(lambda: Ship.objects.update(speed=5, tonnage=F("price")))
