"""Rows that are loaded as instances of other classes than the queryset's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import F, Model
from django.db.models.functions import Now, Upper
from django.db.models.signals import post_init, post_save, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from tests.fleet import column, of_every_size, rows
from tests.queryset_models import (
    Animal,
    Cat,
    Coach,
    Craft,
    Dinghy,
    Drone,
    Gadget,
    Hub,
    Journal,
    Poster,
    PosterProxy,
    Register,
    Rotor,
)

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

TYPED: dict[str, tuple[type[Model], type[Model], str]] = {
    "from_db()": (Craft, Dinghy, "dinghy"),
    "__init__()": (Animal, Cat, "cat"),
    "__new__()": (Gadget, Drone, "drone"),
    "a metaclass": (Gadget, Rotor, "rotor"),
}
typed = pytest.mark.parametrize(("model", "subclass", "kind"), TYPED.values(), ids=TYPED)


def _kinds(model: type[Model], *kinds: str) -> list[Any]:
    return [row.pk for row in rows(model, *({"kind": kind} for kind in kinds))]


@of_every_size
@typed
def test_the_sender_is_the_class_of_the_instance(
    model: Any, subclass: type[Model], kind: str, batch_size: int, receivers: Receivers
) -> None:
    _kinds(model, kind, "other")
    log = receivers.record()
    with bulk_signals(batch_size=batch_size):
        assert model.objects.order_by("pk").update(note=Upper("kind")) == 2
    assert [(sent.sender, type(sent.instance)) for sent in log.of("post_save")] == [
        (subclass, subclass),
        (model, model),
    ]


@of_every_size
@typed
def test_a_receiver_of_the_subclass_alone_is_called(
    model: Any, subclass: type[Model], kind: str, batch_size: int, receivers: Receivers
) -> None:
    first, _, third = _kinds(model, kind, "other", kind)
    log = receivers.record(subclass)
    with bulk_signals(batch_size=batch_size):
        assert model.objects.update(note="new") == 3
    assert [(sent.signal, sent.values["id"]) for sent in log.of("pre_save")] == [
        ("pre_save", first),
        ("pre_save", third),
    ]
    assert [sent.values["note"] for sent in log.of("post_save")] == ["new", "new"]
    assert column(model, "note") == ["new"] * 3


def test_through_a_proxy_receivers_of_its_siblings_are_called(receivers: Receivers) -> None:
    _kinds(Craft, "dinghy", "coach")
    log = receivers.record(Coach)
    assert Dinghy.objects.update(note="new") == 2
    assert [sent.values["kind"] for sent in log.of("post_save")] == ["coach"]


@pytest.mark.parametrize("by", ["the queryset", "the instance"])
def test_the_rows_that_a_cascade_changes(by: str, receivers: Receivers) -> None:
    (hub,) = rows(Hub, {"name": "x"})
    rows(Craft, {"kind": "dinghy", "hub": hub}, {"kind": "coach", "hub": hub})
    log = receivers.record(Dinghy)
    chosen: Any = Hub.objects.all() if by == "the queryset" else hub
    chosen.delete()
    assert [(sent.sender, sent.values["hub_id"]) for sent in log.of("post_save")] == [(Dinghy, None)]


def test_bulk_update_of_such_instances(receivers: Receivers) -> None:
    _kinds(Craft, "dinghy", "coach")
    log = receivers.record(Dinghy)
    crafts = list(Craft.objects.order_by("pk"))
    for craft in crafts:
        craft.note = "new"
    assert Craft.objects.bulk_update(crafts, ["note"]) == 2
    assert [sent.sender for sent in log.of("post_save")] == [Dinghy]


def test_what_a_receiver_changes_is_saved(receivers: Receivers) -> None:
    _kinds(Craft, "dinghy", "coach")

    def change(craft: Any) -> None:
        craft.kind = "boat"

    receivers.before_saves(Dinghy, change)
    truth = receivers.check_truth(Dinghy)
    assert Craft.objects.update(note="new") == 2
    assert column(Craft, "kind") == ["boat", "coach"]
    assert truth == [True]


class TestByReceivers:
    """A receiver of `post_init` that assigns another class to the instance."""

    @pytest.fixture(autouse=True)
    def posters(self, receivers: Receivers) -> list[Poster]:
        posters = rows(Poster, {"note": "a"}, {"note": "b"})

        def turn(instance: Any, **arguments: Any) -> None:
            instance.__class__ = PosterProxy

        receivers.connect(post_init, turn, Poster)
        return posters

    def test_a_receiver_of_the_subclass_alone_is_called(self, receivers: Receivers) -> None:
        log = receivers.record(PosterProxy)
        assert Poster.objects.update(note="new") == 2
        assert [sent.sender for sent in log.of("post_save")] == [PosterProxy] * 2


def test_an_image_field_is_no_such_receiver(receivers: Receivers) -> None:
    rows(Poster, {"note": "a"})
    log = receivers.record(PosterProxy)
    with CaptureQueriesContext(connection) as captured:
        assert Poster.objects.update(note="new") == 1
    assert len(captured) == 1
    assert not log


class TestAnotherModelOfTheTable:
    @pytest.fixture(autouse=True)
    def registers(self) -> list[Register]:
        return rows(Register, {"note": "a", "size": 1}, {"note": "b", "size": 2})

    @of_every_size
    def test_its_receivers_are_called_and_what_they_change_is_saved(
        self, batch_size: int, receivers: Receivers
    ) -> None:
        def change(journal: Any) -> None:
            journal.note += "!"

        receivers.before_saves(Journal, change)
        log, truth = receivers.record(Journal), receivers.check_truth(Journal)
        with bulk_signals(batch_size=batch_size):
            assert Register.objects.update(size=F("size") + 10) == 2
        assert [sent.sender for sent in log.of("post_save")] == [Journal] * 2
        assert Journal.objects.order_by("pk").values_list("note", "size")[0] == ("a!", 11)
        assert truth == [True, True]

    def test_what_the_database_decides_is_read_from_the_row(self, receivers: Receivers) -> None:
        truth = receivers.check_truth(Journal)
        assert Register.objects.update(changed=Now()) == 2
        assert truth == [True, True]

    def test_a_nested_update_of_its_rows_sends_nothing(self, receivers: Receivers) -> None:
        def touch(instance: Any, **arguments: Any) -> None:
            Journal.objects.filter(pk=instance.pk).update(note="touched")

        receivers.connect(post_save, touch, Journal)
        log = receivers.record(Journal)
        assert Register.objects.update(size=5) == 2
        assert len(log.of("post_save")) == 2
        assert [row.note for row in Journal.objects.all()] == ["touched", "touched"]


@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_receivers_of_other_models_cost_a_plain_model_nothing(signal: Any, receivers: Receivers) -> None:
    rows(Hub, {"name": "x"})
    receivers.connect(signal, lambda **arguments: None, PosterProxy)
    with CaptureQueriesContext(connection) as captured:
        Hub.objects.update(name="y")
        Poster.objects.update(note="y")
    assert len(captured) == 2
