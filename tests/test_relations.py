"""Related managers, the order of related rows, and `through` models (contract.md, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db.models.signals import post_init, post_save, pre_save
from django.test.utils import isolate_apps

import signal_patch
from tests.cascade_models import Dock, Docker, Harbour, Note, Shift
from tests.fleet import inserted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db

SAVES = ["pre_save", "post_save"]


@pytest.fixture
def harbour() -> Harbour:
    return Harbour.objects.create(name="Hull")


def saved(log: Log, field: str) -> list[tuple[str, int, Any]]:
    return [(s.signal, s.values["id"], s.values[field]) for s in log]


REVERSE: dict[str, Callable[[Harbour, Dock, Dock], Any]] = {
    "add": lambda harbour, mine, other: harbour.docks.add(other),
    "remove": lambda harbour, mine, other: harbour.docks.remove(mine),
    "clear": lambda harbour, mine, other: harbour.docks.clear(),
    "set to nothing": lambda harbour, mine, other: harbour.docks.set([]),
    "set to more": lambda harbour, mine, other: harbour.docks.set([mine, other]),
}


@pytest.mark.parametrize("call", REVERSE.values(), ids=REVERSE)
def test_a_reverse_foreign_keys_manager_sends_the_saves_of_the_rows_that_it_changes(
    call: Callable[[Harbour, Dock, Dock], Any], harbour: Harbour, log: Log
) -> None:
    mine, other = Dock.objects.create(harbour=harbour, name="mine"), Dock.objects.create(name="other")
    before = dict(Dock.objects.values_list("pk", "harbour"))
    log.clear()
    with signal_patch.bulk_signals():
        call(harbour, mine, other)
    after = dict(Dock.objects.values_list("pk", "harbour"))
    changed = {pk for pk in before if before[pk] != after[pk]}
    assert len(changed) == 1
    assert [(s.signal, s.values["id"], s.values["harbour_id"]) for s in log] == [
        (signal, pk, after[pk]) for pk in changed for signal in SAVES
    ]
    assert all(s.arguments["update_fields"] == {"harbour"} for s in log)
    assert all(s.values.keys() == {"id", "name", "harbour_id", "_order"} for s in log)


@pytest.mark.parametrize("call", REVERSE.values(), ids=REVERSE)
def test_without_the_switch_it_sends_nothing(
    call: Callable[[Harbour, Dock, Dock], Any], harbour: Harbour, log: Log
) -> None:
    mine, other = Dock.objects.create(harbour=harbour), Dock.objects.create()
    log.clear()
    call(harbour, mine, other)
    assert log == []


def test_set_with_clear_sends_the_saves_of_both_steps(harbour: Harbour, log: Log) -> None:
    mine, other = Dock.objects.create(harbour=harbour), Dock.objects.create()
    log.clear()
    with signal_patch.bulk_signals():
        harbour.docks.set([other], clear=True)
    assert saved(log, "harbour_id") == [
        ("pre_save", mine.pk, None),
        ("post_save", mine.pk, None),
        ("pre_save", other.pk, harbour.pk),
        ("post_save", other.pk, harbour.pk),
    ]


def test_a_generic_relations_add_sends_the_saves(harbour: Harbour, log: Log) -> None:
    notes = [Note.objects.create() for _ in range(2)]
    log.clear()
    with signal_patch.bulk_signals():
        harbour.notes.add(*notes)
    keys = [note.pk for note in notes]
    assert [(s.signal, s.values["id"]) for s in log] == [(signal, pk) for signal in SAVES for pk in keys]
    for sent in log:
        assert sent.arguments["update_fields"] == {"content_type", "object_id"}
        assert sent.values["object_id"] == harbour.pk
        assert isinstance(sent.instance, Note)
        assert sent.instance.target == harbour


@pytest.mark.parametrize(
    "call", [lambda harbour, note: harbour.notes.remove(note), lambda harbour, note: harbour.notes.clear()]
)
def test_a_generic_relations_remove_and_clear_send_deletes_once(
    call: Callable[[Harbour, Note], Any], harbour: Harbour, log: Log
) -> None:
    note = harbour.notes.create()
    log.clear()
    with signal_patch.bulk_signals():
        call(harbour, note)
    assert log.names() == ["pre_delete", "post_delete"]
    assert not Note.objects.exists()


def test_a_generic_relations_set_sends_deletes_and_saves(harbour: Harbour, log: Log) -> None:
    old, new = harbour.notes.create(), Note.objects.create()
    log.clear()
    with signal_patch.bulk_signals():
        harbour.notes.set([new])
    assert [(s.signal, s.values["id"]) for s in log] == [
        ("pre_delete", old.pk),
        ("post_delete", old.pk),
        ("pre_save", new.pk),
        ("post_save", new.pk),
    ]


def test_set_order_shows_receivers_whole_rows(harbour: Any, log: Log) -> None:
    docks = [Dock.objects.create(harbour=harbour, name=name) for name in "abc"]
    order = [docks[2].pk, docks[0].pk, docks[1].pk]
    log.clear()
    with signal_patch.bulk_signals():
        harbour.set_dock_order(order)
    names = {dock.pk: dock.name for dock in docks}
    assert [s.values for s in log.of("pre_save")] == [
        {"id": pk, "name": names[pk], "harbour_id": harbour.pk, "_order": position}
        for position, pk in enumerate(order)
    ]
    assert [s.values for s in log.of("post_save")] == [s.values for s in log.of("pre_save")]
    assert all(s.arguments["update_fields"] == {"_order"} for s in log)
    assert list(harbour.get_dock_order()) == order


def test_set_order_loads_rows_with_their_old_place(harbour: Any, receivers: Receivers) -> None:
    docks = [Dock.objects.create(harbour=harbour) for _ in range(2)]
    places = []
    receivers.connect(post_save, lambda **kwargs: None, Dock)
    receivers.connect(
        post_init, lambda instance, **kwargs: places.append((instance.pk, instance._order)), Dock
    )
    with signal_patch.bulk_signals():
        harbour.set_dock_order([docks[1].pk, docks[0].pk])
    assert set(places[-2:]) == {(docks[1].pk, 1), (docks[0].pk, 0)}


def test_what_a_receiver_changes_while_an_order_is_set_is_saved(harbour: Any, receivers: Receivers) -> None:
    def rename(instance: Any, **kwargs: Any) -> None:
        instance.name = f"place {instance._order}"

    docks = [Dock.objects.create(harbour=harbour) for _ in range(2)]
    receivers.connect(pre_save, rename, Dock)
    with signal_patch.bulk_signals():
        harbour.set_dock_order([docks[1].pk, docks[0].pk])
    assert list(Dock.objects.order_by("pk").values_list("name", flat=True)) == ["place 1", "place 0"]


def test_an_order_with_rows_that_are_not_there_sends_no_post_save_for_them(harbour: Any, log: Log) -> None:
    dock, elsewhere = Dock.objects.create(harbour=harbour), Dock.objects.create(name="elsewhere")
    log.clear()
    with signal_patch.bulk_signals():
        harbour.set_dock_order([elsewhere.pk, 0, dock.pk])
    assert [s.values["id"] for s in log.of("pre_save")] == [elsewhere.pk, 0, dock.pk]
    assert [s.values["id"] for s in log.of("post_save")] == [dock.pk]
    assert Dock.objects.filter(pk=elsewhere.pk, _order=0).exists()


def test_the_callers_own_instances_of_a_bulk_update_stay_as_they_are(harbour: Harbour, log: Log) -> None:
    Dock.objects.create(harbour=harbour, name="stored")
    bare = Dock(pk=Dock.objects.get().pk, name="given")
    log.clear()
    with signal_patch.bulk_signals():
        Dock.objects.bulk_update([bare], ["name"])
    assert [s.instance for s in log] == [bare, bare]
    assert all(s.instance is bare and s.values["harbour_id"] is None for s in log)


def test_deletes_of_an_explicit_through_model_are_sent(log: Log) -> None:
    dock, docker = Dock.objects.create(), Docker.objects.create()
    calls: list[Callable[[], Any]] = [
        lambda: dock.crew.remove(docker),
        lambda: dock.crew.clear(),
        lambda: dock.crew.set([]),
    ]
    for call in calls:
        Shift.objects.create(dock=dock, docker=docker)
        log.clear()
        with signal_patch.bulk_signals():
            call()
        assert [(s.signal, s.sender) for s in log] == [("pre_delete", Shift), ("post_delete", Shift)]


def test_additions_to_an_explicit_through_model_are_sent(log: Log) -> None:
    dock, docker = Dock.objects.create(), Docker.objects.create()
    calls: list[Callable[[], Any]] = [
        lambda: dock.crew.add(docker, through_defaults={"hours": 4}),
        lambda: dock.crew.set([docker]),
    ]
    for call in calls:
        Shift.objects.all().delete()
        log.clear()
        with signal_patch.bulk_signals():
            call()
        assert [(s.signal, s.sender) for s in log] == [("pre_save", Shift), ("post_save", Shift)]
        assert log[1].arguments["created"]
        assert log[1].values == Shift.objects.values().get()


def test_an_auto_created_through_model_sends_nothing(log: Log) -> None:
    dock, docker = Dock.objects.create(), Docker.objects.create()
    through = Dock.guests.through
    log.clear()
    with signal_patch.bulk_signals():
        dock.guests.add(docker)
        through._default_manager.update(docker=Docker.objects.bulk_create([Docker(name="other")])[0])
        dock.guests.clear()
    assert not {s.sender for s in log} & {through}


@isolate_apps("tests")
def test_a_proxy_of_an_auto_created_through_model_sends_nothing(log: Log) -> None:
    class Guest(Dock.guests.through):  # type: ignore[name-defined,misc]  # made at run time
        class Meta:
            proxy = True

    dock, docker, other = Dock.objects.create(), Docker.objects.create(), Docker.objects.create()
    log.clear()
    with signal_patch.bulk_signals():
        (guest,) = inserted(Guest.objects.bulk_create([Guest(dock=dock, docker=docker)]))
        assert Guest.objects.update(docker=other) == 1
        guest.docker = docker
        assert Guest.objects.bulk_update([guest], ["docker"]) == 1
        guest.save()
    assert log == []
    assert dock.guests.get() == docker


def test_a_raw_delete_sends_nothing(log: Log) -> None:
    Docker.objects.create()
    log.clear()
    with signal_patch.bulk_signals():
        assert Docker.objects.all()._raw_delete("default") == 1
    assert log == []
