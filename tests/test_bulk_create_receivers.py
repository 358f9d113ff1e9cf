"""`bulk_create()`: what receivers change, raise, create and delete (contract.md, sections 1 and 2)."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save

import signal_patch
from tests.creating import assert_instances_equal_rows, on_its_own, upserting
from tests.models import (
    Publisher,
    Shelf,
    Token,
)
from tests.recording import Receivers

pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.usefixtures("everything_on"),
]


def test_what_receivers_change_is_inserted(receivers: Receivers) -> None:
    def change(instance: Any, **arguments: Any) -> None:
        instance.width = 4
        instance.label = instance.label.upper()
        if instance.label == "KEYED":
            instance.pk = 500

    receivers.connect(pre_save, change, Shelf)
    log = receivers.record(Shelf)
    Shelf.objects.bulk_create([Shelf(label="a"), Shelf(label="keyed")])
    assert list(Shelf.objects.values_list("label", "width", "area").order_by("label")) == [
        ("A", 4, 8),
        ("KEYED", 4, 8),
    ]
    assert Shelf.objects.get(label="KEYED").pk == 500
    assert_instances_equal_rows(log, Shelf)


@on_its_own
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_exception_of_a_receiver_leaves_no_row(signal: Any, receivers: Receivers) -> None:
    def fail(instance: Any, **arguments: Any) -> None:
        if instance.name == "3":
            raise ZeroDivisionError

    receivers.connect(signal, fail, Publisher)
    with signal_patch.bulk_signals(batch_size=2), pytest.raises(ZeroDivisionError):
        Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(5)])
    assert not Publisher.objects.exists()


@on_its_own
def test_hooks_run_after_the_commit(receivers: Receivers) -> None:
    def hook(**arguments: Any) -> None:
        transaction.on_commit(lambda: seen.append(Publisher.objects.count()))

    seen: list[int] = []
    receivers.connect(post_save, hook, Publisher)
    with signal_patch.bulk_signals(batch_size=1):
        Publisher.objects.bulk_create([Publisher(), Publisher()])
    assert seen == [2, 2]


def test_an_update_of_the_own_row_by_a_receiver_sends_nothing(receivers: Receivers) -> None:
    def touch(instance: Any, **arguments: Any) -> None:
        Publisher.objects.filter(pk=instance.pk).update(name="touched")

    receivers.connect(post_save, touch, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(), Publisher()])
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2
    assert set(Publisher.objects.values_list("name", flat=True)) == {"touched"}


def test_an_upsert_of_the_own_row_by_a_receiver_sends_nothing(receivers: Receivers) -> None:
    def upsert(instance: Any, **arguments: Any) -> None:
        Shelf.objects.bulk_create(
            [Shelf(label=instance.label, width=9)], **upserting("label", update_fields=["width"])
        )

    receivers.connect(post_save, upsert, Shelf)
    log = receivers.record(Shelf)
    Shelf.objects.bulk_create([Shelf(label="a")])
    assert log.names() == ["pre_save", "post_save"]
    Shelf(label="b").save()
    assert log.names() == ["pre_save", "post_save"] * 2
    assert set(Shelf.objects.values_list("width", flat=True)) == {9}


def test_an_upsert_of_a_key_in_flight_sends_nothing(receivers: Receivers) -> None:
    def upsert(instance: Any, **arguments: Any) -> None:
        Token.objects.bulk_create([Token(code="a", uses=9)], **upserting("code", update_fields=["uses"]))

    receivers.connect(post_save, upsert, Token)
    log = receivers.record(Token)
    Token.objects.bulk_create([Token(code="a")])
    assert log.names() == ["pre_save", "post_save"]
    assert Token.objects.get().uses == 9


def test_rows_with_other_keys_that_a_receiver_creates_send_signals(receivers: Receivers) -> None:
    def follow(instance: Any, **arguments: Any) -> None:
        if instance.name == "first":
            Publisher.objects.bulk_create([Publisher(name="second")])

    receivers.connect(post_save, follow, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(name="first")])
    assert len(log) == 4


def test_a_row_that_a_receiver_gives_a_key_is_in_flight_at_once(receivers: Receivers) -> None:
    def give_key(instance: Any, **arguments: Any) -> None:
        instance.pk = kept.pk
        Publisher.objects.filter(pk=kept.pk).update(name="touched")

    with signal_patch.no_bulk_signals():
        kept = Publisher.objects.create(name="kept")
    receivers.connect(pre_save, give_key, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(name="new")], ignore_conflicts=True)
    assert log.names() == ["pre_save"]
    assert Publisher.objects.get().name == "touched"


def test_a_row_that_a_receiver_has_deleted_gets_no_post_save(receivers: Receivers) -> None:
    def delete_others(instance: Any, **arguments: Any) -> None:
        Publisher.objects.exclude(pk=instance.pk).delete()

    receivers.connect(post_save, delete_others, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(3)])
    assert len(log.of("post_save")) == 1


def test_receivers_that_delete_cost_the_same_for_each_row(receivers: Receivers) -> None:
    sizes: list[int] = []

    def measure(execute: Any, sql: str, params: Any, *others: Any) -> Any:
        sizes.append(len(str(params)))
        return execute(sql, params, *others)

    def cost_of(count: int) -> int:
        sizes.clear()
        with connection.execute_wrapper(measure):
            Token.objects.bulk_create(Token(code=f"{count}/{n:03}") for n in range(count))
        return sum(sizes)

    # For a model without delete receivers, Django does not load what it deletes.
    receivers.connect(post_save, lambda **_: Token.objects.filter(code="none").delete(), Token)
    assert cost_of(800) < 3 * cost_of(400)
