"""`update()`: all or nothing (contract.md, section 1.8)."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields, is_dataclass
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import (
    F,
)
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, dispatch
from signal_patch.contrib.jobs.steps import Step
from signal_patch.dispatch.rows.selection import Selection
from tests.fleet import column, of_every_size, rows, ships
from tests.models import (
    Ship,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


class Refusal(Exception):
    pass


def _raise_at(receivers: Receivers, signal: Any, call: int) -> None:
    calls = iter(range(1, 100))

    def refuse(instance: Ship, **arguments: Any) -> None:
        if next(calls) == call:
            raise Refusal

    receivers.connect(signal, refuse, Ship)


@of_every_size
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_an_exception_from_any_receiver_leaves_no_row_changed(
    signal: Any, call: int, batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    _raise_at(receivers, signal, call)
    with pytest.raises(Refusal), transaction.atomic(), bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 10)
    assert column(Ship, "speed") == [1, 2, 3]


@pytest.mark.parametrize(
    "operation",
    [
        lambda fleet: Ship.objects.update(speed=F("speed") + 10),
        lambda fleet: Ship.objects.bulk_update(fleet, ["speed"]),
        lambda fleet: Ship.objects.bulk_create([Ship(name="d")]),
    ],
    ids=["update", "bulk_update", "bulk_create"],
)
@pytest.mark.parametrize("atomic", [True, False], ids=["one transaction", "batch by batch"])
def test_an_error_report_that_shows_our_objects_runs_no_statement(
    atomic: bool, operation: Callable[[list[Ship]], object], receivers: Receivers
) -> None:
    fleet = ships(1, 2, 3)
    _raise_at(receivers, post_save, 1)
    with pytest.raises(Refusal) as caught, bulk_signals(atomic=atomic):
        operation(fleet)
    # Otherwise every statement would be refused.
    transaction.set_rollback(False)
    shown = [
        value
        for frame, _ in walk_tb(caught.tb)
        for value in frame.f_locals.values()
        if type(value).__module__.startswith("signal_patch.dispatch")
    ]
    assert shown
    with CaptureQueriesContext(connection) as queries:
        texts = [repr(value) for value in shown]
    assert not queries.captured_queries
    # Nor does it call the __str__() of rows, which may run statements.
    assert not any("<Ship:" in text for text in texts)


def _own_classes() -> Iterator[type[Any]]:
    names = [found.name for found in pkgutil.walk_packages(dispatch.__path__, "signal_patch.dispatch.")]
    for module in map(importlib.import_module, [*names, Step.__module__]):
        yield from (kind for kind in vars(module).values() if isinstance(kind, type))


def test_no_class_that_holds_a_queryset_shows_it_in_its_repr() -> None:
    holding = {
        kind
        for kind in _own_classes()
        if is_dataclass(kind) and any("QuerySet" in str(field.type) for field in fields(kind))
    }
    assert {Step, Selection} <= holding
    assert {kind for kind in holding if kind.__repr__ is not object.__repr__} == set()


@of_every_size
def test_an_exception_leaves_no_row_in_flight(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    _raise_at(receivers, pre_save, 2)
    with bulk_signals(batch_size=batch_size):
        with pytest.raises(Refusal), transaction.atomic():
            Ship.objects.update(speed=9)
        log = receivers.record(Ship)
        assert Ship.objects.update(speed=9) == 3
    assert len(log.of("post_save")) == 3


@of_every_size
def test_an_exception_from_the_database_leaves_no_row_changed(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    receivers.record(Ship)
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=batch_size):
        Ship.objects.update(slug="same for all")
    assert column(Ship, "slug") == [None, None, None]


def test_an_exception_marks_the_surrounding_transaction_for_rollback(
    receivers: Receivers,
) -> None:
    ships(1)
    _raise_at(receivers, post_save, 1)
    with transaction.atomic():
        with pytest.raises(Refusal):
            Ship.objects.update(speed=9)
        assert connection.needs_rollback
    assert column(Ship, "speed") == [1]


@pytest.mark.django_db(transaction=True)
def test_receivers_run_inside_the_transaction_and_on_commit_after_it(receivers: Receivers) -> None:
    ships(1, 2)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        order.append("in" if connection.in_atomic_block else "out")
        transaction.on_commit(lambda: order.append("out" if not connection.in_atomic_block else "in"))

    receivers.connect(pre_save, hook, Ship)
    receivers.connect(post_save, hook, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.update(speed=9)
    assert order == ["in"] * 4 + ["out"] * 4


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_transaction_is_one_of_the_database_written_to(receivers: Receivers) -> None:
    rows(Ship, {"speed": 1}, using="other")
    seen: list[tuple[bool, bool]] = []

    def look(instance: Ship, using: str, **arguments: Any) -> None:
        seen.append((connections[using].in_atomic_block, connection.in_atomic_block))

    receivers.connect(pre_save, look, Ship)
    _raise_at(receivers, post_save, 1)
    with pytest.raises(Refusal):
        Ship.objects.using("other").update(speed=9)
    assert seen == [(True, False)]
    assert column(Ship, "speed", using="other") == [1]


@pytest.mark.django_db(transaction=True)
def test_inside_an_outer_transaction_on_commit_waits_for_that(receivers: Receivers) -> None:
    ships(1)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        transaction.on_commit(lambda: order.append("commit"))

    receivers.connect(post_save, hook, Ship)
    with transaction.atomic():
        Ship.objects.update(speed=9)
        order.append("updated")
    assert order == ["updated", "commit"]


@pytest.mark.django_db(transaction=True)
def test_on_commit_does_not_run_after_an_exception(receivers: Receivers) -> None:
    ships(1, 2)
    order: list[str] = []

    def hook(instance: Ship, **arguments: Any) -> None:
        transaction.on_commit(lambda: order.append("commit"))

    receivers.connect(pre_save, hook, Ship)
    _raise_at(receivers, post_save, 2)
    with pytest.raises(Refusal):
        Ship.objects.update(speed=9)
    assert order == []
    assert column(Ship, "speed") == [1, 2]
