"""`update()`: receivers, batches, and the return value (contract.md, section 1)."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import (
    F,
)
from django.db.models.signals import post_init, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from tests.fleet import column, of_every_size, ships
from tests.models import (
    Book,
    Port,
    Reader,
    Ship,
)

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


# Receivers (section 1.2)


def test_receivers_of_other_models_and_of_deletes_do_not_count(receivers: Receivers) -> None:
    ships(5)
    log = receivers.record(Port)
    receivers.connect(pre_delete, lambda **arguments: None, Ship)
    with CaptureQueriesContext(connection) as queries:
        assert Ship.objects.update(speed=9) == 1
    assert len(queries) == 1
    assert log == []


def test_auto_created_through_models_get_no_signals(receivers: Receivers) -> None:
    book, reader, other = Book.objects.create(), Reader.objects.create(), Reader.objects.create()
    book.readers.add(reader)
    log = receivers.record()
    assert Book.readers.through.objects.update(reader=other) == 1
    assert log == []


def test_a_receiver_without_a_sender_is_called(receivers: Receivers) -> None:
    ships(5)
    log = receivers.record()
    Ship.objects.update(speed=9)
    assert [sent.sender for sent in log] == [Ship, Ship]


@pytest.mark.parametrize("name", ["pre_save", "post_save"])
def test_a_receiver_of_one_signal_alone_is_enough(name: str, receivers: Receivers) -> None:
    ships(5, 6)
    seen: list[int] = []

    def receive(instance: Ship, **arguments: Any) -> None:
        seen.append(instance.speed)

    receivers.connect({"pre_save": pre_save, "post_save": post_save}[name], receive, Ship)
    assert Ship.objects.update(speed=F("speed") + 1) == 2
    assert seen == [6, 7]
    assert column(Ship, "speed") == [6, 7]


# Batches (section 1.9)


def test_each_batch_gets_its_pre_saves_one_write_and_its_post_saves(receivers: Receivers) -> None:
    ships(1, 2, 3, 4, 5)
    events: list[str] = []

    def note(instance: Ship, signal: Any, **arguments: Any) -> None:
        written = Ship.objects.filter(tonnage=9).count()
        events.append(f"{'pre' if signal is pre_save else 'post'} {instance.name} {written}")

    receivers.connect(pre_save, note, Ship)
    receivers.connect(post_save, note, Ship)
    with bulk_signals(batch_size=2):
        Ship.objects.update(tonnage=9)
    assert events == [
        *("pre a 0", "pre b 0", "post a 2", "post b 2"),
        *("pre c 2", "pre d 2", "post c 4", "post d 4"),
        *("pre e 4", "post e 5"),
    ]


@pytest.mark.parametrize("ordering", [[], ["speed"], ["?"]], ids=["by key", "by column", "at random"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_at_most_batch_size_instances_are_alive(
    batch_size: int, ordering: list[str], receivers: Receivers
) -> None:
    ships(*range(7))
    alive: weakref.WeakSet[Ship] = weakref.WeakSet()
    most = 0

    def born(instance: Ship, **arguments: Any) -> None:
        alive.add(instance)

    def count(instance: Ship, **arguments: Any) -> None:
        nonlocal most
        gc.collect()
        most = max(most, len(alive))

    receivers.connect(post_init, born, Ship)
    receivers.connect(pre_save, count, Ship)
    receivers.connect(post_save, count, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.order_by(*ordering).update(speed=F("speed") + 1) == 7
    assert most == batch_size


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 6])
def test_progress_is_reported_after_each_batch(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3, 4, 5)
    receivers.record(Ship)
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    with bulk_signals(batch_size=batch_size, progress=progress):
        Ship.objects.update(speed=9)
    assert seen == [(min(done, 5), 5) for done in range(batch_size, 5 + batch_size, batch_size)]


# The return value (section 1.10)


def test_the_return_value_is_the_rows_matched_not_the_rows_changed(receivers: Receivers) -> None:
    ships(9, 9, 1)
    receivers.record(Ship)
    assert Ship.objects.update(speed=9) == 3
    assert Ship.objects.filter(speed=9).update(speed=9) == 3


def test_an_evaluated_queryset_is_read_anew_after_the_update(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.record(Ship)
    queryset = Ship.objects.order_by("pk")
    assert [ship.speed for ship in queryset] == [1, 2]
    queryset.update(speed=9)
    assert queryset._result_cache is None
    assert [ship.speed for ship in queryset] == [9, 9]


def test_the_receivers_instances_are_not_the_ones_of_the_cache(receivers: Receivers) -> None:
    ships(1)
    log = receivers.record(Ship)
    queryset = Ship.objects.all()
    (held,) = queryset
    queryset.update(speed=9)
    assert log[0].instance is not held
    assert held.speed == 1


def _delete_once(receivers: Receivers, signal: Any, deleter: str, deleted: str) -> None:
    def delete(instance: Ship, **arguments: Any) -> None:
        if instance.name == deleter:
            Ship.objects.filter(name=deleted).delete()

    receivers.connect(signal, delete, Ship)


@of_every_size
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
def test_a_row_that_a_receiver_deleted_gets_no_post_save_and_is_not_counted(
    signal: Any, batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    _delete_once(receivers, signal, "a", "b")
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=F("speed") + 10) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]
    assert column(Ship, "speed") == [11, 13]


@of_every_size
def test_a_receiver_may_delete_its_own_row(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    _delete_once(receivers, pre_save, "b", "b")
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]


def test_a_row_deleted_after_its_post_save_counts(receivers: Receivers) -> None:
    ships(1, 2, 3)
    _delete_once(receivers, post_save, "c", "a")
    assert Ship.objects.update(speed=9) == 3


@of_every_size
def test_a_row_deleted_by_raw_means_gets_no_post_save(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)

    def delete(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            doomed = Ship.objects.filter(name="b")
            doomed._raw_delete(using="default")

    receivers.connect(pre_save, delete, Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert [sent.values["name"] for sent in log.of("post_save")] == ["a", "c"]
