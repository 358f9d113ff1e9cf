"""`bulk_update()`: expressions on the instances become values (contract.md, sections 1.5 and 4)."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import (
    Case,
    F,
    JSONField,
    OuterRef,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Concat, Now
from django.db.models.signals import post_save

from signal_patch import bulk_signals
from tests.fleet import LAUNCH, column, faster_ships, of_every_size, rows, ships
from tests.models import (
    Berth,
    Cargo,
    Port,
    Ship,
    Survey,
)
from tests.refusals import reads_its_own_table
from tests.truth import as_django, typed_rows

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@of_every_size
def test_expressions_are_values_before_and_after_the_write(batch_size: int, receivers: Receivers) -> None:
    fleet = faster_ships(1, 2, 3, tonnage=5)
    fleet[0].speed = F("speed") + 100
    fleet[1].name = Concat("name", Value("!"))
    fleet[2].price = F("speed") * Decimal("1.5")
    fleet[2].status = Case(When(name="c", then=Value("sunk")))
    log = receivers.record(Ship)
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.bulk_update(fleet, ["price", "speed", "name", "status"]) == 3
    for signal in ("pre_save", "post_save"):
        values = [sent.values for sent in log.of(signal)]
        assert [value["speed"] for value in values] == [101, 20, 30]
        assert [value["name"] for value in values] == ["a", "b!", "c"]
        assert [value["status"] for value in values] == ["afloat", "afloat", "sunk"]
        assert str(values[2]["price"]) == "4.50"
    assert column(Ship, "speed") == [101, 20, 30]
    assert truth == [True] * 3


@pytest.mark.parametrize("names", [["speed", "tonnage"], ["tonnage", "speed"]])
@of_every_size
def test_expressions_that_read_each_others_columns_have_the_values_of_djangos_statement(
    names: list[str], batch_size: int, receivers: Receivers
) -> None:
    fleet = ships(1, 2, 3, tonnage=10)
    fleet[0].speed, fleet[0].tonnage = F("tonnage"), F("speed")
    fleet[1].speed, fleet[1].tonnage = F("tonnage") + F("speed"), 7
    fleet[2].speed, fleet[2].tonnage = 5, F("speed") * 2
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, names)
    held = list(Ship.objects.order_by("pk").values_list("speed", "tonnage"))
    for signal in ("pre_save", "post_save"):
        assert [(sent.values["speed"], sent.values["tonnage"]) for sent in log.of(signal)] == held


@reads_its_own_table
@of_every_size
def test_expressions_that_read_other_rows_are_evaluated_before_the_first_write(
    batch_size: int, receivers: Receivers
) -> None:
    fleet = faster_ships(1, 2, 3)
    for ship in fleet:
        other = Ship.objects.exclude(pk=OuterRef("pk")).order_by("-speed")
        ship.speed = Subquery(other.values("speed")[:1])
    truth = receivers.check_truth(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, ["speed"])
    assert column(Ship, "speed") == [3, 3, 2]
    assert truth == [True] * 3


def _number() -> Subquery:
    return Subquery(Berth.objects.order_by("number").values("number")[:1])


HELD: dict[str, dict[str, Any]] = {
    "a constant": {"speed": 3, "price": 5},
    "an expression": {"speed": F("tonnage"), "price": 5},
    "an expression over itself": {"speed": F("speed") + 1, "price": F("speed")},
    "a subquery": {"speed": _number(), "price": 5},
    "an expression beside a constant": {"speed": 3, "price": F("tonnage")},
}


@of_every_size
@pytest.mark.parametrize("own", [None, 1, 2])
@pytest.mark.parametrize("second", [*HELD, "the same instance"])
@pytest.mark.parametrize("first", HELD)
def test_of_instances_with_one_key_the_row_gets_the_values_of_djangos_statement(
    first: str, second: str, own: int | None, batch_size: int, receivers: Receivers
) -> None:
    Berth.objects.create(number=6)
    one, other = (ship.pk for ship in ships(1, 2, tonnage=20))

    def update() -> int:
        fleet = [Ship(pk=one, **HELD[first]), Ship(pk=other, **HELD[first])]
        fleet.append(Ship(pk=one, **HELD[second]) if second in HELD else fleet[0])
        return Ship.objects.bulk_update(fleet, ["speed", "price"], batch_size=own)

    matched: list[int] = []
    expected = as_django(lambda: matched.append(update()), Ship)
    log = receivers.record(Ship)
    after: list[bool] = []

    def compare(instance: Ship, **arguments: Any) -> None:
        stored = Ship.objects.get(pk=instance.pk)
        after.append((instance.speed, instance.price) == (stored.speed, stored.price))

    receivers.connect(post_save, compare, Ship)
    with bulk_signals(batch_size=batch_size):
        matched.append(update())
    assert matched[0] == matched[1]
    assert typed_rows(Ship) == expected
    assert after == [True] * 3
    for sent in log.of("pre_save"):
        assert not hasattr(sent.values["speed"], "resolve_expression")
        assert not hasattr(sent.values["price"], "resolve_expression")


def test_a_value_that_is_empty_by_definition_is_null(receivers: Receivers) -> None:
    ships(1, 2)
    fleet = list(Ship.objects.order_by("pk"))
    fleet[0].slug = Subquery(Port.objects.none().values("name"))
    fleet[1].slug = "b"
    truth = receivers.check_truth(Ship)
    log = receivers.record(Ship)
    assert Ship.objects.bulk_update(fleet, ["slug"]) == 2
    assert [sent.values["slug"] for sent in log] == [None, "b"] * 2
    assert column(Ship, "slug") == [None, "b"]
    assert truth == [True, True]


@reads_its_own_table
@of_every_size
def test_a_json_null_from_another_row_stays_a_json_null(batch_size: int, receivers: Receivers) -> None:
    other, *_ = rows(Survey, {"findings": Value(None, JSONField())}, {}, {})
    surveys = list(Survey.objects.exclude(pk=other.pk))
    truth = receivers.check_truth(Survey)
    for survey in surveys:
        survey.findings = Subquery(Survey.objects.filter(pk=other.pk).values("findings"))
    with bulk_signals(batch_size=batch_size):
        Survey.objects.bulk_update(surveys, ["findings"])
    assert not Survey.objects.filter(findings__isnull=True).exists()
    assert truth == [True, True]


def test_what_only_the_database_decides_is_read_again(receivers: Receivers) -> None:
    fleet = faster_ships(1, 2)
    for ship in fleet:
        ship.launched = Now()
    truth = receivers.check_truth(Ship)
    Ship.objects.bulk_update(fleet, ["launched"])
    # The speed is not named, so the instance and the row may differ in it.
    for ship in fleet:
        assert ship.launched == Ship.objects.get(pk=ship.pk).launched
    assert len(truth) == 2


def test_generated_columns_are_read_again(receivers: Receivers) -> None:
    rows(Cargo, {"weight": 1, "amount": 3}, {"weight": 1, "amount": 4})
    lots = list(Cargo.objects.order_by("pk"))
    for cargo in lots:
        cargo.weight = 10
    truth = receivers.check_truth(Cargo)
    Cargo.objects.bulk_update(lots, ["weight"])
    assert [cargo.total for cargo in lots] == [30, 40]
    assert truth == [True, True]


CONSTANTS: dict[str, Any] = {
    "speed": "7",
    "name": 7,
    "status": Ship.Status.SUNK,
    "price": Decimal(15),
    "notes": ("a", {1: 2}),
    "launched": "2020-01-02T03:04:05Z",
    "slug": None,
    "tonnage": True,
}


@of_every_size
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_become_the_fields_python_type(name: str, batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, launched=LAUNCH)
    fleet = list(Ship.objects.order_by("pk"))
    for ship in fleet:
        setattr(ship, name, CONSTANTS[name])
    truth = receivers.check_truth(Ship)
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.bulk_update(fleet, [name])
    assert truth == [True, True]
    for sent in log:
        assert type(sent.values[name]) is type(column(Ship, name)[0])
        assert str(sent.values[name]) == str(column(Ship, name)[0])


def test_an_auto_now_field_is_written_unchanged_as_in_django(receivers: Receivers) -> None:
    fleet = faster_ships(1)
    fleet[0].changed = LAUNCH
    receivers.record(Ship)
    Ship.objects.bulk_update(fleet, ["changed"])
    assert column(Ship, "changed") == [LAUNCH]
    assert column(Ship, "speed") == [1]
