"""`update()`: what receivers change in `pre_save` is saved (contract.md, section 1.7)."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.base import ContentFile
from django.db import DataError, IntegrityError, connection, transaction
from django.db.models import F, JSONField, OuterRef, Subquery, TextField, Value
from django.db.models.functions import Cast, Concat, Upper
from django.db.models.signals import post_init, post_save, pre_save

from signal_patch import bulk_signals
from signal_patch.dispatch.writing.updating import BRANCHES
from tests.converting_fields import Gem
from tests.database import is_mysql
from tests.fields import Point
from tests.fleet import LAUNCH, column, of_every_size, rows, ships
from tests.models import Beacon, Berth, Cargo, Chart, Port, Ship, Sighting, Strongbox, Survey, Wreck
from tests.refusals import reads_its_own_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@of_every_size
def test_a_change_to_another_field_is_saved(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "slug", f"{ship.name}-{ship.speed}"))
    log = receivers.record(Ship)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=F("speed") * 10) == 3
    assert column(Ship, "slug") == ["a-10", "b-20", "c-30"]
    assert column(Ship, "speed") == [10, 20, 30]
    assert [sent.arguments["update_fields"] for sent in log.of("pre_save")] == [{"speed"}] * 3
    assert [sent.arguments["update_fields"] for sent in log.of("post_save")] == [{"speed", "slug"}] * 3
    assert all(type(sent.arguments["update_fields"]) is frozenset for sent in log)
    assert truth == [True] * 3


@of_every_size
def test_a_change_to_an_updated_field_is_saved(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)

    def shout(ship: Ship) -> None:
        if ship.speed != 2:
            ship.name = ship.name.upper() + str(ship.speed)

    receivers.before_saves(Ship, shout)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(name="zoe")
    assert column(Ship, "name") == ["ZOE1", "zoe", "ZOE3"]
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"name"})}


@of_every_size
def test_only_the_rows_that_changed_carry_the_extra_names(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3, tonnage=7)

    def change(ship: Ship) -> None:
        if ship.name == "a":
            ship.tonnage = 8
        if ship.name == "c":
            ship.status = "sunk"

    receivers.before_saves(Ship, change)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=9)
    assert [sent.arguments["update_fields"] for sent in log.of("post_save")] == [
        {"speed", "tonnage"},
        {"speed"},
        {"speed", "status"},
    ]
    assert column(Ship, "tonnage") == [8, 7, 7]
    assert column(Ship, "status") == ["afloat", "afloat", "sunk"]


def test_an_equal_value_is_no_change(receivers: Receivers) -> None:
    ships(1, price=Decimal("2.50"), notes=["a"])

    def assign_the_same(ship: Ship) -> None:
        ship.price = Decimal("2.5")
        ship.notes = list(ship.notes)
        ship.name = str(ship.name)

    receivers.before_saves(Ship, assign_the_same)
    log = receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert log.of("post_save")[0].arguments["update_fields"] == {"speed"}


@of_every_size
def test_a_unique_value_of_each_row_does_not_collide_with_the_callers(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(1, 2, 3)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "slug", f"{ship.slug}-{ship.name}"))
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(slug="same") == len(fleet)
    assert column(Ship, "slug") == ["same-a", "same-b", "same-c"]


@of_every_size
def test_a_unique_value_that_only_some_rows_change_does_not_collide(
    batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2)

    def change(ship: Ship) -> None:
        if ship.name == "b":
            ship.slug = "other"

    receivers.before_saves(Ship, change)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(slug="same")
    assert column(Ship, "slug") == ["same", "other"]


@of_every_size
@pytest.mark.parametrize(
    "values", [{"title": "new"}, {"findings": Value(None, JSONField())}], ids=["unnamed", "named"]
)
def test_jsons_null_is_distinguished_from_sqls(
    values: dict[str, Any], batch_size: int, receivers: Receivers
) -> None:
    rows(Survey, *({"title": str(number), "findings": [1]} for number in range(4)))
    numbers = dict(zip(column(Survey, "pk"), range(4), strict=True))

    def change(survey: Survey) -> None:
        if numbers[survey.pk]:
            survey.findings = [None, {"a": 1}, Value(None, JSONField())][numbers[survey.pk] - 1]

    receivers.before_saves(Survey, change)
    with bulk_signals(batch_size=batch_size):
        Survey.objects.update(**values)
    assert column(Survey, "findings") == [None if "findings" in values else [1], None, {"a": 1}, None]
    empty = Survey.objects.filter(findings__isnull=True).values_list("pk", flat=True)
    assert [numbers[pk] for pk in empty] == ([] if "findings" in values else [1])


@of_every_size
def test_values_that_are_equal_and_saved_differently_are_each_saved(
    batch_size: int, receivers: Receivers
) -> None:
    ships(0, 1, 2)
    parts = [1, True, 1.0]
    receivers.before_saves(Ship, lambda ship: setattr(ship, "notes", {"part": parts[ship.speed]}))
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(name="new")
    assert str(column(Ship, "notes")) == str([{"part": part} for part in parts])


@of_every_size
@pytest.mark.parametrize("values", [{"speed": 9}, {"notes": ["new"]}], ids=["unnamed", "named"])
def test_an_item_appended_in_place_is_saved(
    values: dict[str, Any], batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, notes=["old"])
    receivers.before_saves(Ship, lambda ship: ship.notes.append({"by": ship.name}))
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(**values)
    first = values.get("notes", ["old"])
    assert column(Ship, "notes") == [[*first, {"by": "a"}], [*first, {"by": "b"}]]
    assert [sent.values["notes"] for sent in log.of("post_save")] == column(Ship, "notes")
    assert all(sent.arguments["update_fields"] == {*values, "notes"} for sent in log.of("post_save"))


@of_every_size
def test_an_item_changed_deep_inside_is_saved(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, notes=[{"seen": [1]}])
    receivers.before_saves(Ship, lambda ship: ship.notes[0]["seen"].__setitem__(0, ship.name))
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=9)
    assert column(Ship, "notes") == [[{"seen": ["a"]}], [{"seen": ["b"]}]]


CHANGED: dict[str, tuple[Any, Any]] = {
    "name": ("it's 100%", 'a \\ b "c"'),
    "slug": ("new", None),
    "status": (Ship.Status.SUNK, "docked"),
    "speed": ("8", 9),
    "tonnage": (8, True),
    "price": (Decimal(3), "4.5"),
    "notes": ([], {"a": ["it's 100%", None, 1.5]}),
    "launched": (LAUNCH, None),
    "flag_id": ("S", None),
}


@of_every_size
@pytest.mark.parametrize("name", CHANGED)
def test_a_change_to_a_column_of_any_type_is_saved(name: str, batch_size: int, receivers: Receivers) -> None:
    rows(Port, {"code": "S"}, {"code": "N"})
    ships(
        1, 2, 3, flag_id="N", notes=["kept"], launched=LAUNCH - datetime.timedelta(1), price=Decimal("7.77")
    )
    kept = column(Ship, name)[2]
    assigned = dict(zip("ab", CHANGED[name], strict=True))

    def change(ship: Ship) -> None:
        if ship.name in assigned:
            setattr(ship, name, assigned[ship.name])

    receivers.before_saves(Ship, change)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(convoy=None) == 3
    clean = Ship._meta.get_field(name).to_python  # type: ignore[union-attr]  # no relation
    assert column(Ship, name) == [*(clean(value) for value in CHANGED[name]), kept]
    assert truth == [True] * 3


@of_every_size
def test_a_change_to_a_text_of_a_fixed_length_leaves_that_of_other_rows(
    batch_size: int, receivers: Receivers
) -> None:
    # On PostgreSQL, Django's bulk_create() cuts such a text.
    for country in ("NO", "SE"):
        Sighting.objects.create(country=country)

    def change(sighting: Sighting) -> None:
        if sighting.country.strip() == "NO":
            sighting.country = "DK"
            sighting.seen = LAUNCH + datetime.timedelta(milliseconds=600)

    receivers.before_saves(Sighting, change)
    truth = receivers.check_truth(Sighting)
    with bulk_signals(batch_size=batch_size):
        Sighting.objects.update(name="c")
    assert [country.strip() for country in column(Sighting, "country")] == ["DK", "SE"]
    assert truth == [True, True]


@of_every_size
def test_a_related_object_that_a_receiver_assigns_is_saved(batch_size: int, receivers: Receivers) -> None:
    port, berth = Port.objects.create(code="N"), Berth.objects.create(number=4)
    ships(1, 2)

    def moor(ship: Ship) -> None:
        if ship.name == "a":
            ship.berth, ship.flag = berth, port

    receivers.before_saves(Ship, moor)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=9)
    assert column(Ship, "berth_id") == [berth.pk, None]
    assert column(Ship, "flag_id") == ["N", None]
    assert log.of("post_save")[0].arguments["update_fields"] == {"speed", "berth", "flag"}


def test_a_value_too_long_is_refused_as_an_assignment_is(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "status", "s" * 10 + ship.name))
    if connection.vendor == "sqlite":
        # SQLite's columns have no length.
        Ship.objects.update(speed=9)
        assert column(Ship, "status") == ["ssssssssssa", "ssssssssssb"]
        return
    with pytest.raises(DataError), transaction.atomic():
        Ship.objects.update(speed=9)
    assert column(Ship, "status") == ["afloat", "afloat"]


@of_every_size
def test_an_expression_that_a_receiver_assigns_is_saved(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3, tonnage=5)

    def load(ship: Ship) -> None:
        if ship.name != "b":
            ship.tonnage = F("tonnage") + 1
            ship.name = Upper("name")

    receivers.before_saves(Ship, load)
    log = receivers.record(Ship)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 1)
    assert column(Ship, "tonnage") == [6, 5, 6]
    assert column(Ship, "name") == ["A", "b", "C"]
    assert [sent.values["tonnage"] for sent in log.of("post_save")] == [6, 5, 6]
    assert log.of("post_save")[0].arguments["update_fields"] == {"speed", "tonnage", "name"}
    assert truth == [True] * 3


@of_every_size
def test_an_expression_in_place_of_the_callers_value_is_saved(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2)

    def slow(ship: Ship) -> None:
        if ship.name == "a":
            ship.speed = F("speed") - 1

    receivers.before_saves(Ship, slow)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 100)
    assert column(Ship, "speed") == [0, 102]
    assert truth == [True, True]


@of_every_size
def test_a_changed_value_goes_through_the_fields_own_pre_save(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2)
    rows_before = column(Ship, "changed")

    def touch(ship: Ship) -> None:
        if ship.name == "a":
            ship.changed = LAUNCH

    receivers.before_saves(Ship, touch)
    log = receivers.record(Ship)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=9)
    first, second = column(Ship, "changed")
    # auto_now: pre_save() sets the time, whatever the receiver assigned.
    assert first > rows_before[0]
    assert second == rows_before[1]
    assert [sent.arguments["update_fields"] for sent in log.of("post_save")] == [
        {"speed", "changed"},
        {"speed"},
    ]
    assert truth == [True, True]


@of_every_size
def test_a_file_that_a_receiver_assigns_is_stored(batch_size: int, receivers: Receivers) -> None:
    rows(Chart, {"title": "north"}, {"title": "south"})

    def draw(chart: Chart) -> None:
        chart.sheet = ContentFile(chart.title.encode(), name=f"{chart.title}-{batch_size}.txt")

    receivers.before_saves(Chart, draw)
    log = receivers.record(Chart)
    with bulk_signals(batch_size=batch_size):
        Chart.objects.update(title=Concat("title", Value("!")))
    for chart, title in zip(Chart.objects.order_by("pk"), ("north!", "south!"), strict=True):
        assert chart.title == title
        assert str(chart.sheet).startswith("charts/")
        assert chart.sheet.read() == title.encode()
    assert [sent.instance.sheet.name for sent in log.of("post_save") if isinstance(sent.instance, Chart)] == (
        column(Chart, "sheet")
    )
    assert all(sent.arguments["update_fields"] == {"title", "sheet"} for sent in log.of("post_save"))


FILE_CHANGES: dict[str, tuple[Callable[[Chart], object], str]] = {
    "renamed": (lambda chart: setattr(chart.sheet, "name", "charts/moved.txt"), "charts/moved.txt"),
    "removed": (lambda chart: chart.sheet.delete(save=False), ""),
    "stored": (
        lambda chart: chart.sheet.save("kept.txt", ContentFile(b"kept"), save=False),
        "charts/kept",
    ),
}


@of_every_size
@pytest.mark.parametrize("touched", [False, True], ids=["as loaded", "touched before"])
@pytest.mark.parametrize(("change", "name"), FILE_CHANGES.values(), ids=FILE_CHANGES)
def test_a_change_to_a_file_is_saved(
    change: Callable[[Chart], object], name: str, touched: bool, batch_size: int, receivers: Receivers
) -> None:
    rows(Chart, {"sheet": "charts/old.txt"}, {"sheet": "charts/older.txt"})
    if touched:
        receivers.connect(post_init, lambda instance, **arguments: instance.sheet, Chart)
    receivers.before_saves(Chart, change)
    log = receivers.record(Chart)
    with bulk_signals(batch_size=batch_size):
        Chart.objects.update(title="new")
    assert [str(stored)[: len(name)] for stored in column(Chart, "sheet")] == [name, name]
    assert all(str(stored).startswith("charts/") == bool(name) for stored in column(Chart, "sheet"))
    assert all(sent.arguments["update_fields"] == {"title", "sheet"} for sent in log.of("post_save"))
    seen: Any = [sent.instance for sent in log.of("post_save")]
    assert [chart.sheet.name for chart in seen] == column(Chart, "sheet")


def test_a_file_that_is_only_looked_at_is_left_alone(receivers: Receivers) -> None:
    _, bare = rows(Chart, {"sheet": "charts/old.txt"}, {})
    Chart.objects.filter(pk=bare.pk).update(sheet=None)
    receivers.before_saves(Chart, lambda chart: bool(chart.sheet))
    log = receivers.record(Chart)
    Chart.objects.update(title="new")
    assert column(Chart, "sheet") == ["charts/old.txt", None]
    assert all(sent.arguments["update_fields"] == {"title"} for sent in log)


@of_every_size
def test_a_change_to_a_custom_column_is_saved(batch_size: int, receivers: Receivers) -> None:
    rows(Wreck, {"name": "A", "place": Point(1, 1)}, {"name": "B"}, {"name": "C", "place": Point(3, 3)})

    def move(wreck: Wreck) -> None:
        if wreck.name != "CC":
            wreck.place = Point(len(wreck.name), 9)

    receivers.before_saves(Wreck, move)
    truth = receivers.check_truth(Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.update(name=Concat("name", "name"))
    assert column(Wreck, "place") == [Point(2, 9), Point(2, 9), Point(3, 3)]
    assert truth == [True] * 3


@of_every_size
def test_a_change_is_shown_as_the_field_has_saved_it(batch_size: int, receivers: Receivers) -> None:
    rows(Wreck, {"name": "A"}, {"name": "B"})
    receivers.before_saves(Wreck, lambda wreck: setattr(wreck, "name", f"quiet {wreck.name}"))
    truth = receivers.check_truth(Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.update(place=Point(1, 2))
    assert column(Wreck, "name") == ["QUIET A", "QUIET B"]
    assert truth == [True, True]


@of_every_size
def test_a_receiver_that_refreshes_the_instance_undoes_the_update(
    batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2)

    def refresh(ship: Ship) -> None:
        if ship.name == "a":
            ship.refresh_from_db()

    receivers.before_saves(Ship, refresh)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert column(Ship, "speed") == [1, 9]
    assert truth == [True, True]


def test_a_receiver_that_refreshes_another_field_leaves_the_update(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.before_saves(Ship, lambda ship: ship.refresh_from_db(fields=["name", "notes"]))
    log = receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert column(Ship, "speed") == [9, 9]
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"speed"})}


@of_every_size
@pytest.mark.parametrize("name", ["name", "notes", "berth_id"])
def test_a_receiver_may_defer_a_field(name: str, batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, notes=["kept"])
    before = column(Ship, name)
    receivers.before_saves(Ship, lambda ship: vars(ship).pop(name))
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(speed=9) == 2
    assert column(Ship, name) == before
    assert column(Ship, "speed") == [9, 9]
    assert truth == [True, True]


def test_a_receiver_does_not_change_a_primary_key(receivers: Receivers) -> None:
    rows(Beacon, {"code": "a"})
    receivers.before_saves(Beacon, lambda beacon: setattr(beacon, "code", "z"))
    Beacon.objects.update(lit=True)
    assert "a" in column(Beacon, "code")
    assert "z" not in column(Beacon, "code")


def test_a_receiver_does_not_write_a_generated_column(receivers: Receivers) -> None:
    rows(Cargo, {"weight": 2, "amount": 3})
    receivers.before_saves(Cargo, lambda cargo: setattr(cargo, "total", 99))
    log = receivers.record(Cargo)
    Cargo.objects.update(weight=4)
    assert column(Cargo, "total") == [12]
    assert log.of("post_save")[0].values["total"] == 12
    assert log.of("post_save")[0].arguments["update_fields"] == {"weight"}


def test_another_order_of_json_is_a_change_where_the_order_is_stored(receivers: Receivers) -> None:
    rows(Survey, {"findings": {"a": 1, "b": {"c": 2, "d": 3}}})

    def turn_round(survey: Survey) -> None:
        survey.findings = {"b": {"d": 3, "c": 2}, "a": 1}

    receivers.before_saves(Survey, turn_round)
    log = receivers.record(Survey)
    with bulk_signals():
        Survey.objects.update(title="new")
    is_stored = connection.vendor != "postgresql" and not is_mysql()
    saved = {"findings", "title"} if is_stored else {"title"}
    assert [sent.arguments["update_fields"] for sent in log.of("post_save")] == [saved]
    assert [[*findings] for findings in column(Survey, "findings")] == [
        ["b", "a"] if is_stored else ["a", "b"]
    ]


@of_every_size
def test_an_expression_that_a_receiver_assigns_to_json_is_saved(
    batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2, notes=["old"])

    def fill(ship: Ship) -> None:
        if ship.name == "b":
            ship.notes = Value({"new": [1]}, JSONField())

    receivers.before_saves(Ship, fill)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=9)
    assert column(Ship, "notes") == [["old"], {"new": [1]}]
    assert truth == [True, True]


@of_every_size
def test_a_receivers_related_object_for_one_row_replaces_the_callers(
    batch_size: int, receivers: Receivers
) -> None:
    here, there = rows(Berth, {"number": 1}, {"number": 2})
    ships(1, 2, 3)

    def move(ship: Ship) -> None:
        if ship.name == "b":
            ship.berth = there

    receivers.before_saves(Ship, move)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(berth=here)
    assert column(Ship, "berth__number") == [1, 2, 1]


@of_every_size
@pytest.mark.parametrize("operation", ["update", "bulk_update"])
def test_a_receiver_that_another_one_connects_is_called_from_then_on(
    operation: str, batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(1, 2, 3)
    heard: list[str] = []

    def hear(instance: Ship, **arguments: Any) -> None:
        heard.append(instance.name)

    def connect(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            receivers.connect(post_save, hear, Ship)

    receivers.connect(pre_save, connect, Ship)
    with bulk_signals(batch_size=batch_size):
        if operation == "update":
            Ship.objects.update(speed=9)
        else:
            Ship.objects.bulk_update(fleet, ["speed"])
    assert heard == ["a", "b", "c"]


@pytest.mark.parametrize("value", [F("speed") + 1, Value(9)], ids=["F", "value"])
def test_a_receiver_that_is_connected_between_batches_sees_values_before_they_are_written(
    value: Any, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    seen: list[int] = []

    def see(instance: Ship, **arguments: Any) -> None:
        seen.append(instance.speed)

    def connect(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            receivers.connect(pre_save, see, Ship)

    receivers.connect(post_save, connect, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.update(speed=value)
    assert seen == column(Ship, "speed")[1:]


def test_a_generated_column_that_the_caller_names_is_left_to_the_database(receivers: Receivers) -> None:
    rows(Cargo, {"weight": 2, "amount": 3})
    log = receivers.record(Cargo)
    assert Cargo.objects.update(weight=4, total=99) == 1
    assert column(Cargo, "total") == [12]
    assert log.of("post_save")[0].values["total"] == 12
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"weight", "total"})}


def test_receivers_see_each_others_changes(receivers: Receivers) -> None:
    ships(1)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "tonnage", ship.speed + 1))
    receivers.before_saves(Ship, lambda ship: setattr(ship, "slug", f"s{ship.tonnage}"))
    Ship.objects.update(speed=9)
    assert column(Ship, "slug") == ["s10"]


def test_a_change_in_post_save_is_not_saved(receivers: Receivers) -> None:
    ships(1)

    def change(instance: Ship, **arguments: Any) -> None:
        instance.name = "changed"
        instance.notes.append("changed")

    receivers.connect(post_save, change, Ship)
    Ship.objects.update(speed=9)
    assert column(Ship, "name") == ["a"]
    assert column(Ship, "notes") == [[]]


def test_a_changed_value_that_the_database_refuses_leaves_no_row_changed(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "slug", "same"))
    with pytest.raises(IntegrityError), transaction.atomic(), bulk_signals(batch_size=1):
        Ship.objects.update(speed=9)
    assert column(Ship, "speed") == [1, 2]


@pytest.mark.parametrize("count", [BRANCHES * 3 // 2, BRANCHES * 3 // 2 + 1, 1001])
def test_many_rows_are_each_given_their_own_values(count: int, receivers: Receivers) -> None:
    """More rows than one statement takes; two thirds of them just fill one statement, or exceed it."""
    rows(Ship, *({"name": str(n), "speed": n} for n in range(count)))

    def change(ship: Ship) -> None:
        if ship.speed % 3:
            ship.slug = f"slug-{ship.name}"
            ship.notes.append(ship.speed)

    receivers.before_saves(Ship, change)
    assert Ship.objects.update(tonnage=F("speed") + 1) == count
    assert column(Ship, "tonnage") == list(range(1, count + 1))
    assert column(Ship, "slug") == [f"slug-{n}" if n % 3 else None for n in range(count)]
    assert column(Ship, "notes") == [[n] if n % 3 else [] for n in range(count)]


VALUES_OF_THE_OTHERS: dict[str, tuple[Any, Callable[[int], int]]] = {
    "a constant": (7, lambda n: 7),
    "an expression": (F("speed") + 1, lambda n: n + 1),
}


@pytest.mark.parametrize(("value", "made"), VALUES_OF_THE_OTHERS.values(), ids=VALUES_OF_THE_OTHERS)
def test_of_many_rows_those_between_the_changed_ones_get_the_callers_value(
    value: Any, made: Callable[[int], int], receivers: Receivers
) -> None:
    count = BRANCHES // 2
    rows(Ship, *({"name": str(n), "speed": n} for n in range(count)))

    def change(ship: Ship) -> None:
        if int(ship.name) % 2:
            ship.tonnage = -1

    receivers.before_saves(Ship, change)
    Ship.objects.update(tonnage=value)
    assert column(Ship, "tonnage") == [-1 if n % 2 else made(n) for n in range(count)]


def test_a_value_that_a_receiver_gives_to_all_rows_is_written_to_all(receivers: Receivers) -> None:
    ships(1, 2, 3)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "tonnage", 77))
    Ship.objects.filter(speed__gt=1).update(speed=9)
    assert column(Ship, "tonnage") == [0, 77, 77]


@reads_its_own_table
@of_every_size
def test_a_change_goes_with_a_value_that_reads_other_rows(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)

    def change(ship: Ship) -> None:
        if ship.name == "b":
            ship.speed += 50
            ship.slug = "b"

    receivers.before_saves(Ship, change)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=Subquery(Ship.objects.order_by("-speed").values("speed")[:1]), tonnage=4)
    assert column(Ship, "speed") == [3, 53, 3]
    assert column(Ship, "slug") == [None, "b", None]
    assert column(Ship, "tonnage") == [4, 4, 4]


# write_back=False: Django's strict rule.


@of_every_size
def test_without_write_back_only_named_fields_are_written(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2)

    def change(ship: Ship) -> None:
        ship.name = "changed"
        ship.notes.append("changed")
        ship.speed += ship.pk

    receivers.before_saves(Ship, change)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size, write_back=False):
        Ship.objects.update(speed=100, tonnage=F("speed"))
    assert column(Ship, "name") == ["a", "b"]
    assert column(Ship, "notes") == [[], []]
    assert column(Ship, "speed") == [100 + pk for pk in column(Ship, "pk")]
    assert {sent.arguments["update_fields"] for sent in log} == {frozenset({"speed", "tonnage"})}


@of_every_size
def test_without_write_back_a_named_list_changed_in_place_is_written(
    batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2)
    receivers.before_saves(Ship, lambda ship: ship.notes.append(ship.name))
    with bulk_signals(batch_size=batch_size, write_back=False):
        Ship.objects.update(notes=["new"])
    assert column(Ship, "notes") == [["new", "a"], ["new", "b"]]


def test_without_write_back_a_named_unique_value_does_not_collide(receivers: Receivers) -> None:
    ships(1, 2)
    receivers.before_saves(Ship, lambda ship: setattr(ship, "slug", f"{ship.slug}-{ship.pk}"))
    with bulk_signals(write_back=False):
        Ship.objects.update(slug="same")
    assert column(Ship, "slug") == [f"same-{pk}" for pk in column(Ship, "pk")]


# Columns whose field saves an equal value differently each time.


@of_every_size
def test_an_unchanged_sealed_column_is_left_alone(batch_size: int, receivers: Receivers) -> None:
    rows(Strongbox, {"content": "gold"}, {"content": ["a", "b"]}, {"content": None})
    sealed = _sealed()
    receivers.before_saves(Strongbox, lambda box: None)
    log = receivers.record(Strongbox)
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.update(label="new")
    assert _sealed() == sealed
    assert [sent.arguments["update_fields"] for sent in log] == [{"label"}] * 6


def _sealed() -> list[Any]:
    stored = Strongbox.objects.annotate(stored=Cast("content", TextField()))
    return list(stored.order_by("pk").values_list("stored", flat=True))


@of_every_size
@pytest.mark.parametrize("values", [{"label": "new"}, {"content": "silver"}], ids=["unnamed", "named"])
def test_a_change_to_a_column_that_takes_no_expressions_is_saved(
    values: dict[str, Any], batch_size: int, receivers: Receivers
) -> None:
    rows(Strongbox, *({"content": ["gold", "silver"]} for _ in range(4)))
    first, second, third, _ = column(Strongbox, "pk")

    def change(box: Strongbox) -> None:
        if box.pk == first:
            box.content = ["x", "y"]
        elif box.pk == second:
            box.content = None
        elif box.pk == third:
            box.owner = " nobody "
            box.label = "own"

    receivers.before_saves(Strongbox, change)
    truth = receivers.check_truth(Strongbox)
    log = receivers.record(Strongbox)
    with bulk_signals(batch_size=batch_size):
        assert Strongbox.objects.update(**values) == 4
    unchanged = values.get("content", ["gold", "silver"])
    assert column(Strongbox, "content") == [["x", "y"], None, unchanged, unchanged]
    assert column(Strongbox, "owner") == [None, None, "nobody", None]
    label = values.get("label", "")
    assert column(Strongbox, "label") == [label, label, "own", label]
    assert log.of("post_save")[0].arguments["update_fields"] == {*values, "content"}
    assert log.of("post_save")[3].arguments["update_fields"] == {*values}
    assert truth == [True] * 4


@of_every_size
def test_a_sealed_value_changed_in_place_is_saved(batch_size: int, receivers: Receivers) -> None:
    rows(Strongbox, {"content": ["a", "b"]}, {"content": ["c", "d"]})
    receivers.before_saves(Strongbox, lambda box: box.content.append("e"))
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.update(label="new")
    assert column(Strongbox, "content") == [["a", "b", "e"], ["c", "d", "e"]]


@of_every_size
def test_a_sealed_value_that_nobody_can_compare_is_saved_where_it_was_changed(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Strongbox, {"gem": Gem("ruby")}, {"gem": Gem("opal")}, {"gem": None})

    def polish(box: Strongbox) -> None:
        if box.gem and box.gem.name == "opal":
            box.gem.name += "!"

    receivers.before_saves(Strongbox, polish)
    log = receivers.record(Strongbox)
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.update(label="new")
    assert [gem and gem.name for gem in column(Strongbox, "gem")] == ["ruby", "opal!", None]
    names = [sent.arguments["update_fields"] for sent in log.of("post_save")]
    assert names == [{"label"}, {"label", "gem"}, {"label"}]


@of_every_size
def test_a_value_of_other_rows_reaches_a_column_that_takes_no_expressions(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Strongbox, {"content": "gold"}, {"content": "silver"})
    truth = receivers.check_truth(Strongbox)
    other = Strongbox.objects.exclude(pk=OuterRef("pk")).values("content")[:1]
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.update(content=Subquery(other))
    assert column(Strongbox, "content") == ["silver", "gold"]
    assert truth == [True, True]
