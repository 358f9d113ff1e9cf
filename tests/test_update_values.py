"""`update()`: receivers get values, never expressions (contract.md, section 1.5)."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import (
    Case,
    CharField,
    F,
    FloatField,
    JSONField,
    OuterRef,
    Q,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import (
    Cast,
    Coalesce,
    Concat,
    Greatest,
    Length,
    Lower,
    Now,
    Random,
    Round,
    Substr,
    Upper,
)
from django.db.models.signals import post_init, post_save, pre_save
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import LAUNCH, column, of_every_size, rows, ships, three_ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    Gauge,
    Gradient,
    Mooring,
    Novel,
    Port,
    Ship,
    Survey,
)
from tests.refusals import is_refused, reads_its_own_table, refusal
from tests.truth import Truth, as_django, typed_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


CONSTANTS: dict[str, dict[str, Any]] = {
    "text": {"name": "Zoe"},
    "number as text": {"speed": "7"},
    "text as number": {"name": 7},
    "text as float": {"name": 7.5},
    "truth as number": {"speed": True},
    "float as number": {"speed": 7.9},
    "nothing": {"slug": None, "launched": None, "berth": None, "flag": None},
    "nothing, by id": {"berth_id": None, "flag_id": None},
    "member of an enumeration": {"status": Ship.Status.SUNK},
    "lazy text": {"name": lazystr("Zoe")},
    "safe text": {"name": mark_safe("<b>")},
    "decimal of another scale": {"price": Decimal(15)},
    "decimal to round up": {"price": Decimal("1.236")},
    "decimal to round at the half": {"price": Decimal("1.125")},
    "decimal of an exponent": {"price": Decimal("1.5E+3")},
    "decimal as text": {"price": "15.5"},
    "decimal as float": {"price": 15.55},
    "decimal as number": {"price": 15},
    "time as text": {"launched": "2020-01-02T03:04:05Z"},
    "time of another zone": {
        "launched": datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    },
    "list": {"notes": ["a", {"b": [None, 1.5, True]}]},
    "tuple in JSON": {"notes": ("a", ("b",))},
    "keys of numbers in JSON": {"notes": {1: {2: 3}}},
    "text in JSON": {"notes": "a 'quoted' text"},
    "false in JSON": {"notes": False},
    "column of another name": {"tonnage": 99},
    "several": {"name": "Zoe", "speed": 7, "price": Decimal(7), "notes": [], "tonnage": 8},
    "an explicit auto_now": {"changed": LAUNCH},
}


@of_every_size
@pytest.mark.parametrize("values", CONSTANTS.values(), ids=CONSTANTS)
def test_constants_become_the_fields_python_type(
    values: dict[str, Any], batch_size: int, receivers: Receivers
) -> None:
    three_ships()
    expected = as_django(lambda: Ship.objects.update(**values), Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(**values) == 3
    assert typed_rows(Ship) == expected
    assert truth.holds()


def _other_berth() -> Any:
    return Subquery(Berth.objects.exclude(pk=OuterRef("berth_id")).order_by("pk").values("pk")[:1])


EXPRESSIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "F": lambda: {"speed": F("tonnage")},
    "arithmetic": lambda: {"speed": F("speed") + F("tonnage") * 2 - 1},
    "modulo and power": lambda: {"speed": F("tonnage") % 7, "tonnage": Value(3) ** 2},
    "decimal times decimal": lambda: {"price": F("price") * Decimal("1.1")},
    "decimal that ends in a half": lambda: {"price": F("price") * Decimal("0.5")},
    "decimal to its scale": lambda: {"price": F("price") + Decimal("0.89")},
    "number into a decimal": lambda: {"price": F("speed") * 5},
    "a value's expression": lambda: {"price": Value(Decimal(15))},
    "number into text": lambda: {"name": F("speed"), "slug": F("price")},
    "number cast to text": lambda: {"name": Cast("speed", CharField(max_length=9))},
    "case": lambda: {"name": Case(When(speed__gt=1, then=Value("fast")), default=F("name"))},
    "case without default": lambda: {"slug": Case(When(speed=1, then=Value("first")))},
    "concat": lambda: {"name": Concat("name", Value(" / "), Lower("name"))},
    "nested functions": lambda: {"name": Upper(Substr("name", 1, 2)), "speed": Length("name") + 1},
    "coalesce": lambda: {"slug": Coalesce("slug", Concat(Value("slug-"), "name"))},
    "greatest": lambda: {"speed": Greatest("speed", "tonnage")},
    "round": lambda: {"price": Round("price", precision=1)},
    "transform": lambda: {"notes": F("notes__1__deep")},
    "time": lambda: {"launched": F("launched") + datetime.timedelta(days=1, microseconds=5)},
    "time in a case": lambda: {"launched": Case(When(speed=1, then=F("changed")), default=Value(LAUNCH))},
    "JSON": lambda: {"notes": F("notes")},
    "JSON value": lambda: {"notes": Value({"a": [1]}, JSONField())},
    "JSON null": lambda: {"notes": Value(None, JSONField())},
    "nothing": lambda: {"slug": Value(None), "launched": Value(None)},
    "foreign key id": lambda: {"convoy_id": F("pk")},
    "foreign key to a key": lambda: {"convoy": F("id")},
    "foreign key by subquery": lambda: {"berth": _other_berth()},
    "foreign key id by subquery": lambda: {"berth_id": _other_berth()},
    "foreign key to a field": lambda: {"flag": F("flag_id"), "speed": F("speed") + 1},
    "foreign key to a field by subquery": lambda: {
        "flag": Subquery(Port.objects.filter(berths=OuterRef("berth")).values("code")[:1])
    },
    "own and other columns": lambda: {"speed": 5, "tonnage": F("tonnage") + 1, "name": "x"},
    "queryset as a value": lambda: {"speed": Berth.objects.order_by("number").values("number")[:1]},
    "column of another name": lambda: {"tonnage": F("tonnage") * 2},
    "two of a kind": lambda: {"speed": F("speed") + 1, "tonnage": F("tonnage") + 1},
    "each other": lambda: {"speed": F("tonnage"), "tonnage": F("speed")},
    "a column written before": lambda: {"speed": 50, "tonnage": F("speed") + 1},
    "a chain": lambda: {
        "speed": F("speed") + 1,
        "tonnage": F("speed") + 1,
        "name": Cast("tonnage", CharField()),
    },
}


@of_every_size
@pytest.mark.parametrize("values", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expressions_are_values_before_and_after_the_write(
    values: Callable[[], dict[str, Any]], batch_size: int, receivers: Receivers
) -> None:
    three_ships()
    expected = as_django(lambda: Ship.objects.update(**values()), Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(**values()) == 3
    assert typed_rows(Ship) == expected
    assert truth.holds()


@pytest.mark.skipif(
    not getattr(connection.features, "supports_no_precision_decimalfield", False),
    reason="numbers of any scale came with Django 6.1, and MariaDB has none",
)
def test_a_decimal_whose_column_has_no_scale_stays_as_it_is(receivers: Receivers) -> None:
    rows(Gauge, {"level": Decimal("0.5")}, {"level": Decimal("1.25")})
    log = receivers.record(Gauge)
    Gauge.objects.update(level=F("level") * 2)
    assert column(Gauge, "level") == [1, Decimal("2.5")]
    Gauge.objects.update(level=Decimal("1.0625"))
    assert column(Gauge, "level") == [Decimal("1.0625")] * 2
    seen = [sent.values["level"] for sent in log]
    assert seen == [1, Decimal("2.5"), 1, Decimal("2.5"), *[Decimal("1.0625")] * 4]


@pytest.mark.parametrize("number", [0, 1])
def test_a_null_that_the_column_refuses_is_left_to_the_database(number: int, receivers: Receivers) -> None:
    rows(Survey, *({} for _ in range(number)))
    receivers.record(Survey)

    def update() -> int:
        return Survey.objects.update(passed=None)

    with no_bulk_signals():
        expected = refusal(update)
    assert refusal(update) == expected
    assert (expected is None) == (number == 0)


def test_an_infinite_number_is_refused_as_without_signals() -> None:
    ships(1)

    def update() -> int:
        return Ship.objects.update(price=Decimal("Infinity"))

    with no_bulk_signals():
        expected = refusal(update)
    assert expected is not None
    assert refusal(update) == expected


@of_every_size
def test_references_to_annotations_are_values(batch_size: int, receivers: Receivers) -> None:
    three_ships()
    truth = Truth(receivers, Ship)
    queryset = Ship.objects.annotate(
        twice=F("speed") * 2,
        more=F("twice") + 1,
        shout=Upper("name"),
        number=Subquery(Berth.objects.filter(pk=OuterRef("berth_id")).values("number")),
    ).alias(hidden=F("tonnage") + 5)
    with bulk_signals(batch_size=batch_size):
        queryset.filter(twice__gt=0).update(
            speed=F("more"), name=F("shout"), tonnage=Coalesce("number", F("hidden") + 1)
        )
    assert truth.holds()
    assert list(Ship.objects.order_by("pk").values_list("speed", "name", "tonnage")) == [
        (3, "ANN", 3),
        (5, "BOB", 4),
        (7, "CID", 16),
    ]


@pytest.mark.parametrize("part", [1, 2.5, {"deep": [1]}, [1, "x"], True, None], ids=str)
@of_every_size
def test_a_part_of_a_json_value_is_a_value(part: Any, batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, notes={"part": part})
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(notes=F("notes__part"))
    assert column(Ship, "notes") == [part, part]
    assert truth.holds()


@reads_its_own_table
@of_every_size
@pytest.mark.parametrize("null", [Value(None, JSONField()), None], ids=["JSON", "SQL"])
def test_a_null_of_another_row_stays_a_null_of_json_or_of_sql(
    null: Any, batch_size: int, receivers: Receivers
) -> None:
    other, *_ = rows(Survey, {"findings": null, "title": "other"}, {"findings": [1]}, {"findings": [2]})
    truth = Truth(receivers, Survey)
    value = Subquery(Survey.objects.filter(title="other").values("findings"))
    with bulk_signals(batch_size=batch_size):
        Survey.objects.exclude(pk=other.pk).update(findings=value)
    assert column(Survey, "findings") == [None, None, None]
    assert Survey.objects.filter(findings__isnull=True).count() == (3 if null is None else 0)
    assert truth.holds()


@of_every_size
def test_a_value_that_reads_other_rows_reaches_rows_with_composite_keys(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Port, {"code": "N", "name": "north"}, {"code": "S", "name": "south"})
    rows(Mooring, {"quay": 1, "day": 1}, {"quay": 1, "day": 2})
    truth = Truth(receivers, Mooring)
    with bulk_signals(batch_size=batch_size):
        assert Mooring.objects.update(holder=Subquery(Port.objects.order_by("code").values("name")[:1])) == 2
    assert column(Mooring, "holder") == ["north", "north"]
    assert truth.holds()


@pytest.mark.parametrize("name", ["plot", "title"], ids=["own column", "parent's column"])
def test_a_value_that_is_empty_by_definition_changes_no_row_as_in_djangos_statement(
    name: str, receivers: Receivers
) -> None:
    Novel.objects.create(title="a", plot="b")
    nothing = Subquery(Port.objects.none().values("name"))
    log = receivers.record()
    before = typed_rows(Novel)
    assert as_django(lambda: Novel.objects.update(**{name: nothing}), Novel) == before
    assert Novel.objects.update(**{name: nothing}) == 0
    assert typed_rows(Novel) == before
    assert log == []


def test_a_condition_that_is_false_by_definition_changes_no_row_as_in_djangos_statement(
    receivers: Receivers,
) -> None:
    rows(Beacon, {"code": "a", "lit": True})
    log = receivers.record(Beacon)
    assert as_django(lambda: Beacon.objects.update(lit=Q(pk__in=[])), Beacon) == typed_rows(Beacon)
    assert Beacon.objects.update(lit=Q(pk__in=[])) == 0
    assert column(Beacon, "lit") == [True]
    assert log == []


@of_every_size
def test_an_integer_beside_a_key_that_is_a_float_stays_an_integer(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Gradient, {"slope": 0.5}, {"slope": 2.0})
    truth = Truth(receivers, Gradient)
    with bulk_signals(batch_size=batch_size):
        Gradient.objects.update(steps=F("steps") + 1)
    assert truth.holds()
    assert column(Gradient, "steps") == [1, 1]


@of_every_size
def test_a_condition_is_a_value(batch_size: int, receivers: Receivers) -> None:
    rows(Beacon, {"code": "a"}, {"code": "b"})
    truth = Truth(receivers, Beacon)
    with bulk_signals(batch_size=batch_size):
        Beacon.objects.update(lit=Q(code="b"))
    assert truth.holds()
    assert column(Beacon, "lit") == [False, True]


OTHER_COLUMNS: dict[str, Callable[[], dict[str, Any]]] = {
    "date into time": lambda: {"filed": F("held")},
    "date into text": lambda: {"title": F("held")},
    "time into text": lambda: {"title": F("filed")},
    "truth into text": lambda: {"title": F("passed")},
    "date of another row into text": lambda: {"title": Subquery(Survey.objects.values("held")[:1])},
    "date of another row into time": lambda: {"filed": Subquery(Survey.objects.values("held")[:1])},
}


@pytest.mark.parametrize("values", OTHER_COLUMNS.values(), ids=OTHER_COLUMNS)
def test_a_column_of_another_type_is_a_value(
    values: Callable[[], dict[str, Any]], receivers: Receivers
) -> None:
    rows(Survey, {"held": LAUNCH.date(), "filed": LAUNCH, "passed": True})

    def update() -> int:
        return Survey.objects.update(**values())

    if is_refused(update, receivers):
        return
    with no_bulk_signals():
        assert refusal(update) is None
        Survey.objects.update(title="", filed=LAUNCH)
    stored = as_django(update, Survey)
    truth = Truth(receivers, Survey)
    update()
    assert typed_rows(Survey) == stored
    assert truth.holds()


def test_a_date_of_its_own_type_is_one(receivers: Receivers) -> None:
    rows(Survey, {"held": LAUNCH.date(), "filed": LAUNCH, "passed": True})
    truth = Truth(receivers, Survey)
    Survey.objects.update(held=F("held"), filed=F("filed"), passed=F("passed"))
    assert truth.holds()


@of_every_size
def test_what_only_the_database_decides_is_read_again(batch_size: int, receivers: Receivers) -> None:
    three_ships()
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(launched=Now(), speed=Random() * 1_000_000)
    assert truth.holds("launched", "speed")
    assert LAUNCH not in column(Ship, "launched")


@of_every_size
@pytest.mark.parametrize("factor", [1.26, 0.5, 0.7])
def test_what_the_column_rounds_is_read_again(factor: float, batch_size: int, receivers: Receivers) -> None:
    three_ships()
    values = {"speed": Cast("speed", FloatField()) * factor, "tonnage": F("tonnage") + 1}
    expected = as_django(lambda: Ship.objects.update(**values), Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(**values)
    assert typed_rows(Ship) == expected
    assert truth.holds("speed")


@of_every_size
def test_an_expression_adds_to_what_a_receiver_wrote_to_the_row(
    batch_size: int, receivers: Receivers
) -> None:
    ships(1, 2)

    def hasten(instance: Ship, **arguments: Any) -> None:
        with no_bulk_signals():
            Ship.objects.filter(pk=instance.pk).update(speed=F("speed") + 100)

    receivers.connect(pre_save, hasten, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 10)
    assert column(Ship, "speed") == [111, 112]
    assert truth.holds("speed")


def test_a_decimal_keeps_the_scale_of_its_column(receivers: Receivers) -> None:
    rows(Book, {"price": Decimal(10)})
    log = receivers.record(Book)
    Book.objects.update(price=Decimal(15))
    Book.objects.update(price=F("price") * Decimal("1.1"))
    Book.objects.update(price=15)
    assert [str(sent.values["price"]) for sent in log] == ["15.00"] * 2 + ["16.50"] * 2 + ["15.00"] * 2


@of_every_size
def test_a_related_object_and_its_id_are_in_step(batch_size: int, receivers: Receivers) -> None:
    three_ships()
    port = Port.objects.get(code="N")
    berth = Berth.objects.get(number=4)
    seen: list[tuple[Any, ...]] = []

    def look(instance: Ship, **arguments: Any) -> None:
        seen.append((instance.berth_id, instance.berth, instance.flag_id, instance.flag))

    receivers.connect(pre_save, look, Ship)
    receivers.connect(post_save, look, Ship)
    truth = Truth(receivers, Ship)
    for values in (
        {"berth": berth, "flag": port},
        {"berth_id": berth.pk, "flag_id": "N"},
        {"berth": berth.pk, "flag": "N"},
        {"berth": Subquery(Berth.objects.filter(number=4).values("pk")), "flag": Value("N")},
    ):
        with no_bulk_signals():
            Ship.objects.update(berth=None, flag=None)
        with bulk_signals(batch_size=batch_size):
            Ship.objects.update(**values)
    assert seen == [(berth.pk, berth, "N", port)] * 24
    assert truth.holds()


@pytest.mark.parametrize("by", ["id", "object", "expression", "nothing"])
def test_a_stale_cached_relation_is_dropped(by: str, receivers: Receivers) -> None:
    three_ships()
    berth = Berth.objects.get(number=4)
    value = {"id": berth.pk, "object": berth, "nothing": None}.get(
        by, Subquery(Berth.objects.filter(number=4).values("pk"))
    )
    seen: list[Berth | None] = []

    def cache(instance: Ship, **arguments: Any) -> None:
        assert instance.berth is None or instance.berth.number

    def look(instance: Ship, **arguments: Any) -> None:
        seen.append(instance.berth)

    receivers.connect(post_init, cache, Ship)
    receivers.connect(pre_save, look, Ship)
    receivers.connect(post_save, look, Ship)
    Ship.objects.filter(name="Ann").select_related("berth").update(berth=value)
    assert seen == [None if by == "nothing" else berth] * 2


def test_an_object_of_a_foreign_key_is_the_callers_own(receivers: Receivers) -> None:
    three_ships()
    berth = Berth.objects.get(number=4)
    log = receivers.record(Ship)
    Ship.objects.update(berth=berth)
    assert all(isinstance(sent.instance, Ship) and sent.instance.berth is berth for sent in log)


@of_every_size
def test_a_mutable_constant_is_copied_for_each_row(batch_size: int, receivers: Receivers) -> None:
    three_ships()
    notes: list[Any] = ["new", {"deep": []}]

    def append(instance: Ship, **arguments: Any) -> None:
        instance.notes[1]["deep"].append(instance.name)

    receivers.connect(pre_save, append, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(notes=notes)
    assert notes == ["new", {"deep": []}]
    assert column(Ship, "notes") == [["new", {"deep": [name]}] for name in ("Ann", "Bob", "Cid")]
    assert truth.holds()


def test_auto_now_changes_only_if_named(receivers: Receivers) -> None:
    ships(1)
    with no_bulk_signals():
        Ship.objects.update(changed=LAUNCH)
    receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert column(Ship, "changed") == [LAUNCH]
    later = LAUNCH + datetime.timedelta(days=1)
    Ship.objects.update(changed=later)
    assert column(Ship, "changed") == [later]
