"""`update()`: what Django refuses is refused before any signal (contract.md, section 1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import NotSupportedError
from django.db.models import (
    Count,
    F,
    Func,
    IntegerField,
    Max,
    QuerySet,
    Subquery,
    Window,
)
from django.db.models.functions import RowNumber

from signal_patch import no_bulk_signals
from tests.fleet import column, rows, ships
from tests.models import (
    Berth,
    Book,
    Novel,
    Publisher,
    Sailor,
    Ship,
)
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


class Lacking(Func):
    """A function that no database has."""

    output_field = IntegerField()

    def as_sql(self, *arguments: Any, **extra: Any) -> Any:
        raise NotSupportedError("this backend has no such function")


# 1. Refusals come first.

REFUSED: dict[str, Callable[[QuerySet[Any]], int]] = {
    "sliced": lambda qs: qs[:1].update(speed=9),
    "combined": lambda qs: qs.union(qs).update(speed=9),
    "intersected": lambda qs: qs.intersection(qs).update(speed=9),
    "unknown field": lambda qs: qs.update(sped=9),
    "unknown field beside a known one": lambda qs: qs.update(speed=9, sped=9),
    "reverse relation": lambda qs: qs.update(crew=9),
    "aggregate": lambda qs: qs.update(speed=Max("tonnage")),
    "reference to an aggregate": lambda qs: qs.annotate(size=Count("crew")).update(speed=F("size")),
    "window": lambda qs: qs.update(speed=Window(RowNumber(), order_by="name")),
    "reference to a window": lambda qs: qs.annotate(n=Window(RowNumber())).update(speed=F("n")),
    "joined column": lambda qs: qs.update(speed=F("berth__number")),
    "unknown column": lambda qs: qs.update(speed=F("sped")),
    "order by aggregate": lambda qs: qs.annotate(n=Count("crew")).order_by("n").update(speed=9),
    "lacking function": lambda qs: qs.update(speed=Lacking("tonnage")),
    "unsaved object": lambda qs: qs.update(berth=Berth()),
    "object for a plain column": lambda qs: qs.update(speed=Berth(pk=1)),
    "wrong type": lambda qs: qs.update(speed="fast"),
    "positional argument": lambda qs: qs.update(9),  # type: ignore[call-arg]  # the mistake
    "values as a dictionary": lambda qs: qs.values("name").distinct().order_by("nope").update(speed=9),
}


@pytest.mark.parametrize("speed", [5, 6], ids=["rows match", "no row matches"])
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_refusals_come_before_any_signal(
    refused: Callable[[QuerySet[Any]], int], speed: int, receivers: Receivers
) -> None:
    ships(5, 5)
    log = receivers.record(Ship)
    queryset = Ship.objects.filter(speed=speed)
    with no_bulk_signals():
        expected = refusal(lambda: refused(queryset.all()))
    assert refusal(lambda: refused(queryset.all())) == expected
    assert expected is not None
    assert log == []
    assert column(Ship, "speed") == [5, 5]


def test_an_update_of_a_many_to_many_field_is_refused(receivers: Receivers) -> None:
    book = Book.objects.create()
    log = receivers.record(Book)
    books: QuerySet[Any] = Book.objects.filter(pk=book.pk)
    with pytest.raises(FieldError, match="Cannot update model field"):
        books.update(readers=[])
    assert log == []


REFUSED_BY_DATABASES: dict[str, Callable[[QuerySet[Any]], int]] = {
    "unknown function": lambda qs: qs.update(speed=Func("speed", function="no_such_function")),
    "window in the filter": lambda qs: (
        qs.annotate(n=Window(RowNumber(), order_by="pk")).filter(n__lt=9).update(speed=9)
    ),
    "aggregate in the filter": lambda qs: qs.annotate(n=Count("pk")).filter(n__gt=0).update(speed=9),
    "tables beside the model's own": lambda qs: qs.extra(
        tables=["tests_berth"], where=["tests_berth.id > 0"]
    ).update(speed=9),
}


@pytest.mark.parametrize("speed", [5, 6], ids=["rows match", "no row matches"])
@pytest.mark.parametrize("refused", REFUSED_BY_DATABASES.values(), ids=REFUSED_BY_DATABASES)
def test_what_the_database_refuses_is_refused_before_any_signal_too(
    refused: Callable[[QuerySet[Any]], int], speed: int, receivers: Receivers
) -> None:
    ships(5, 5)
    rows(Berth, {})
    log = receivers.record(Ship)
    queryset = Ship.objects.filter(speed=speed)
    with no_bulk_signals():
        expected = refusal(lambda: refused(queryset.all()))
    got = refusal(lambda: refused(queryset.all()))
    # PostgreSQL adds the position in the statement, and the statements differ.
    assert expected is not None
    assert got is not None
    assert (got[0], got[1].partition("\n")[0]) == (expected[0], expected[1].partition("\n")[0])
    assert log == []
    assert column(Ship, "speed") == [5, 5]


@pytest.mark.parametrize("by", ["object", "subquery"])
def test_a_column_named_twice_is_refused_where_the_database_refuses_it(by: str, receivers: Receivers) -> None:
    ships(5, 5)
    berth, last = rows(Berth, {}, {})
    first = berth if by == "object" else Subquery(Berth.objects.order_by("pk").values("pk")[:1])
    log = receivers.record(Ship)

    def update() -> int:
        return Ship.objects.update(berth=first, berth_id=last.pk)

    with no_bulk_signals():
        expected = refusal(update)
        left = column(Ship, "berth_id")
        Ship.objects.update(berth=None)
    got = refusal(update)
    assert got == expected
    if got is None:
        assert column(Ship, "berth_id") == left
        assert [sent.values["berth_id"] for sent in log.of("post_save")] == left
    else:
        assert log == []


@pytest.mark.parametrize("name", ["speed", "berth__number"])
def test_distinct_on_fields_is_refused_where_django_refuses_it(name: str, receivers: Receivers) -> None:
    berths = rows(Berth, {"number": 5}, {"number": 5}, {"number": 6})
    rows(Ship, *({"speed": berth.number, "berth": berth} for berth in berths))
    log = receivers.record(Ship)

    def update() -> int:
        return Ship.objects.order_by(name, "pk").distinct(name).update(tonnage=9)

    with no_bulk_signals():
        expected = refusal(update)
    tonnage = column(Ship, "tonnage")
    with no_bulk_signals():
        Ship.objects.update(tonnage=0)
    assert refusal(update) == expected
    assert column(Ship, "tonnage") == tonnage
    assert len(log.of("post_save")) == len([t for t in tonnage if t])


def test_distinct_on_fields_of_joined_rows_is_refused_where_django_refuses_it(receivers: Receivers) -> None:
    berths = rows(Berth, {"number": 5}, {"number": 6})
    fleet = rows(Ship, *({"berth": berth} for berth in berths))
    rows(Sailor, *({"ship": ship, "name": name} for ship in fleet for name in ("moe", "zoe")))
    log = receivers.record(Ship)

    def update() -> int:
        chosen = Ship.objects.filter(crew__name__contains="oe").order_by("berth__number")
        return chosen.distinct("berth__number").update(tonnage=9)

    with no_bulk_signals():
        expected = refusal(update)
        tonnage = column(Ship, "tonnage")
        Ship.objects.update(tonnage=0)
    assert refusal(update) == expected
    assert column(Ship, "tonnage") == tonnage
    assert len(log.of("post_save")) == len([t for t in tonnage if t])


def test_an_annotation_that_is_an_order_is_reversed_where_django_allows_it(receivers: Receivers) -> None:
    """MariaDB and MySQL use it to order the UPDATE, and refuse it."""
    ships(1, 2)

    def update() -> int:
        return Ship.objects.annotate(upwards=F("speed").asc()).order_by("-upwards").update(tonnage=9)

    with no_bulk_signals():
        expected = refusal(update)
    log = receivers.record(Ship)
    assert (refusal(update) or (None,))[0] == (expected or (None,))[0]
    seen = [sent.instance.name for sent in log.of("post_save") if isinstance(sent.instance, Ship)]
    assert seen == ([] if expected else ["b", "a"])


def test_rows_of_several_tables_may_be_chosen_by_a_related_row(receivers: Receivers) -> None:
    """The row's own tables are locked, but not the other one."""
    (here, there) = rows(Publisher, {"name": "here"}, {"name": "there"})
    Novel.objects.create(title="a", publisher=here)
    Novel.objects.create(title="b", publisher=there)
    log = receivers.record(Novel)
    assert Novel.objects.filter(publisher__name="here").update(plot="thick", status="out") == 1
    assert [sent.values["title"] for sent in log] == ["a", "a"]
    assert list(Novel.objects.order_by("pk").values_list("plot", "status")) == [
        ("thick", "out"),
        ("", "draft"),
    ]


def test_a_refusal_leaves_no_state_behind(receivers: Receivers) -> None:
    (ship,) = ships(5)
    log = receivers.record(Ship)
    fleet: QuerySet[Any] = Ship.objects.all()
    with pytest.raises(FieldDoesNotExist):
        fleet.update(sped=9)
    Ship.objects.filter(pk=ship.pk).update(speed=9)
    assert log.names() == ["pre_save", "post_save"]
