"""`bulk_update()`: every kind of model and column (contract.md, section 1.12)."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import (
    F,
    Value,
)
from django.db.models.functions import Concat
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals, no_bulk_signals
from tests.fields import Point
from tests.fleet import LAUNCH, column, faster_ships, of_every_size, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    BookProxy,
    Cargo,
    Chart,
    Mooring,
    Novel,
    Port,
    Ship,
    Sighting,
    Strongbox,
    Wreck,
)

if TYPE_CHECKING:
    from django.dispatch import Signal

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@of_every_size
def test_deferred_fields_stay_deferred_and_unwritten(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, tonnage=5)
    fleet = list(Ship.objects.only("speed").order_by("pk"))
    for ship in fleet:
        ship.speed *= 10
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["speed"]) == 2
    assert column(Ship, "speed") == [10, 20]
    assert column(Ship, "tonnage") == [5, 5]
    assert all(sent.values.keys() == {"id", "speed"} for sent in log)
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"speed"})}


@of_every_size
@pytest.mark.parametrize("changed", [False, True])
def test_only_deferred_columns_that_a_receiver_touches_are_loaded(
    changed: bool, batch_size: int, receivers: Receivers
) -> None:
    rows(Book, {"status": "old"}, {"status": "old"})
    books = list(Book.objects.only("title").order_by("pk"))
    if changed:
        receivers.before_saves(Book, lambda book: setattr(book, "status", f"not {book.status}"))
    log = receivers.record(Book)
    with bulk_signals(batch_size=batch_size):
        assert Book.objects.bulk_update(books, ["title"]) == 2
    assert column(Book, "status") == (["not old"] * 2 if changed else ["old"] * 2)
    loaded = {"id", "title", "status"} if changed else {"id", "title"}
    assert all(sent.values.keys() == loaded for sent in log)


@of_every_size
def test_a_receiver_may_change_a_deferred_field(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, tonnage=5, notes=["old"])
    fleet = list(Ship.objects.only("speed").order_by("pk"))

    def change(ship: Ship) -> None:
        ship.tonnage += 1
        ship.notes.append("new")

    receivers.before_saves(Ship, change)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "tonnage") == [6, 6]
    assert column(Ship, "notes") == [["old", "new"]] * 2
    assert log.of("post_save")[0].arguments["update_fields"] == {"speed", "tonnage", "notes"}


@of_every_size
def test_a_childs_and_its_parents_columns_are_updated_in_one_call(
    batch_size: int, receivers: Receivers
) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title)
    novels = list(Novel.objects.order_by("pk"))
    for novel in novels:
        novel.plot, novel.title = f"of {novel.title}", novel.title.upper()
    receivers.before_saves(Novel, lambda novel: setattr(novel, "status", f"is {novel.title}"))
    log = receivers.record(Novel, Book)
    truth = receivers.check_truth(Novel)
    with bulk_signals(batch_size=batch_size):
        assert Novel.objects.bulk_update(novels, ["plot", "title"]) == 2
    assert {sent.sender for sent in log} == {Novel}
    assert list(Novel.objects.order_by("pk").values_list("plot", "title", "status")) == [
        ("of a", "A", "is A"),
        ("of b", "B", "is B"),
    ]
    assert truth == [True, True]


def test_the_sender_is_the_instances_own_class(receivers: Receivers) -> None:
    novel = Novel.objects.create(title="a")
    proxy = BookProxy.objects.create(title="b")
    novel.title, proxy.title = "A", "B"
    log = receivers.record()
    Book.objects.bulk_update([novel, proxy], ["title"])
    assert [sent.sender for sent in log] == [Novel, BookProxy] * 2
    assert column(Book, "title") == ["A", "B"]


def test_a_receivers_change_to_a_subclasss_column_is_saved(receivers: Receivers) -> None:
    novel = Novel.objects.create(title="a")
    receivers.before_saves(Novel, lambda novel: setattr(novel, "plot", "thick"))
    Book.objects.bulk_update([novel], ["title"])
    assert column(Novel, "plot") == ["thick"]


@of_every_size
def test_rows_with_composite_keys_are_updated(batch_size: int, receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2}, {"quay": 2, "day": 1})
    moorings = list(Mooring.objects.order_by("pk"))
    for mooring in moorings:
        mooring.holder = f"{mooring.quay}/{mooring.day}"
    moorings[1].holder = Concat("holder", Value("by expression"))
    truth = receivers.check_truth(Mooring)
    with bulk_signals(batch_size=batch_size):
        assert Mooring.objects.bulk_update(moorings, ["holder"]) == 3
    assert column(Mooring, "holder") == ["1/1", "by expression", "2/1"]
    assert truth == [True] * 3


@of_every_size
def test_custom_fields_show_their_own_type(batch_size: int, receivers: Receivers) -> None:
    rows(Wreck, {"place": Point(1, 1)}, {})
    wrecks = list(Wreck.objects.order_by("pk"))
    wrecks[0].place = "3;4"
    wrecks[1].place = Point(5, 6)
    wrecks[1].name = "quiet"
    truth = receivers.check_truth(Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.bulk_update(wrecks, ["place", "name"])
    assert column(Wreck, "place") == [Point(3, 4), Point(5, 6)]
    assert truth == [True, True]


def test_columns_of_a_custom_type_hold_what_the_row_returns(receivers: Receivers) -> None:
    sightings = rows(Sighting, {}, {})
    for sighting in sightings:
        sighting.country = "NO"
        sighting.seen = LAUNCH + datetime.timedelta(milliseconds=600)
    truth = receivers.check_truth(Sighting)
    Sighting.objects.bulk_update(sightings, ["country", "seen"])
    assert truth == [True, True]


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
@pytest.mark.parametrize("touched", [False, True], ids=["as assigned", "touched before"])
def test_an_unstored_file_is_only_stored_if_its_field_is_named(
    signal: Signal, touched: bool, receivers: Receivers
) -> None:
    rows(Chart, {"sheet": "charts/old.txt"})
    (chart,) = Chart.objects.all()
    chart.sheet = ContentFile(b"new", name="waiting.txt")
    assert not touched or chart.sheet
    seen: list[Any] = []
    receivers.connect(signal, lambda update_fields, **arguments: seen.append({*update_fields}), Chart)
    Chart.objects.bulk_update([chart], ["title"])
    assert column(Chart, "sheet") == ["charts/old.txt"]
    assert not chart.sheet._committed
    Chart.objects.bulk_update([chart], ["sheet"])
    # By now all files are stored.
    Chart.objects.bulk_update([chart], ["sheet"])
    assert seen == [{"title"}, {"sheet"}, {"sheet"}]
    assert column(Chart, "sheet") == [chart.sheet.name]
    assert Chart.objects.get().sheet.read() == b"new"


def test_a_file_that_a_receiver_assigns_in_place_of_an_unstored_one_is_stored(
    receivers: Receivers,
) -> None:
    rows(Chart, {})
    (chart,) = Chart.objects.all()
    chart.sheet = ContentFile(b"the caller's", name="same.txt")
    receivers.before_saves(
        Chart, lambda chart: setattr(chart, "sheet", ContentFile(b"the receiver's", name="same.txt"))
    )
    Chart.objects.bulk_update([chart], ["title"])
    assert Chart.objects.get().sheet.read() == b"the receiver's"


@pytest.mark.parametrize("notes", [{"not yet": {1, 2}}, {(1, 2): 3}], ids=str)
def test_a_value_that_cannot_be_saved_is_left_alone_where_it_is_not_named(
    notes: Any, receivers: Receivers
) -> None:
    fleet = faster_ships(1)
    fleet[0].notes = notes
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["speed"]) == 1
    assert [sent.arguments["update_fields"] for sent in log] == [{"speed"}] * 2
    assert column(Ship, "notes") == [[]]


@of_every_size
def test_what_receivers_change_in_a_column_that_takes_no_expressions_is_saved(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Strongbox, {"content": "gold"}, {"content": "silver"}, {"content": "lead"})
    boxes = list(Strongbox.objects.order_by("pk"))

    def change(box: Strongbox) -> None:
        if box.content != "lead":
            box.content += "!"

    receivers.before_saves(Strongbox, change)
    log = receivers.record(Strongbox)
    truth = receivers.check_truth(Strongbox)
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.bulk_update(boxes, ["label"])
    assert column(Strongbox, "content") == ["gold!", "silver!", "lead"]
    names = [sent.arguments["update_fields"] for sent in log.of("post_save")]
    assert names == [{"label", "content"}, {"label", "content"}, {"label"}]
    assert truth == [True] * 3


def test_rows_with_natural_keys_are_updated(receivers: Receivers) -> None:
    rows(Beacon, {"code": "b'"}, {"code": "a%"})
    beacons = list(Beacon.objects.order_by("pk"))
    for beacon in beacons:
        beacon.lit = True
    log = receivers.record(Beacon)
    assert Beacon.objects.bulk_update(beacons, ["lit"]) == 2
    assert column(Beacon, "lit") == [True, True]
    assert len(log.of("post_save")) == 2


def test_foreign_keys_are_updated_by_object(receivers: Receivers) -> None:
    port, berth = Port.objects.create(code="N"), Berth.objects.create()
    fleet = faster_ships(1, 2)
    fleet[0].flag, fleet[1].berth = port, berth
    log = receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["flag", "berth"])
    assert column(Ship, "flag_id") == ["N", None]
    assert column(Ship, "berth_id") == [None, berth.pk]
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"flag", "berth"})}


@pytest.mark.parametrize("speed", [9, F("speed") + 8], ids=["constant", "expression"])
@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
def test_an_instance_may_have_its_key_as_text(speed: Any, filtered: bool, receivers: Receivers) -> None:
    (row,) = ships(1)

    def update_itself(ship: Ship) -> None:
        Ship.objects.filter(pk=ship.pk).update(tonnage=5)

    receivers.before_saves(Ship, update_itself)
    ship = Ship(pk=str(row.pk), name="a", speed=speed)
    log = receivers.record(Ship)
    queryset = Ship.objects.filter(speed=1) if filtered else Ship.objects.all()
    assert queryset.bulk_update([ship], ["speed"]) == 1
    assert log.names() == ["pre_save", "post_save"]
    assert [sent.values["speed"] for sent in log] == [9, 9]
    assert column(Ship, "tonnage") == [5]


def test_an_instance_given_twice_sends_twice_and_is_written_once(receivers: Receivers) -> None:
    (ship,) = faster_ships(1)
    with no_bulk_signals(), transaction.atomic():
        expected = Ship.objects.bulk_update([ship, ship], ["speed"])
        transaction.set_rollback(True)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update([ship, ship], ["speed"]) == expected
    assert log.names() == ["pre_save", "pre_save", "post_save", "post_save"]


@of_every_size
def test_a_generated_column_that_is_named_is_left_to_the_database(
    batch_size: int, receivers: Receivers
) -> None:
    cargos = rows(Cargo, {"weight": 1, "amount": 3}, {"weight": 2, "amount": 4})
    for cargo in cargos:
        cargo.weight = F("amount") + 1
        cargo.total = 7
    log = receivers.record(Cargo)
    with bulk_signals(batch_size=batch_size):
        assert Cargo.objects.bulk_update(cargos, ["weight", "total"]) == 2
    assert column(Cargo, "total") == [12, 20]
    assert [sent.values["total"] for sent in log.of("post_save")] == [12, 20]
