"""Rows that the database removes or changes by `DB_CASCADE` and its kin (contract.md, sections 3 and 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.db.models import RestrictedError
from django.db.models.deletion import Collector
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

import signal_patch

if django.VERSION < (6, 1):
    pytest.skip("DB_CASCADE, DB_SET_NULL and DB_SET_DEFAULT came with Django 6.1", allow_module_level=True)

from tests.database import is_mysql
from tests.database_cascade_models import (
    SPARE_DEPOT,
    Box,
    Depot,
    Drawer,
    Fence,
    Folder,
    Guard,
    Label,
    Lorry,
    Rack,
    Rat,
    Shed,
    Siren,
    Ticket,
    Tool,
    Yard,
)
from tests.fleet import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db

ENTRY_POINTS: dict[str, Callable[[Depot], Any]] = {
    "of a queryset": lambda depot: Depot.objects.filter(pk=depot.pk).delete(),
    "of an instance": lambda depot: depot.delete(),
    "of a queryset, async": lambda depot: async_to_sync(Depot.objects.filter(pk=depot.pk).adelete)(),
    "of an instance, async": lambda depot: async_to_sync(depot.adelete)(),
}
defaults_in_the_database = pytest.mark.skipif(
    not connection.features.supports_on_delete_db_default, reason="MariaDB has no ON DELETE SET DEFAULT"
)


@pytest.fixture
def depot() -> Depot:
    return Depot.objects.create(name="to be deleted")


@pytest.fixture(params=ENTRY_POINTS)
def delete(request: pytest.FixtureRequest) -> Callable[[Depot], Any]:
    return ENTRY_POINTS[request.param]


def sent(log: Log) -> list[tuple[str, str]]:
    return [(sent.signal, sent.sender.__name__) for sent in log]


def test_rows_removed_by_the_database_send_their_deletes_once(
    depot: Depot, delete: Callable[[Depot], Any], log: Log
) -> None:
    racks = {Rack.objects.create(depot=depot).pk for _ in range(2)}
    Rack.objects.create(depot=Depot.objects.create())
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(depot)
    assert deleted == (3, {"tests.Depot": 1, "tests.Rack": 2})
    assert sorted(sent(log)) == [
        ("post_delete", "Depot"),
        ("post_delete", "Rack"),
        ("post_delete", "Rack"),
        ("pre_delete", "Depot"),
        ("pre_delete", "Rack"),
        ("pre_delete", "Rack"),
    ]
    assert {s.values["id"] for s in log if s.sender is Rack} == racks
    assert Rack.objects.count() == 1


def test_their_origin_is_that_of_the_delete(depot: Depot, log: Log) -> None:
    Rack.objects.create(depot=depot)
    queryset = Depot.objects.filter(pk=depot.pk)
    with signal_patch.bulk_signals():
        log.clear()
        queryset.delete()
    assert len(log) == 4
    assert all(s.arguments == {"using": "default", "origin": queryset} for s in log)


def test_rows_are_there_at_pre_delete_and_gone_at_post_delete(depot: Depot, receivers: Receivers) -> None:
    seen = []

    def look(instance: Rack, signal: Any, **kwargs: Any) -> None:
        seen.append((signal is pre_delete, Rack.objects.filter(pk=instance.pk).exists()))

    Rack.objects.create(depot=depot)
    receivers.connect(pre_delete, look, Rack)
    receivers.connect(post_delete, look, Rack)
    with signal_patch.bulk_signals():
        depot.delete()
    assert seen == [(True, True), (False, False)]


@pytest.mark.parametrize("heard", [(Box,), (Rack, Box), (Depot, Rack, Box)])
def test_several_levels_send_their_deletes(
    heard: tuple[Any, ...], depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    rack = Rack.objects.create(depot=depot)
    boxes = [Box.objects.create(rack=rack) for _ in range(2)]
    log = receivers.record(*heard)
    with signal_patch.bulk_signals():
        deleted = delete(depot)
    assert deleted == (4, {"tests.Depot": 1, "tests.Rack": 1, "tests.Box": 2})
    assert {s.sender for s in log} == set(heard)
    assert len(log) == len([*heard, Box]) * 2
    assert {s.values["id"] for s in log.of("pre_delete") if s.sender is Box} == {b.id for b in boxes}
    assert not Box.objects.exists()


def test_rows_without_receivers_are_left_to_the_database(
    depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    Rack.objects.create(depot=depot)
    Rat.objects.create(depot=depot)
    receivers.record(Rack)
    with signal_patch.bulk_signals(), CaptureQueriesContext(connection) as queries:
        deleted = delete(depot)
    assert deleted == (2, {"tests.Depot": 1, "tests.Rack": 1})
    assert not Rat.objects.exists()
    assert not any("tests_rat" in query["sql"] for query in queries)


@pytest.mark.parametrize("options", [{"operations": ["update"]}, {"exclude": [Rack, Box]}, None])
def test_without_receivers_a_delete_runs_as_without_the_patch(
    options: dict[str, Any] | None, receivers: Receivers
) -> None:
    """A row's deletes have no receivers, or its model is off for them, or nothing is on."""

    def statements() -> list[str]:
        depot = Depot.objects.create()
        Box.objects.create(rack=Rack.objects.create(depot=depot))
        Label.objects.create(depot=depot)
        with CaptureQueriesContext(connection) as queries:
            assert Depot.objects.filter(pk=depot.pk).delete() == (1, {"tests.Depot": 1})
        return [query["sql"].split(" WHERE ")[0] for query in queries]

    without = statements()
    assert without == ['DELETE FROM "tests_depot"'.replace('"', connection.ops.quote_name("")[0])]
    if options is None:
        with signal_patch.bulk_signals():
            assert statements() == without
    else:
        for signal in (pre_delete, post_delete):
            receivers.connect(signal, lambda **kwargs: pytest.fail("sent"), Rack)
            receivers.connect(signal, lambda **kwargs: pytest.fail("sent"), Box)
        with signal_patch.bulk_signals(**options):
            assert statements() == without


def test_a_model_that_is_off_sends_nothing_on_the_way_to_one_that_is_on(
    depot: Depot, delete: Callable[[Depot], Any], log: Log
) -> None:
    Box.objects.create(rack=Rack.objects.create(depot=depot))
    log.clear()
    with signal_patch.bulk_signals(Box):
        deleted = delete(depot)
    assert {s.sender for s in log} == {Depot, Box}
    assert len(log) == 4
    assert deleted == (2, {"tests.Depot": 1, "tests.Box": 1})


def test_a_tree_sends_one_pair_for_each_node(log: Log) -> None:
    root = Folder.objects.create()
    level = [root]
    # MySQL refuses a cascade through more tables than 30, and takes a tree for many.
    for _ in range(1 if is_mysql() else 3):
        level = [Folder.objects.create(parent=parent) for parent in level for _ in range(2)]
    # A parent that was created after its child is removed first, and its child with it.
    young = Folder.objects.create(parent=root)
    Folder.objects.filter(pk=level[0].pk).update(parent=young)
    count = Folder.objects.count()
    log.clear()
    with signal_patch.bulk_signals():
        deleted = root.delete()
    assert deleted == (count, {"tests.Folder": count})
    assert len({s.values["id"] for s in log.of("pre_delete")}) == count
    assert log.names() == ["pre_delete"] * count + ["post_delete"] * count


def test_chosen_rows_that_the_database_takes_with_other_chosen_ones_are_counted(log: Log) -> None:
    root = Folder.objects.create()
    leaf = Folder.objects.create(parent=Folder.objects.create(parent=root))
    log.clear()
    with signal_patch.bulk_signals():
        deleted = Folder.objects.exclude(pk=root.pk).delete()
    assert deleted == (2, {"tests.Folder": 2})
    assert log.names() == ["pre_delete"] * 2 + ["post_delete"] * 2
    assert leaf.pk in {sent.values["id"] for sent in log}


def test_a_row_that_a_receiver_deleted_first_is_not_counted(depot: Depot, receivers: Receivers) -> None:
    def clear_out(instance: Depot, **kwargs: Any) -> None:
        Rack.objects.filter(name="early").delete()

    Rack.objects.create(depot=depot, name="early")
    Rack.objects.create(depot=depot)
    receivers.connect(pre_delete, clear_out, Depot)
    receivers.connect(post_delete, lambda **kwargs: None, Rack)
    with signal_patch.bulk_signals():
        assert depot.delete() == (2, {"tests.Depot": 1, "tests.Rack": 1})


def test_rows_that_a_receiver_moves_away_stay_with_all_beneath_them(
    depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    keep = Depot.objects.create()
    moved, _ = (Rack.objects.create(depot=depot) for _ in range(2))
    boxes = [Box.objects.create(rack=rack) for rack in Rack.objects.order_by("pk")]
    Label.objects.create(box=boxes[0])

    def move(instance: Depot, **arguments: Any) -> None:
        Rack.objects.filter(pk=moved.pk).update(depot=keep)

    receivers.connect(pre_delete, move, Depot)
    log = receivers.record(Depot, Box, Label)
    with signal_patch.bulk_signals():
        deleted = delete(depot)
    assert deleted == (3, {"tests.Depot": 1, "tests.Rack": 1, "tests.Box": 1})
    assert list(Rack.objects.values_list("pk", "depot_id")) == [(moved.pk, keep.pk)]
    assert list(Box.objects.all()) == boxes[:1]
    assert Label.objects.get().box == boxes[0]
    assert sent(log)[-2:] == [("post_delete", "Box"), ("post_delete", "Depot")]
    assert log.names().count("post_delete") == 2


def test_a_row_that_refers_to_one_moved_away_is_not_changed(
    depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    racks = [Rack.objects.create(depot=depot) for _ in range(2)]
    labels = [Label.objects.create(rack=rack) for rack in racks]
    sirens = [Siren.objects.create(rack=rack) for rack in racks]

    def move(instance: Depot, **arguments: Any) -> None:
        with signal_patch.no_bulk_signals():
            Rack.objects.filter(pk=racks[0].pk).update(depot=None)

    receivers.connect(pre_delete, move, Depot)
    log = receivers.record(Label, Siren, Rack)
    with signal_patch.bulk_signals():
        delete(depot)
    referring: dict[Any, list[Any]] = {Label: labels, Siren: sirens}
    for model, (kept, changed) in referring.items():
        assert dict(model._base_manager.values_list("pk", "rack_id")) == {
            kept.pk: racks[0].pk,
            changed.pk: None,
        }
        assert [s.values["id"] for s in log if s.sender is model] == [changed.pk, changed.pk]
    assert [s.values["id"] for s in log.of("post_delete")] == [racks[1].pk]


def test_a_row_that_refers_to_one_moved_away_is_not_changed_if_only_saves_have_receivers(
    depot: Depot, receivers: Receivers
) -> None:
    racks = [Rack.objects.create(depot=depot) for _ in range(2)]
    labels = [Label.objects.create(rack=rack) for rack in racks]
    changed: list[int] = []
    receivers.connect(
        pre_delete,
        lambda instance, **arguments: Rack.objects.filter(pk=racks[0].pk).update(depot=None),
        Depot,
    )
    receivers.connect(post_save, lambda instance, **arguments: changed.append(instance.pk), Label)
    with signal_patch.bulk_signals():
        depot.delete()
    assert changed == [labels[1].pk]
    assert Label.objects.get(pk=labels[0].pk).rack == racks[0]


def test_rows_of_a_fast_delete_that_a_receiver_moves_away_stay(receivers: Receivers) -> None:
    yard, other = Yard.objects.create(), Yard.objects.create()
    sheds = [Shed.objects.create(yard=yard) for _ in range(2)]
    tools = [Tool.objects.create(shed=shed) for shed in sheds]

    def move(instance: Yard, **arguments: Any) -> None:
        Shed.objects.filter(pk=sheds[0].pk).update(yard=other)

    receivers.connect(pre_delete, move, Yard)
    log = receivers.record(Tool)
    with signal_patch.bulk_signals():
        deleted = yard.delete()
    assert deleted == (3, {"tests.Yard": 1, "tests.Shed": 1, "tests.Tool": 1})
    assert (Shed.objects.get(), Tool.objects.get()) == (sheds[0], tools[0])
    assert log.names() == ["pre_delete", "pre_delete", "post_delete"]


def test_if_all_rows_are_moved_away_none_is_counted(depot: Depot, receivers: Receivers) -> None:
    rack = Rack.objects.create(depot=depot)
    receivers.record(Rack)
    receivers.connect(pre_delete, lambda instance, **arguments: Rack.objects.update(depot=None), sender=Depot)
    with signal_patch.bulk_signals():
        assert depot.delete() == (1, {"tests.Depot": 1})
    assert Rack.objects.get() == rack


def test_rows_that_go_with_others_that_one_statement_deletes_send_their_deletes(receivers: Receivers) -> None:
    yard = Yard.objects.create()
    Fence.objects.create(yard=yard)
    tools = {Tool.objects.create(shed=Shed.objects.create(yard=yard)).pk for _ in range(2)}
    log = receivers.record(Tool)
    with signal_patch.bulk_signals():
        deleted = yard.delete()
    assert deleted == (6, {"tests.Yard": 1, "tests.Fence": 1, "tests.Shed": 2, "tests.Tool": 2})
    assert log.names() == ["pre_delete"] * 2 + ["post_delete"] * 2
    assert {s.values["id"] for s in log} == tools


def test_restricted_rows_refuse_as_before(log: Log) -> None:
    yard = Yard.objects.create()
    Ticket.objects.create(yard=yard)
    Guard.objects.create(yard=yard)
    log.clear()
    with signal_patch.bulk_signals(), pytest.raises(RestrictedError):
        yard.delete()
    assert log == []


def test_a_collector_that_collects_by_force_sends_no_second_pair(depot: Depot, log: Log) -> None:
    Rack.objects.create(depot=depot)
    collector = Collector("default", origin=depot, force_collection=True)
    collector.collect([depot])
    log.clear()
    with signal_patch.bulk_signals():
        assert collector.delete() == (2, {"tests.Depot": 1, "tests.Rack": 1})
    assert len(log) == 4


def test_a_row_set_to_null_by_the_database_sends_its_saves(
    depot: Depot, delete: Callable[[Depot], Any], log: Log
) -> None:
    label = Label.objects.create(text="A", depot=depot)
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(depot)
    assert deleted == (1, {"tests.Depot": 1})
    assert sent(log) == [
        ("pre_delete", "Depot"),
        ("pre_save", "Label"),
        ("post_save", "Label"),
        ("post_delete", "Depot"),
    ]
    pre, post = log[1:3]
    assert pre.arguments == {"raw": False, "using": "default", "update_fields": frozenset({"depot"})}
    assert post.arguments == {**pre.arguments, "created": False}
    expected = {"id": label.pk, "text": "A", "depot_id": None, "rack_id": None, "box_id": None}
    assert pre.values == post.values == expected
    assert Label.objects.get().depot_id is None


@pytest.mark.parametrize("is_on", [False, True])
def test_rows_of_a_model_with_the_mixin_send_their_signals_whatever_is_on(
    is_on: bool, depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    if is_on:
        signal_patch.enable()
    goes = Siren.objects.create(depot=depot)
    stays = Siren.objects.create(rack=Rack.objects.create(depot=depot))
    log = receivers.record(Siren)
    assert delete(depot) == (2, {"tests.Depot": 1, "tests.Siren": 1})
    assert [(s.signal, s.values["id"]) for s in log] == [
        ("pre_delete", goes.pk),
        ("pre_save", stays.pk),
        ("post_save", stays.pk),
        ("post_delete", goes.pk),
    ]
    assert list(Siren.objects.values("id", "depot", "rack")) == [
        {"id": stays.pk, "depot": None, "rack": None}
    ]


def test_silenced_rows_of_a_model_with_the_mixin_send_nothing(
    depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    Siren.objects.create(depot=depot)
    Siren.objects.create(rack=Rack.objects.create(depot=depot))
    log = receivers.record(Siren)
    with signal_patch.no_bulk_signals():
        assert delete(depot) == (1, {"tests.Depot": 1})
    assert log == []
    assert Siren.objects.count() == 1


@pytest.mark.parametrize("heard", [pre_save, post_save])
def test_a_mixins_signals_are_sent_even_if_the_deleted_row_has_no_receivers(
    heard: Any, depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    """If an object has no receivers, Django deletes it in one statement, without its cascade."""
    saved: list[Any] = []
    Label.objects.create(depot=depot)
    receivers.connect(heard, lambda instance, **kwargs: saved.append(instance.depot_id), Label)
    with signal_patch.bulk_signals():
        assert delete(depot) == (1, {"tests.Depot": 1})
    assert saved == [None]


def test_what_a_receiver_changes_on_such_a_row_is_saved(depot: Depot, receivers: Receivers) -> None:
    def note(instance: Label, **kwargs: Any) -> None:
        instance.text = "orphan"

    Label.objects.create(depot=depot)
    receivers.connect(pre_save, note, Label)
    with signal_patch.bulk_signals():
        depot.delete()
    assert Label.objects.get().text == "orphan"


@defaults_in_the_database
def test_a_row_set_to_its_default_by_the_database_sends_its_saves(
    depot: Depot, delete: Callable[[Depot], Any], log: Log
) -> None:
    Depot.objects.create(pk=SPARE_DEPOT)
    lorry = Lorry.objects.create(depot=depot)
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(depot)
    assert deleted == (1, {"tests.Depot": 1})
    assert [s.signal for s in log if s.sender is Lorry] == ["pre_save", "post_save"]
    for sent in (s for s in log if s.sender is Lorry):
        assert sent.arguments["update_fields"] == {"depot"}
        assert sent.values == {"id": lorry.pk, "depot_id": SPARE_DEPOT}
    assert Lorry.objects.get().depot_id == SPARE_DEPOT


def test_rows_that_depend_on_rows_removed_by_the_database_send_their_saves(
    depot: Depot, delete: Callable[[Depot], Any], receivers: Receivers
) -> None:
    """The racks, which go with the depot, have no receivers: they are looked up but not counted."""
    saved: list[Any] = []
    Label.objects.create(rack=Rack.objects.create(depot=depot))
    for signal in (pre_save, post_save):
        receivers.connect(signal, lambda **kwargs: saved.append(kwargs["update_fields"]), Label)
    with signal_patch.bulk_signals():
        deleted = delete(depot)
    assert deleted == (1, {"tests.Depot": 1})
    assert saved == [{"rack"}, {"rack"}]


def test_a_row_that_is_changed_and_removed_at_once_sends_no_saves(
    depot: Depot, delete: Callable[[Depot], Any], log: Log
) -> None:
    rack = Rack.objects.create(depot=depot)
    Label.objects.create(depot=depot, box=Box.objects.create(rack=rack))
    log.clear()
    with signal_patch.bulk_signals():
        delete(depot)
    assert not {"pre_save", "post_save"} & set(log.names())
    assert {s.sender for s in log.of("pre_delete")} == {Depot, Rack, Box, Label}


def test_a_row_that_is_changed_and_removed_at_once_sends_no_saves_if_only_saves_are_on(
    depot: Depot, delete: Callable[[Depot], Any], log: Log
) -> None:
    rack = Rack.objects.create(depot=depot)
    Label.objects.create(depot=depot, box=Box.objects.create(rack=rack))
    stays = Label.objects.create(depot=depot)
    log.clear()
    with signal_patch.bulk_signals(operations=["update"]):
        assert delete(depot) == (1, {"tests.Depot": 1})
    assert sent(log) == [
        ("pre_delete", "Depot"),
        ("pre_save", "Label"),
        ("post_save", "Label"),
        ("post_delete", "Depot"),
    ]
    assert log[1].values["id"] == stays.pk
    assert list(Label.objects.all()) == [stays]


@pytest.mark.parametrize("options", [{}, {"operations": ["update"]}])
def test_a_row_that_python_changes_and_the_database_removes_sends_no_saves(options: Any, log: Log) -> None:
    yard = Yard.objects.create()
    Ticket.objects.create(yard=yard, former=yard)
    log.clear()
    with signal_patch.bulk_signals(**options):
        yard.delete()
    assert not {"pre_save", "post_save"} & set(log.names())
    assert not Ticket.objects.exists()


def test_many_referenced_rows_need_no_statement_with_all_their_keys(receivers: Receivers) -> None:
    count = 260_000 if connection.vendor == "sqlite" else 40_000
    depots = rows(Depot, *({} for _ in range(count)))
    Label.objects.bulk_create([Label(depot=depots[0]), Label(depot=depots[-1])])
    log = receivers.record(Label)
    with signal_patch.bulk_signals():
        assert Depot.objects.all().delete() == (count, {"tests.Depot": count})
    assert log.names() == ["pre_save", "pre_save", "post_save", "post_save"]


def test_a_tree_among_the_models_does_not_change_the_order_of_the_others(receivers: Receivers) -> None:
    # MariaDB would refuse to delete a yard before its sheds.
    yard = Yard.objects.create()
    Shed.objects.create(yard=yard)
    parent = Drawer.objects.create(yard=yard)
    Drawer.objects.create(yard=yard, parent=parent)
    log = receivers.record(Yard, Shed, Drawer)
    with signal_patch.bulk_signals():
        assert yard.delete() == (4, {"tests.Yard": 1, "tests.Shed": 1, "tests.Drawer": 2})
    deleted = [sent.sender.__name__ for sent in log.of("post_delete")]
    assert deleted.index("Shed") < deleted.index("Yard")


def test_a_delete_of_other_rows_by_a_receiver_leaves_the_count_alone(receivers: Receivers) -> None:
    parent = Folder.objects.create()
    Folder.objects.create(parent=Folder.objects.create(parent=parent))

    def clear(**arguments: Any) -> None:
        Depot.objects.filter(name="to be cleared").delete()

    receivers.connect(post_delete, clear, Folder)
    with signal_patch.bulk_signals():
        assert parent.delete() == (3, {"tests.Folder": 3})
