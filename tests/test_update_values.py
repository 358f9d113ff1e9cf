"""`update()`: new values are real values, of which instances tell the truth (contract, section 1.5)."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import (
    Case,
    CharField,
    Count,
    DecimalField,
    Exists,
    F,
    FloatField,
    Func,
    JSONField,
    Max,
    Model,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
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
    RowNumber,
    Substr,
    Upper,
)
from django.db.models.signals import post_init, post_save, pre_save
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from signal_patch import bulk_signals, no_bulk_signals
from signal_patch.dispatch.values.columns import as_column
from tests.fields import Point
from tests.fleet import LAUNCH, column, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    Buoy,
    Cargo,
    Chart,
    Crate,
    Gauge,
    Gradient,
    Mooring,
    Novel,
    Plaque,
    Port,
    Portrait,
    Publisher,
    Ship,
    Sighting,
    Sluice,
    Strongbox,
    Survey,
    Wreck,
)
from tests.recording import field_values
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import QuerySet
    from django.db.models.signals import ModelSignal as Signal

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

of_every_size = pytest.mark.parametrize("batch_size", [1, 2000])


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: (type(value), _comparable(value)) for name, value in values.items()}


def _comparable(value: Any) -> Any:
    # Decimals are equal whatever their scale, their texts are not.
    return str(value) if isinstance(value, Decimal) else value


class Truth:
    """What instances said at `pre_save` and `post_save`, and what the rows held at `post_save`."""

    def __init__(
        self, receivers: Receivers, model: type[Model], heard: Sequence[Signal] = (pre_save, post_save)
    ) -> None:
        self.announced: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.stored: list[dict[str, Any]] = []
        for signal in heard:
            receivers.connect(signal, self._before if signal is pre_save else self._after, model)

    def _before(self, instance: Model, **arguments: Any) -> None:
        self.announced.append(_typed(field_values(instance)))

    def _after(self, instance: Model, using: str, **arguments: Any) -> None:
        stored = type(instance)._base_manager.using(using).get(pk=instance.pk)
        self.told.append(_typed(field_values(instance)))
        self.stored.append(_typed(field_values(stored)))

    def holds(self, *database_decides: str) -> bool:
        """Say whether all that was told is so, and was announced but for what the database alone decides."""
        assert self.told
        assert self.told == self.stored
        for announced, told in zip(self.announced, self.told, strict=True):
            for name, value in told.items():
                assert name in database_decides or announced[name] == value
                assert not hasattr(announced[name][1], "resolve_expression")
        return True


def _fleet() -> list[Ship]:
    north, south = rows(Port, {"code": "N", "name": "north"}, {"code": "S", "name": "south"})
    first, second = rows(Berth, {"port": north, "number": 3}, {"port": south, "number": 4})
    common = {"launched": LAUNCH, "notes": ["old", {"deep": [1]}]}
    return rows(
        Ship,
        {"name": "Ann", "speed": 1, "tonnage": 30, "price": Decimal("1.11"), "berth": first, **common},
        {"name": "Bob", "speed": 2, "tonnage": 20, "price": Decimal("2.22"), "berth": second, **common},
        {"name": "Cid", "speed": 3, "tonnage": 10, "price": Decimal("3.35"), "flag": south, **common},
    )


def _as_django(update: Callable[[], object], model: type[Model]) -> list[dict[str, Any]]:
    """Return the rows as Django's own statement would leave them."""
    with no_bulk_signals(), transaction.atomic():
        update()
        result = [_typed(field_values(row)) for row in model._base_manager.order_by("pk")]
        transaction.set_rollback(True)
    return result


def _rows(model: type[Model]) -> list[dict[str, Any]]:
    return [_typed(field_values(row)) for row in model._base_manager.order_by("pk")]


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
    _fleet()
    expected = _as_django(lambda: Ship.objects.update(**values), Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(**values) == 3
    assert _rows(Ship) == expected
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
    _fleet()
    expected = _as_django(lambda: Ship.objects.update(**values()), Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(**values()) == 3
    assert _rows(Ship) == expected
    assert truth.holds()


@pytest.mark.skipif(
    "not getattr(connection.features, 'supports_no_precision_decimalfield', False)",
    reason="numbers of any scale came with Django 6.1, and MariaDB has none",
)
def test_a_decimal_whose_column_has_no_scale_stays_as_it_is(receivers: Receivers) -> None:
    rows(Gauge, {"level": Decimal("0.5")}, {"level": Decimal("1.25")})
    log = receivers.record(Gauge)
    Gauge.objects.update(level=F("level") * 2)
    assert column(Gauge, "level") == [1, Decimal("2.5")]
    Gauge.objects.update(level=Decimal("1.0625"))
    assert column(Gauge, "level") == [Decimal("1.0625")] * 2
    told = [sent.values["level"] for sent in log]
    assert told == [1, Decimal("2.5"), 1, Decimal("2.5"), *[Decimal("1.0625")] * 4]


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


def test_a_number_without_end_is_refused_as_without_signals() -> None:
    ships(1)

    def update() -> int:
        return Ship.objects.update(price=Decimal("Infinity"))

    with no_bulk_signals():
        expected = refusal(update)
    assert expected is not None
    assert refusal(update) == expected


@of_every_size
def test_references_to_annotations_are_values(batch_size: int, receivers: Receivers) -> None:
    _fleet()
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


@of_every_size
@pytest.mark.parametrize("null", [Value(None, JSONField()), None], ids=["JSON", "SQL"])
def test_a_null_of_another_row_is_of_the_same_kind(null: Any, batch_size: int, receivers: Receivers) -> None:
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
    before = _rows(Novel)
    assert _as_django(lambda: Novel.objects.update(**{name: nothing}), Novel) == before
    assert Novel.objects.update(**{name: nothing}) == 0
    assert _rows(Novel) == before
    assert log == []


def test_a_condition_that_is_false_by_definition_changes_no_row_as_in_djangos_statement(
    receivers: Receivers,
) -> None:
    rows(Beacon, {"code": "a", "lit": True})
    log = receivers.record(Beacon)
    assert _as_django(lambda: Beacon.objects.update(lit=Q(pk__in=[])), Beacon) == _rows(Beacon)
    assert Beacon.objects.update(lit=Q(pk__in=[])) == 0
    assert column(Beacon, "lit") == [True]
    assert log == []


@of_every_size
def test_a_whole_number_beside_a_key_that_is_a_float_is_one(batch_size: int, receivers: Receivers) -> None:
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

    with no_bulk_signals():
        assert refusal(update) is None
        Survey.objects.update(title="", filed=LAUNCH)
    stored = _as_django(update, Survey)
    truth = Truth(receivers, Survey)
    update()
    assert _rows(Survey) == stored
    assert truth.holds()


def test_a_date_of_its_own_type_is_one(receivers: Receivers) -> None:
    rows(Survey, {"held": LAUNCH.date(), "filed": LAUNCH, "passed": True})
    truth = Truth(receivers, Survey)
    Survey.objects.update(held=F("held"), filed=F("filed"), passed=F("passed"))
    assert truth.holds()


@of_every_size
def test_what_the_database_alone_decides_is_read_again(batch_size: int, receivers: Receivers) -> None:
    _fleet()
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(launched=Now(), speed=Random() * 1_000_000)
    assert truth.holds("launched", "speed")
    assert LAUNCH not in column(Ship, "launched")


@of_every_size
@pytest.mark.parametrize("factor", [1.26, 0.5, 0.7])
def test_what_the_column_rounds_is_read_again(factor: float, batch_size: int, receivers: Receivers) -> None:
    _fleet()
    values = {"speed": Cast("speed", FloatField()) * factor, "tonnage": F("tonnage") + 1}
    expected = _as_django(lambda: Ship.objects.update(**values), Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(**values)
    assert _rows(Ship) == expected
    assert truth.holds("speed")


@of_every_size
def test_what_a_receiver_wrote_behind_the_instance_is_counted_with(
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
    _fleet()
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
    _fleet()
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
    _fleet()
    berth = Berth.objects.get(number=4)
    log = receivers.record(Ship)
    Ship.objects.update(berth=berth)
    assert all(isinstance(sent.instance, Ship) and sent.instance.berth is berth for sent in log)


@of_every_size
def test_a_mutable_constant_is_copied_for_each_row(batch_size: int, receivers: Receivers) -> None:
    _fleet()
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


def test_auto_now_moves_only_if_named(receivers: Receivers) -> None:
    ships(1)
    with no_bulk_signals():
        Ship.objects.update(changed=LAUNCH)
    receivers.record(Ship)
    Ship.objects.update(speed=9)
    assert column(Ship, "changed") == [LAUNCH]
    later = LAUNCH + datetime.timedelta(days=1)
    Ship.objects.update(changed=later)
    assert column(Ship, "changed") == [later]


# Values that read other rows: computed before the first write, whatever the batch size.


def _fastest(**conditions: Any) -> Any:
    return Ship.objects.filter(**conditions).order_by("-speed").values("speed")[:1]


def _total() -> Any:
    return Ship.objects.values("status").annotate(total=Sum("speed")).values("total")


def _topmost() -> Any:
    return Ship.objects.values("status").annotate(n=Count("pk"), top=Max("speed")).values("top")


READING: dict[str, tuple[Callable[[], dict[str, Any]], list[int]]] = {
    "correlated": (
        lambda: {
            "speed": Subquery(Ship.objects.exclude(pk=OuterRef("pk")).order_by("-speed").values("speed")[:1])
        },
        [3, 3, 2],
    ),
    "correlated by what is written": (
        lambda: {"speed": Coalesce(Subquery(_fastest(speed__lt=OuterRef("speed"))), 0)},
        [0, 1, 2],
    ),
    "uncorrelated": (lambda: {"speed": Subquery(_fastest()) + 1}, [4, 4, 4]),
    "queryset": (lambda: {"speed": _total()}, [6, 6, 6]),
    "in arithmetic": (lambda: {"speed": F("speed") + Subquery(_fastest())}, [4, 5, 6]),
    "in a case": (
        lambda: {"speed": Case(When(speed__lt=3, then=Subquery(_total())), default=Value(0))},
        [6, 6, 0],
    ),
    "exists": (
        lambda: {
            "speed": Case(
                When(Exists(Ship.objects.filter(speed__gt=OuterRef("speed"))), then=Value(100)),
                default=Value(0),
            )
        },
        [100, 100, 0],
    ),
    "condition on a subquery": (
        lambda: {"speed": Case(When(speed__in=_topmost(), then=Value(100)), default=Value(500))},
        [500, 500, 100],
    ),
    "aggregate in a subquery": (
        lambda: {"speed": Subquery(_topmost()) + F("speed")},
        [4, 5, 6],
    ),
    "raw SQL": (lambda: {"speed": RawSQL("(SELECT SUM(r.speed) FROM tests_ship r)", ())}, [6, 6, 6]),
}


@pytest.mark.parametrize("batch_size", [1, 2, 2000])
@pytest.mark.parametrize(("values", "expected"), READING.values(), ids=READING)
def test_values_that_read_other_rows_are_those_before_the_first_write(
    values: Callable[[], dict[str, Any]], expected: list[int], batch_size: int, receivers: Receivers
) -> None:
    _fleet()
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.update(**values()) == 3
    assert column(Ship, "speed") == expected
    assert truth.holds()


@of_every_size
def test_raw_sql_may_name_a_column_that_the_filter_joins_from_another_table_too(
    batch_size: int, receivers: Receivers
) -> None:
    _fleet()
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.exclude(berth__port__name="").update(name=RawSQL("UPPER(name)", ())) == 3
    assert column(Ship, "name") == ["ANN", "BOB", "CID"]
    assert truth.holds()


@pytest.mark.parametrize("ordering", [["speed"], ["-speed"], ["berth__number"]], ids=["up", "down", "joined"])
def test_the_order_does_not_show_in_such_values(ordering: list[str], receivers: Receivers) -> None:
    _fleet()
    truth = Truth(receivers, Ship)
    values, expected = READING["correlated by what is written"]
    with bulk_signals(batch_size=1):
        Ship.objects.order_by(*ordering).update(**values())
    assert column(Ship, "speed") == expected
    assert truth.holds()


@pytest.mark.parametrize("batch_size", [1, 2, 2000])
def test_an_annotation_that_reads_other_rows_is_that_before_the_first_write(
    batch_size: int, receivers: Receivers
) -> None:
    _fleet()
    truth = Truth(receivers, Ship)
    queryset = Ship.objects.annotate(top=Subquery(_fastest(speed__lte=OuterRef("speed"))))
    with bulk_signals(batch_size=batch_size):
        queryset.update(tonnage=F("top") + 1, speed=0)
    assert column(Ship, "tonnage") == [2, 3, 4]
    assert truth.holds()


@pytest.mark.parametrize("batch_size", [1, 2000])
def test_a_receiver_that_changes_rows_read_changes_no_value(batch_size: int, receivers: Receivers) -> None:
    _fleet()

    def move(instance: Ship, **arguments: Any) -> None:
        Berth.objects.update(number=F("number") + 100)

    receivers.connect(pre_save, move, Ship)
    truth = Truth(receivers, Ship)
    number = Subquery(Berth.objects.order_by("number").values("number")[:1])
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=number, tonnage=F("speed"))
    assert column(Ship, "speed") == [3, 3, 3]
    assert truth.holds()


def test_the_filter_too_is_that_before_the_first_write(receivers: Receivers) -> None:
    _fleet()
    Truth(receivers, Ship)
    slower = Ship.objects.filter(Exists(Ship.objects.filter(speed__gt=OuterRef("speed"))))
    with bulk_signals(batch_size=1):
        assert slower.order_by("-speed").update(speed=100) == 2
    assert column(Ship, "speed") == [100, 100, 3]


@of_every_size
def test_receivers_change_rows_that_get_such_values(batch_size: int, receivers: Receivers) -> None:
    _fleet()

    def rename(instance: Ship, **arguments: Any) -> None:
        if instance.name != "Bob":
            instance.name += str(instance.speed)
            instance.speed += 50

    receivers.connect(pre_save, rename, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=Subquery(_fastest()))
    assert column(Ship, "speed") == [53, 3, 53]
    assert column(Ship, "name") == ["Ann3", "Bob", "Cid3"]
    assert truth.told[0]["speed"] == (int, 53)
    assert truth.told == truth.stored


def test_an_expression_over_the_rows_own_columns_is_evaluated_when_its_batch_comes(
    receivers: Receivers,
) -> None:
    _fleet()

    def hasten_the_others(instance: Ship, **arguments: Any) -> None:
        with no_bulk_signals():
            Ship.objects.exclude(pk=instance.pk).update(speed=F("speed") + 10)

    receivers.connect(post_save, hasten_the_others, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.update(speed=F("speed") + 100)
    assert [told["speed"][1] for told in truth.told] == [101, 112, 123]


# MariaDB's SET works from left to right.


def test_two_columns_swap_where_the_databases_own_statement_swaps_them(receivers: Receivers) -> None:
    ships(1, 2, tonnage=7)
    truth = Truth(receivers, Ship)
    Ship.objects.update(speed=F("tonnage"), tonnage=F("speed"))
    swapped = [1, 2] if connection.vendor != "mysql" else [7, 7]
    assert (column(Ship, "speed"), column(Ship, "tonnage")) == ([7, 7], swapped)
    assert truth.holds()


def test_an_expression_over_an_assigned_column_is_told_as_the_database_has_it(receivers: Receivers) -> None:
    ships(7, tonnage=10)
    truth = Truth(receivers, Ship)
    Ship.objects.update(speed=F("speed") * 0.35, tonnage=F("speed") * 10)
    assert column(Ship, "tonnage") == ([70] if connection.vendor != "mysql" else [20])
    assert truth.holds("speed")


def _first_two() -> QuerySet[Any, Any]:
    return Ship.objects.annotate(place=Window(RowNumber(), order_by="speed")).filter(place__lte=2)


# Of a statement that reads the table that it writes MariaDB takes all columns from the old row.
READING_ITSELF: dict[str, tuple[Callable[[], QuerySet[Any, Any]], Callable[[], dict[str, Any]]]] = {
    "in a value": (
        Ship.objects.all,
        lambda: {"speed": 9, "tonnage": F("speed"), "price": Subquery(_fastest())},
    ),
    "in a value to the left": (
        Ship.objects.all,
        lambda: {"price": Subquery(_fastest()), "speed": F("speed") + F("tonnage"), "tonnage": F("speed")},
    ),
    "in a value of a chain": (
        Ship.objects.all,
        lambda: {
            "speed": F("tonnage"),
            "tonnage": Case(When(speed__gt=1, then=F("speed")), default=Value(7)),
            "price": F("tonnage") + Subquery(_fastest()),
        },
    ),
    "in raw SQL": (
        Ship.objects.all,
        lambda: {
            "speed": 9,
            "tonnage": F("speed"),
            "price": RawSQL(f"(SELECT MAX(speed) FROM {Ship._meta.db_table})", ()),
        },
    ),
    "in the filter": (
        lambda: Ship.objects.filter(Exists(Ship.objects.filter(speed=3))),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in a filter by a relation": (
        lambda: Ship.objects.filter(berth__number__gt=0),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in an extra condition": (
        lambda: Ship.objects.extra(where=[f"EXISTS (SELECT 1 FROM {Ship._meta.db_table} other)"]),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in a list of tables": (
        Ship.objects.all,
        lambda: {
            "speed": 9,
            "tonnage": F("speed"),
            "price": RawSQL(
                f"(SELECT MAX(s.speed) FROM {Berth._meta.db_table} b, {Ship._meta.db_table} s)", ()
            ),
        },
    ),
    "in a column that is named twice": (
        Ship.objects.all,
        lambda: {
            "berth": Subquery(Ship.objects.order_by("-id").values("berth_id")[:1]),
            "berth_id": None,
            "speed": 9,
            "tonnage": F("speed"),
        },
    ),
    "not, in a generated column": (
        Cargo.objects.all,
        lambda: {
            "total": Subquery(Cargo.objects.order_by("-id").values("total")[:1]),
            "weight": 9,
            "amount": F("weight"),
        },
    ),
    "not, but a part of its own date": (
        lambda: Survey.objects.filter(held__month=3),
        lambda: {"passed": True, "title": Cast("passed", CharField())},
    ),
    "in a copy": (
        lambda: Ship.objects.filter(pk__in=_first_two().values("pk")),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "in a copy, for a value": (
        Ship.objects.all,
        lambda: {"speed": 9, "tonnage": F("speed"), "price": Subquery(_first_two().values("place")[:1])},
    ),
    "in a copy, by a relation": (
        lambda: _first_two().annotate(number=F("berth__number")),
        lambda: {"speed": 9, "tonnage": F("speed")},
    ),
    "not, but another one by an assigned column": (
        Ship.objects.all,
        lambda: {
            "speed": 3,
            "tonnage": Coalesce(
                Subquery(Berth.objects.filter(number=OuterRef("speed")).values("number")[:1]), 77
            ),
        },
    ),
    "by an assigned column": (
        Ship.objects.all,
        lambda: {
            "speed": 2,
            "tonnage": Coalesce(Subquery(Ship.objects.filter(id__lt=OuterRef("speed")).values("id")[:1]), 77),
        },
    ),
    "not, but another one": (
        lambda: Ship.objects.filter(Exists(Berth.objects.filter(number=3))),
        lambda: {"speed": 9, "tonnage": F("speed"), "price": Subquery(Berth.objects.values("number")[:1])},
    ),
    "in a value of a parent": (
        Novel.objects.all,
        lambda: {
            "title": "new",
            "status": F("title"),
            "price": Subquery(Book.objects.order_by("-price").values("price")[:1]),
        },
    ),
    "not, as a parent is written by keys": (
        lambda: Novel.objects.filter(title="Emma"),
        lambda: {"title": "new", "status": F("title"), "plot": "none"},
    ),
    "not, as a child is written by keys beside it": (
        lambda: Novel.objects.filter(title="Emma"),
        lambda: {"title": "new", "plot": "none", "genre": F("plot")},
    ),
    "in a filter by a parent": (
        lambda: Novel.objects.filter(title="Emma"),
        lambda: {"plot": "none", "genre": F("plot")},
    ),
}


@of_every_size
@pytest.mark.parametrize("heard", [[pre_save, post_save], [post_save]], ids=["both", "post_save"])
@pytest.mark.parametrize(("queryset", "values"), READING_ITSELF.values(), ids=READING_ITSELF)
def test_what_an_expression_sees_depends_on_whether_the_statement_reads_its_own_table(
    queryset: Callable[[], QuerySet[Any, Any]],
    values: Callable[[], dict[str, Any]],
    heard: list[Signal],
    batch_size: int,
    receivers: Receivers,
) -> None:
    if connection.vendor == "postgresql" and {"berth", "berth_id"} <= values().keys():
        pytest.skip("it refuses a column that is assigned twice")
    _fleet()
    with no_bulk_signals():
        for title, price in ("Emma", 2), ("Ulysses", 3):
            Novel.objects.create(title=title, price=price, plot="love")
        rows(Cargo, {"weight": 1, "amount": 2}, {"weight": 3, "amount": 4})
        rows(Survey, {"held": datetime.date(2020, 3, 4), "passed": False})
    model = queryset().model
    expected = _as_django(lambda: queryset().update(**values()), model)
    truth = Truth(receivers, model, heard)
    with bulk_signals(batch_size=batch_size):
        assert queryset().update(**values())
    assert _rows(model) == expected
    assert truth.told == truth.stored
    assert truth.announced == [] if pre_save not in heard else truth.holds("total")


@of_every_size
def test_a_change_by_a_receiver_does_not_show_in_other_columns(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, tonnage=7)

    def hasten(instance: Ship, **arguments: Any) -> None:
        if instance.name == "a":
            instance.price = Decimal(50)

    receivers.connect(pre_save, hasten, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(tonnage=F("speed") + 1, speed=F("speed") + 5)
    assert column(Ship, "tonnage") == [2, 3]
    assert column(Ship, "speed") == [6, 7]
    assert truth.told == truth.stored


# 12. Every kind of column.


@of_every_size
@pytest.mark.parametrize("value", [5, F("weight") + 4], ids=["constant", "expression"])
def test_stored_generated_columns_are_read_again(value: Any, batch_size: int, receivers: Receivers) -> None:
    rows(Cargo, {"weight": 1, "amount": 3}, {"weight": 1, "amount": 4})
    truth = Truth(receivers, Cargo)
    with bulk_signals(batch_size=batch_size):
        Cargo.objects.update(weight=value)
    assert [told["total"] for told in truth.told] == [(int, 15), (int, 20)]
    assert truth.holds("total")


def test_virtual_generated_columns_are_read_again(receivers: Receivers) -> None:
    if not connection.features.supports_virtual_generated_columns:
        pytest.skip("this database has stored generated columns only")
    rows(Crate, {"weight": 1}, {"weight": 2})
    truth = Truth(receivers, Crate)
    Crate.objects.update(weight=F("weight") + 4)
    assert [told["doubled"] for told in truth.told] == [(int, 10), (int, 12)]
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
    assert truth.told[0]["total"] == (int, 6)
    assert truth.told == truth.stored


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
    assert truth.told[0]["urgency"] == (int, 5)
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
def test_a_constant_that_is_sealed_anew_each_time_is_shown_as_it_comes_back(
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
def test_a_field_that_converts_on_its_way_is_told_as_it_comes_back(
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
@pytest.mark.parametrize("receiver", [pre_save, None], ids=["shown before", "told after"])
@pytest.mark.parametrize("kind", ["constant", "expression", "other row"])
def test_a_column_of_a_type_that_is_not_djangos_is_told_as_it_comes_back(
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
@pytest.mark.parametrize("receiver", [pre_save, None], ids=["shown before", "told after"])
@pytest.mark.parametrize("picture", ["new.png", "", None, Value("new.png")], ids=repr)
def test_a_picture_is_not_read_for_its_size(
    picture: Any, receiver: Any, batch_size: int, receivers: Receivers
) -> None:
    size = {"width": 3, "height": 4}
    rows(Portrait, {"picture": "old.png", **size}, {"picture": None, **size})
    told: list[Any] = []

    def note(instance: Portrait, **arguments: Any) -> None:
        told.append((instance.picture, instance.width, instance.height))

    receivers.connect(post_save, note, Portrait)
    if receiver:
        receivers.record(Portrait)
    with bulk_signals(batch_size=batch_size):
        Portrait.objects.update(width=5, picture=picture)
    assert told == [*Portrait.objects.order_by("pk").values_list("picture", "width", "height")]
    assert {row[1:] for row in told} == {(5, 4)}


def test_uuid_keys_and_texts_are_values(receivers: Receivers) -> None:
    (buoy,) = rows(Buoy, {})
    truth = Truth(receivers, Buoy)
    new = uuid.uuid4()
    Buoy.objects.filter(pk=buoy.pk).update(id=str(new), colour=Upper("colour"))
    assert truth.told[0] == {"id": (uuid.UUID, new), "colour": (str, "RED")}
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
    _fleet()
    truth = Truth(receivers, Ship)
    Ship.objects.update(price=Func("price", function="ABS", output_field=DecimalField()) / 3)
    assert truth.holds()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="others give values to be converted")
def test_a_value_in_its_columns_type_is_converted_no_more_than_the_columns_own() -> None:
    for field in Ship._meta.concrete_fields:
        shown: Any = as_column(F(field.name), field, connection)
        assert shown.get_db_converters(connection) == shown.output_field.get_db_converters(connection)
