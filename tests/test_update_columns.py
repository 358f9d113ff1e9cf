"""`update()`: every kind of column (contract.md, sections 1.5 and 1.12)."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import (
    CharField,
    DecimalField,
    F,
    Func,
    OuterRef,
    Subquery,
    Value,
)
from django.db.models.functions import (
    Cast,
    Concat,
    Upper,
)
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals
from signal_patch.dispatch.values.columns import as_column
from tests.fields import Point
from tests.fleet import column, of_every_size, rows, three_ships
from tests.models import (
    Book,
    Buoy,
    Cargo,
    Chart,
    Crate,
    Mooring,
    Novel,
    Plaque,
    Portrait,
    Publisher,
    Ship,
    Sighting,
    Sluice,
    Strongbox,
    Survey,
    Wreck,
)
from tests.refusals import reads_its_own_table
from tests.truth import Truth

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@of_every_size
@pytest.mark.parametrize("value", [5, F("weight") + 4], ids=["constant", "expression"])
def test_stored_generated_columns_are_read_again(value: Any, batch_size: int, receivers: Receivers) -> None:
    rows(Cargo, {"weight": 1, "amount": 3}, {"weight": 1, "amount": 4})
    truth = Truth(receivers, Cargo)
    with bulk_signals(batch_size=batch_size):
        Cargo.objects.update(weight=value)
    assert [after["total"] for after in truth.after] == [(int, 15), (int, 20)]
    assert truth.holds("total")


def test_virtual_generated_columns_are_read_again(receivers: Receivers) -> None:
    if not connection.features.supports_virtual_generated_columns:
        pytest.skip("this database has stored generated columns only")
    rows(Crate, {"weight": 1}, {"weight": 2})
    truth = Truth(receivers, Crate)
    Crate.objects.update(weight=F("weight") + 4)
    assert [after["doubled"] for after in truth.after] == [(int, 10), (int, 12)]
    assert truth.holds("doubled")


@of_every_size
@pytest.mark.parametrize("value", [10, F("level") + 9], ids=["constant", "expression"])
def test_generated_columns_with_a_condition_are_read_again(
    value: Any, batch_size: int, receivers: Receivers
) -> None:
    rows(Sluice, {"level": 1}, {"level": 2})
    truth = Truth(receivers, Sluice)
    with bulk_signals(batch_size=batch_size):
        Sluice.objects.update(level=value)
    assert column(Sluice, "is_high") == [True, True]
    assert column(Sluice, "mark") == ["high", "high"]
    assert truth.holds("is_high", "mark")


def test_generated_columns_follow_a_receivers_change(receivers: Receivers) -> None:
    rows(Cargo, {"weight": 1, "amount": 3})

    def double(instance: Cargo, **arguments: Any) -> None:
        instance.amount *= 2

    receivers.connect(pre_save, double, Cargo)
    truth = Truth(receivers, Cargo)
    Cargo.objects.update(urgency=1)
    assert truth.after[0]["total"] == (int, 6)
    assert truth.after == truth.stored


def test_generated_columns_can_be_referred_to(receivers: Receivers) -> None:
    rows(Cargo, {"weight": 2, "amount": 3})
    truth = Truth(receivers, Cargo)
    Cargo.objects.filter(total=6).update(weight=F("total"))
    assert column(Cargo, "total") == [18]
    assert truth.holds("total")


def test_columns_with_a_database_default_are_loaded_and_updated(receivers: Receivers) -> None:
    rows(Cargo, {}, {})
    truth = Truth(receivers, Cargo)
    Cargo.objects.update(weight=1)
    assert truth.after[0]["urgency"] == (int, 5)
    Cargo.objects.update(urgency=F("urgency") + 1)
    assert column(Cargo, "urgency") == [6, 6]
    assert truth.holds("total")


@of_every_size
@pytest.mark.parametrize(
    "value",
    [Point(3, 4), "3;4", (3, 4), Value("3;4"), None],
    ids=["own", "text", "pair", "expression", "null"],
)
def test_a_custom_field_shows_its_own_type(value: Any, batch_size: int, receivers: Receivers) -> None:
    rows(Wreck, {"place": Point(1, 1)}, {"place": None})
    truth = Truth(receivers, Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.update(place=value)
    assert truth.holds()
    assert column(Wreck, "place") == [None if value is None else Point(3, 4)] * 2


@of_every_size
def test_a_custom_field_whose_saving_changes_the_value_is_read_again(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Wreck, {"name": "old"}, {"name": "older"})
    truth = Truth(receivers, Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.update(name="quiet", place=Point(1, 2))
    assert column(Wreck, "name") == ["QUIET", "QUIET"]
    assert truth.holds()


@of_every_size
@pytest.mark.parametrize("content", ["gold", ["a", "b"], None], ids=str)
def test_a_sealed_constant_is_shown_as_the_row_returns_it(
    content: Any, batch_size: int, receivers: Receivers
) -> None:
    rows(Strongbox, {"content": "old"}, {"content": None})
    truth = Truth(receivers, Strongbox)
    with bulk_signals(batch_size=batch_size):
        Strongbox.objects.update(content=content)
    assert column(Strongbox, "content") == [content, content]
    assert truth.holds()


@of_every_size
@pytest.mark.parametrize("value", ["Text", Value("Text"), None], ids=["constant", "expression", "other row"])
def test_a_converting_field_holds_what_the_row_returns(
    value: Any, batch_size: int, receivers: Receivers
) -> None:
    rows(Plaque, {"lowered": "Old"}, {"lowered": "Old"})
    if value is None:
        rows(Publisher, {"name": "Text"})
        value = Subquery(Publisher.objects.values("name"))
    truth = Truth(receivers, Plaque)
    with bulk_signals(batch_size=batch_size):
        Plaque.objects.update(lowered=value, raised=value)
    assert column(Plaque, "lowered") == ["text", "text"]
    assert column(Plaque, "raised") == ["TEXT", "TEXT"]
    assert truth.holds(*(["raised"] if hasattr(value, "resolve_expression") else []))


@of_every_size
@pytest.mark.parametrize("receiver", [pre_save, None], ids=["read before", "read after"])
@pytest.mark.parametrize("kind", ["constant", "expression", "other row"])
def test_a_column_of_a_custom_type_holds_what_the_row_returns(
    kind: str, receiver: Any, batch_size: int, receivers: Receivers
) -> None:
    seen = datetime.datetime(2024, 5, 6, 7, 8, 9, 600000, tzinfo=datetime.timezone.utc)
    rows(Sighting, {"country": "old"}, {})
    rows(Survey, {"title": "new", "filed": seen})
    given: dict[str, list[Any]] = {
        "constant": ["new", seen],
        "expression": [Value("new"), Value(seen)],
        "other row": [Subquery(Survey.objects.values("title")), Subquery(Survey.objects.values("filed"))],
    }
    truth = receivers.check_truth(Sighting)
    if receiver:
        receivers.record(Sighting)
    with bulk_signals(batch_size=batch_size):
        Sighting.objects.update(**dict(zip(("country", "seen"), given[kind], strict=True)))
    assert truth == [True, True]


def test_a_custom_field_is_referred_to(receivers: Receivers) -> None:
    rows(Wreck, {"name": "A", "place": Point(1, 1)})
    truth = Truth(receivers, Wreck)
    Wreck.objects.update(place=F("place"), name=Concat("name", Value("b")))
    assert truth.holds()
    assert column(Wreck, "place") == [Point(1, 1)]


@of_every_size
def test_files_are_known_by_their_name(batch_size: int, receivers: Receivers) -> None:
    rows(Chart, {"sheet": "charts/old.txt"}, {"sheet": None})
    log = receivers.record(Chart)
    with bulk_signals(batch_size=batch_size):
        Chart.objects.update(sheet="charts/new.txt")
    assert {sent.instance.sheet.name for sent in log if isinstance(sent.instance, Chart)} == {
        "charts/new.txt"
    }
    assert all(sent.arguments["update_fields"] == {"sheet"} for sent in log)
    assert column(Chart, "sheet") == ["charts/new.txt"] * 2


@of_every_size
@pytest.mark.parametrize("receiver", [pre_save, None], ids=["read before", "read after"])
@pytest.mark.parametrize("picture", ["new.png", "", None, Value("new.png")], ids=repr)
def test_an_image_is_not_read_for_its_size(
    picture: Any, receiver: Any, batch_size: int, receivers: Receivers
) -> None:
    size = {"width": 3, "height": 4}
    rows(Portrait, {"picture": "old.png", **size}, {"picture": None, **size})
    seen: list[Any] = []

    def note(instance: Portrait, **arguments: Any) -> None:
        seen.append((instance.picture, instance.width, instance.height))

    receivers.connect(post_save, note, Portrait)
    if receiver:
        receivers.record(Portrait)
    with bulk_signals(batch_size=batch_size):
        Portrait.objects.update(width=5, picture=picture)
    assert seen == [*Portrait.objects.order_by("pk").values_list("picture", "width", "height")]
    assert {row[1:] for row in seen} == {(5, 4)}


def test_uuid_keys_and_texts_are_values(receivers: Receivers) -> None:
    (buoy,) = rows(Buoy, {})
    truth = Truth(receivers, Buoy)
    new = uuid.uuid4()
    Buoy.objects.filter(pk=buoy.pk).update(id=str(new), colour=Upper("colour"))
    assert truth.after[0] == {"id": (uuid.UUID, new), "colour": (str, "RED")}
    assert truth.holds()


@of_every_size
def test_values_of_a_child_refer_to_columns_of_both_tables(batch_size: int, receivers: Receivers) -> None:
    for title in ("a", "b"):
        Novel.objects.create(title=title, plot="p", price=Decimal("1.50"))
    truth = Truth(receivers, Novel)
    with bulk_signals(batch_size=batch_size):
        Novel.objects.update(
            plot=Concat("plot", Value("!")), title=Upper("title"), price=F("price") + Decimal("0.25")
        )
    assert truth.holds()
    assert list(Novel.objects.order_by("pk").values_list("plot", "title", "price")) == [
        ("p!", "A", Decimal("1.75")),
        ("p!", "B", Decimal("1.75")),
    ]


@reads_its_own_table
@of_every_size
def test_a_parents_column_may_read_other_rows(batch_size: int, receivers: Receivers) -> None:
    for title in ("a", "b", "c"):
        Novel.objects.create(title=title)
    truth = Truth(receivers, Novel)
    last = Subquery(Book.objects.order_by("-title").values("title")[:1])
    with bulk_signals(batch_size=batch_size):
        Novel.objects.order_by("-title").update(title=Concat(last, Value("!")), plot=last)
    assert truth.holds()
    assert set(Novel.objects.values_list("title", "plot")) == {("c!", "c")}


@reads_its_own_table
@of_every_size
def test_rows_with_composite_keys_get_values(batch_size: int, receivers: Receivers) -> None:
    rows(Mooring, {"quay": 1, "day": 1, "holder": "a"}, {"quay": 1, "day": 2, "holder": "b"})
    truth = Truth(receivers, Mooring)
    other = Mooring.objects.exclude(holder=OuterRef("holder")).values("holder")[:1]
    with bulk_signals(batch_size=batch_size):
        Mooring.objects.update(holder=Concat(Subquery(other), Cast("day", CharField())))
    assert column(Mooring, "holder") == ["b1", "a2"]
    assert truth.holds()


def test_a_function_of_decimals_is_a_decimal_of_the_column(receivers: Receivers) -> None:
    three_ships()
    truth = Truth(receivers, Ship)
    Ship.objects.update(price=Func("price", function="ABS", output_field=DecimalField()) / 3)
    assert truth.holds()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="others give values to be converted")
def test_a_value_of_its_columns_type_is_converted_exactly_as_the_column_is() -> None:
    for field in Ship._meta.concrete_fields:
        expression: Any = as_column(F(field.name), field, connection)
        assert expression.get_db_converters(connection) == expression.output_field.get_db_converters(
            connection
        )
