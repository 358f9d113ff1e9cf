"""`update()`: values that read other rows are computed before the first write (contract.md, section 1.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import (
    Case,
    Count,
    Exists,
    F,
    Max,
    OuterRef,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import (
    Coalesce,
)
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, fastest, of_every_size, three_ships
from tests.models import (
    Berth,
    Ship,
)
from tests.refusals import is_refused, reads_its_own_table
from tests.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


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
        lambda: {"speed": Coalesce(Subquery(fastest(speed__lt=OuterRef("speed"))), 0)},
        [0, 1, 2],
    ),
    "uncorrelated": (lambda: {"speed": Subquery(fastest()) + 1}, [4, 4, 4]),
    "queryset": (lambda: {"speed": _total()}, [6, 6, 6]),
    "in arithmetic": (lambda: {"speed": F("speed") + Subquery(fastest())}, [4, 5, 6]),
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
    "and a column that is assigned before": (lambda: {"tonnage": 5, "speed": _next_below()}, [0, 1, 2]),
}


def _next_below() -> Any:
    below = Coalesce(Subquery(fastest(speed__lt=OuterRef("speed"))), 0)
    return Case(When(tonnage__gte=0, then=below), default=Value(-1))


@pytest.mark.parametrize("lock", [True, False], ids=["locked", "not locked"])
@of_every_size
@pytest.mark.parametrize(("values", "expected"), READING.values(), ids=READING)
def test_values_that_read_other_rows_are_computed_before_the_first_write(
    values: Callable[[], dict[str, Any]],
    expected: list[int],
    batch_size: int,
    lock: bool,
    receivers: Receivers,
) -> None:
    three_ships()
    with bulk_signals(batch_size=batch_size, lock=lock):
        if is_refused(lambda: Ship.objects.update(**values()), receivers):
            return
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size, lock=lock):
        assert Ship.objects.update(**values()) == 3
    assert column(Ship, "speed") == expected
    assert truth.holds()


@reads_its_own_table
@pytest.mark.parametrize("lock", [True, False], ids=["locked", "not locked"])
@of_every_size
def test_expressions_of_instances_that_read_other_rows_and_a_column_assigned_before(
    batch_size: int, lock: bool, receivers: Receivers
) -> None:
    fleet = three_ships()
    for ship in fleet:
        ship.tonnage, ship.speed = 5, _next_below()
    log = receivers.record(Ship)
    with bulk_signals(batch_size=batch_size, lock=lock):
        assert Ship.objects.bulk_update(fleet, ["tonnage", "speed"]) == 3
    assert column(Ship, "speed") == [0, 1, 2]
    for signal in ("pre_save", "post_save"):
        assert [sent.values["speed"] for sent in log.of(signal)] == [0, 1, 2]


@of_every_size
def test_raw_sql_may_name_a_column_that_the_filter_joins_from_another_table_too(
    batch_size: int, receivers: Receivers
) -> None:
    three_ships()
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        assert Ship.objects.exclude(berth__port__name="").update(name=RawSQL("UPPER(name)", ())) == 3
    assert column(Ship, "name") == ["ANN", "BOB", "CID"]
    assert truth.holds()


@reads_its_own_table
@pytest.mark.parametrize("ordering", [["speed"], ["-speed"], ["berth__number"]], ids=["up", "down", "joined"])
def test_the_order_does_not_show_in_such_values(ordering: list[str], receivers: Receivers) -> None:
    three_ships()
    truth = Truth(receivers, Ship)
    values, expected = READING["correlated by what is written"]
    with bulk_signals(batch_size=1):
        Ship.objects.order_by(*ordering).update(**values())
    assert column(Ship, "speed") == expected
    assert truth.holds()


@reads_its_own_table
@of_every_size
def test_an_annotation_that_reads_other_rows_is_computed_before_the_first_write(
    batch_size: int, receivers: Receivers
) -> None:
    three_ships()
    truth = Truth(receivers, Ship)
    queryset = Ship.objects.annotate(top=Subquery(fastest(speed__lte=OuterRef("speed"))))
    with bulk_signals(batch_size=batch_size):
        queryset.update(tonnage=F("top") + 1, speed=0)
    assert column(Ship, "tonnage") == [2, 3, 4]
    assert truth.holds()


@pytest.mark.parametrize("batch_size", [1, 2000])
def test_a_receiver_that_changes_rows_read_changes_no_value(batch_size: int, receivers: Receivers) -> None:
    three_ships()

    def move(instance: Ship, **arguments: Any) -> None:
        Berth.objects.update(number=F("number") + 100)

    receivers.connect(pre_save, move, Ship)
    truth = Truth(receivers, Ship)
    number = Subquery(Berth.objects.order_by("number").values("number")[:1])
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=number, tonnage=F("speed"))
    assert column(Ship, "speed") == [3, 3, 3]
    assert truth.holds()


@reads_its_own_table
def test_the_filter_too_is_evaluated_before_the_first_write(receivers: Receivers) -> None:
    three_ships()
    Truth(receivers, Ship)
    slower = Ship.objects.filter(Exists(Ship.objects.filter(speed__gt=OuterRef("speed"))))
    with bulk_signals(batch_size=1):
        assert slower.order_by("-speed").update(speed=100) == 2
    assert column(Ship, "speed") == [100, 100, 3]


@reads_its_own_table
@of_every_size
def test_receivers_change_rows_that_get_such_values(batch_size: int, receivers: Receivers) -> None:
    three_ships()

    def rename(instance: Ship, **arguments: Any) -> None:
        if instance.name != "Bob":
            instance.name += str(instance.speed)
            instance.speed += 50

    receivers.connect(pre_save, rename, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=Subquery(fastest()))
    assert column(Ship, "speed") == [53, 3, 53]
    assert column(Ship, "name") == ["Ann3", "Bob", "Cid3"]
    assert truth.after[0]["speed"] == (int, 53)
    assert truth.after == truth.stored


def test_an_expression_over_the_rows_own_columns_is_evaluated_when_its_batch_comes(
    receivers: Receivers,
) -> None:
    three_ships()

    def hasten_the_others(instance: Ship, **arguments: Any) -> None:
        with no_bulk_signals():
            Ship.objects.exclude(pk=instance.pk).update(speed=F("speed") + 10)

    receivers.connect(post_save, hasten_the_others, Ship)
    truth = Truth(receivers, Ship)
    with bulk_signals(batch_size=1):
        Ship.objects.update(speed=F("speed") + 100)
    assert [after["speed"][1] for after in truth.after] == [101, 112, 123]
