"""`bulk_update()` writes with its own statement, with the same result as Django's statement."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Exists, F, Model, OuterRef, QuerySet
from django.db.models.signals import pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, disable, no_bulk_signals
from signal_patch.mixins import SignalEnhancedQuerySetMixins
from tests.fleet import LAUNCH, column, rows, ships
from tests.key_models import Coupon, Phrase, Stall, Tariff, Translation, Word
from tests.models import (
    Beacon,
    Buoy,
    Captain,
    Cargo,
    Chart,
    Mooring,
    Novel,
    Port,
    Shelf,
    Ship,
    Sighting,
    Strongbox,
    Survey,
    Wreck,
)

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

# Enough rows for a CASE whose branches are in groups.
MANY = 80

Values = Callable[[int], dict[str, Any]]


def stored(model: type[Model]) -> list[Any]:
    """Return the rows of a model and its parents as the database has them."""
    found = []
    for owner in (model, *model._meta.all_parents):
        names = [connection.ops.quote_name(str(field.column)) for field in owner._meta.local_concrete_fields]
        if connection.vendor == "sqlite":
            # As SQL literals, which show the types of the values.
            names = [f"quote({name})" for name in names]
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(names)} FROM {owner._meta.db_table} ORDER BY 1, 2")
            found.append(cursor.fetchall())
    return found


def outcome(write: Callable[[], object], model: type[Model]) -> Any:
    """Return the rows and the result of a write, or the first line of its error; then undo it."""
    result: object
    try:
        with transaction.atomic():
            result = write(), stored(model)
            transaction.set_rollback(True)
    except (DatabaseError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        result = type(error), str(error).splitlines()[0]
    return result


def changed(queryset: QuerySet[Any], values: Values) -> list[Any]:
    objs = list(queryset.order_by("pk"))
    for index, obj in enumerate(objs):
        for name, value in values(index).items():
            setattr(obj, name, value)
    return objs


def both(queryset: QuerySet[Any], values: Values, **arguments: Any) -> tuple[Any, Any]:
    """Return the outcomes of Django's own statement and of the library's."""
    names, plain = [*values(0)], queryset.model._default_manager.all()

    def write() -> int:
        return queryset.all().bulk_update(changed(plain, values), names, **arguments)

    with no_bulk_signals():
        djangos = outcome(write, queryset.model)
    return djangos, outcome(write, queryset.model)


def many_ships() -> QuerySet[Any]:
    rows(Port, *({"code": f"P{number}"} for number in range(9)))
    ships(*range(MANY), launched=LAUNCH)
    return Ship.objects.all()


def many_of(model: Any, row: Values) -> QuerySet[Any]:
    rows(model, *map(row, range(MANY)))
    return QuerySet(model)


def many_children(model: Any, row: Values) -> QuerySet[Any]:
    with no_bulk_signals():
        for index in range(MANY):
            model.objects.create(**row(index))
    return QuerySet(model)


CASES: dict[str, tuple[Callable[[], QuerySet[Any]], Values]] = {
    "text and numbers": (many_ships, lambda i: {"name": f"ship {i}", "speed": -i, "tonnage": 7}),
    "another class than the column's": (many_ships, lambda i: {"name": i, "speed": str(i), "tonnage": i > 5}),
    "some of them NULL": (many_ships, lambda i: {"slug": None if i % 3 else f"s{i}", "flag_id": None}),
    "decimals": (many_ships, lambda i: {"price": Decimal(i) / 4}),
    "decimals of other classes": (many_ships, lambda i: {"price": (i, f"{i}.5", Decimal(f"{i}.55"))[i % 3]}),
    "JSON": (many_ships, lambda i: {"notes": ([i], {"a": [i, None, 1.5]}, [], "t", i, True)[i % 6]}),
    "moments": (
        many_ships,
        lambda i: {"launched": LAUNCH + datetime.timedelta(days=400 * i, microseconds=i)},
    ),
    "foreign keys": (many_ships, lambda i: {"flag_id": f"P{i % 9}", "convoy_id": None}),
    "choices": (many_ships, lambda i: {"status": (Ship.Status.SUNK, "docked")[i % 2]}),
    "text that is too long": (many_ships, lambda i: {"status": "x" * i}),
    "a number that is too large": (many_ships, lambda i: {"speed": i * 10**9}),
    "a number that is no number": (many_ships, lambda i: {"speed": "fast" if i == 70 else i}),
    "a decimal that is too large": (many_ships, lambda i: {"price": Decimal(10) ** (i % 12)}),
    "text with quotes": (many_ships, lambda i: {"name": f"%s '\"\\ {chr(i + 1)} %% {{}} ä €"}),
    "days, booleans and JSON's NULL": (
        lambda: many_of(Survey, lambda i: {"title": f"{i}"}),
        lambda i: {
            "held": datetime.date(2000, 1, 1) + datetime.timedelta(days=i),
            "passed": i % 2 == 0,
            "findings": None if i % 2 else {"n": i},
        },
    ),
    "files": (lambda: many_of(Chart, lambda i: {}), lambda i: {"sheet": f"{i}.txt" if i % 2 else None}),
    "a generated column beside": (lambda: many_of(Cargo, lambda i: {}), lambda i: {"weight": i, "amount": 2}),
    "converting fields": (
        lambda: many_of(Wreck, lambda i: {}),
        lambda i: {"place": (i, 2 * i), "name": f"ship {i}"},
    ),
    "columns of other types": (
        lambda: many_of(Sighting, lambda i: {}),
        lambda i: {"country": f"c{i}", "seen": LAUNCH, "name": f"{i}"},
    ),
    "fields that take no expressions": (
        lambda: many_of(Strongbox, lambda i: {}),
        lambda i: {"owner": f"o{i}"},
    ),
    "keys of text": (
        lambda: many_of(Beacon, lambda i: {"code": f"b{i}"}),
        lambda i: {"lit": i % 2 == 1},
    ),
    "keys of other classes": (lambda: many_of(Buoy, lambda i: {}), lambda i: {"colour": f"colour {i}"}),
    "decimal keys": (lambda: many_of(Tariff, lambda i: {"rate": Decimal(i) / 4}), lambda i: {"uses": i}),
    "small keys": (
        lambda: many_of(Coupon, lambda i: {"number": 2 * i - 50}),
        lambda i: {"uses": i, "note": f"{i}"},
    ),
    "composite keys": (
        lambda: many_of(Mooring, lambda i: {"quay": i % 9, "day": i}),
        lambda i: {"holder": f"holder {i}"},
    ),
    "composite keys with decimals": (
        lambda: many_of(Stall, lambda i: {"market": f"m{i % 5}", "number": Decimal(i)}),
        lambda i: {"uses": i},
    ),
    "children and parents": (
        lambda: many_children(Novel, lambda i: {"title": f"{i}"}),
        lambda i: {"plot": f"plot {i}", "title": f"title {i}", "price": Decimal(i)},
    ),
    "grandchildren": (
        lambda: many_children(Captain, lambda i: {}),
        lambda i: {"rank": f"rank {i}", "age": i, "name": f"name {i}"},
    ),
    "children by a key of text": (
        lambda: many_children(Phrase, lambda i: {"text": f"t{i}"}),
        lambda i: {"length": i, "uses": i, "note": f"n{i}"},
    ),
    "keys that refer": (
        lambda: many_children(Translation, lambda i: {"word": Word.objects.create(text=f"w{i}")}),
        lambda i: {"uses": i},
    ),
}


@pytest.mark.parametrize(("make", "values"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("batch_size", [None, 30])
def test_the_rows_are_those_that_djangos_statement_leaves(
    make: Callable[[], QuerySet[Any]], values: Values, batch_size: int | None, receivers: Receivers
) -> None:
    queryset = make()
    receivers.record(queryset.model)
    djangos, ours = both(queryset, values, batch_size=batch_size)
    assert ours == djangos


def test_the_callers_batch_size_costs_no_statements(receivers: Receivers) -> None:
    many_ships()
    receivers.record(Ship)
    fleet = changed(Ship.objects.all(), lambda i: {"speed": i * 2})
    with CaptureQueriesContext(connection) as captured:
        Ship.objects.bulk_update(fleet, ["speed"], batch_size=1)
    assert len([query for query in captured if " SET " in query["sql"]]) <= 2
    assert column(Ship, "speed") == [i * 2 for i in range(MANY)]


def test_unique_values_move_in_the_statements_that_the_caller_asks_for(receivers: Receivers) -> None:
    """In a single statement, which writes the rows in their order, each value would collide with the next."""
    rows(Shelf, *({"label": f"{place}", "room": 1, "place": place} for place in range(MANY)))
    receivers.record(Shelf)
    shelves = changed(Shelf.objects.all(), lambda i: {"place": i + 1})[::-1]
    Shelf.objects.bulk_update(shelves, ["place"], batch_size=1)
    assert column(Shelf, "place") == [i + 1 for i in range(MANY)]


def test_which_rows_match_may_depend_on_what_was_written_before(receivers: Receivers) -> None:
    many_ships()
    receivers.record(Ship)
    slower = Ship.objects.filter(pk=OuterRef("pk") - 1, speed__lt=F("pk") * 1000)
    djangos, ours = both(
        Ship.objects.filter(Exists(slower) | ~Exists(Ship.objects.filter(pk__lt=OuterRef("pk")))),
        lambda i: {"speed": 5, "tonnage": i},
        batch_size=20,
    )
    assert ours == djangos


@pytest.mark.parametrize("batch_size", [None, 30])
def test_of_a_key_given_twice_the_rows_are_djangos(batch_size: int | None, receivers: Receivers) -> None:
    many_ships()
    receivers.record(Ship)

    def write() -> int:
        fleet = [*changed(Ship.objects.all(), lambda i: {"speed": 2 * i})]
        again = changed(Ship.objects.all(), lambda i: {"speed": 3 * i})
        return Ship.objects.bulk_update([*fleet, *again], ["speed"], batch_size=batch_size)

    with no_bulk_signals():
        djangos = outcome(write, Ship)
    assert outcome(write, Ship) == djangos


def test_keys_that_no_column_holds_are_refused_where_django_refuses_them(receivers: Receivers) -> None:
    many_ships()
    receivers.record(Ship)

    def write() -> int:
        fleet = changed(Ship.objects.all(), lambda i: {"speed": i + 1})
        return Ship.objects.bulk_update([*fleet, Ship(pk=10**30), Ship(pk=-(10**30))], ["speed"])

    with no_bulk_signals():
        djangos = outcome(write, Ship)
    assert outcome(write, Ship) == djangos


def test_statements_have_no_more_parameters_than_the_database_takes(
    receivers: Receivers, few_parameters: None
) -> None:
    many_ships()
    receivers.record(Ship)
    fleet = changed(Ship.objects.all(), lambda i: {"name": f"ship {i}", "speed": i, "tonnage": 2 * i})
    assert Ship.objects.bulk_update(fleet, ["name", "speed", "tonnage"]) == MANY
    assert column(Ship, "tonnage") == [2 * i for i in range(MANY)]


@pytest.fixture
def few_parameters(db: None) -> Any:
    """Let SQLite take few parameters, where Python can tell it so (from 3.11 on)."""
    connection.ensure_connection()
    own: Any = connection.connection
    limit = getattr(own, "setlimit", lambda category, number: number)
    before = limit(9, 200)
    yield
    limit(9, before)


def test_a_key_that_a_receiver_takes_away_is_refused_as_django_refuses_it(receivers: Receivers) -> None:
    many_ships()

    def take_the_key(instance: Any, **arguments: Any) -> None:
        instance.pk = None

    receivers.connect(pre_save, take_the_key, Ship)
    fleet = changed(Ship.objects.all(), lambda i: {"speed": i})
    with pytest.raises(ValueError, match="must have a primary key set"), transaction.atomic():
        Ship.objects.bulk_update(fleet, ["speed"])


# Methods that are not Django's own


class OwnUpdate(QuerySet[Any]):
    calls: ClassVar[list[str]] = []

    def update(self, **values: Any) -> int:
        self.calls.append("update")
        return super().update(**values)


class OwnFilter(QuerySet[Any]):
    calls: ClassVar[list[str]] = []

    def filter(self, *args: Any, **conditions: Any) -> Any:
        self.calls.append("filter")
        return super().filter(*args, **conditions)


class OwnBulkUpdate(QuerySet[Any]):
    calls: ClassVar[list[str]] = []

    def bulk_update(self, *args: Any, **keywords: Any) -> int:
        self.calls.append("bulk_update")
        return super().bulk_update(*args, **keywords)


class BeforeMixin(SignalEnhancedQuerySetMixins, QuerySet[Any]):
    pass


class MixedOwnUpdate(BeforeMixin):
    calls: ClassVar[list[str]] = []

    def update(self, **values: Any) -> int:
        self.calls.append("update")
        return super().update(**values)


@pytest.mark.parametrize("queryset_class", [OwnUpdate, OwnFilter, OwnBulkUpdate, MixedOwnUpdate])
def test_methods_of_a_querysets_own_are_called_as_djangos_statement_calls_them(
    queryset_class: Any, receivers: Receivers
) -> None:
    many_ships()
    receivers.record(Ship)
    counts = []
    for switch in (no_bulk_signals, bulk_signals):
        queryset_class.calls.clear()
        with switch(), transaction.atomic():
            fleet = changed(Ship.objects.all(), lambda i: {"speed": i})
            queryset_class(Ship).bulk_update(fleet, ["speed"], batch_size=MANY // 2)
            # With signals there are more calls: these check what Django refuses.
            counts.append(len(queryset_class.calls))
    assert counts[1] >= counts[0] > 0


def test_a_mixins_querysets_write_by_one_statement_too(receivers: Receivers) -> None:
    many_ships()
    receivers.record(Ship)
    disable()
    fleet = changed(Ship.objects.all(), lambda i: {"speed": i * 2})
    with CaptureQueriesContext(connection) as captured:
        BeforeMixin(Ship).bulk_update(fleet, ["speed"], batch_size=1)
    assert len([query for query in captured if " SET " in query["sql"]]) <= 2


@pytest.mark.parametrize("name", ["update", "bulk_update"])
def test_another_librarys_method_beneath_is_called(
    name: str, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_ships()
    receivers.record(Ship)
    disable()
    original, calls = vars(QuerySet)[name], []

    @wraps(original)
    def theirs(queryset: Any, *args: Any, **keywords: Any) -> Any:
        calls.append(name)
        return original(queryset, *args, **keywords)

    with monkeypatch.context() as patching:
        patching.setattr(QuerySet, name, theirs)
        with bulk_signals():
            fleet = changed(Ship.objects.all(), lambda i: {"speed": i * 2})
            Ship.objects.bulk_update(fleet, ["speed"], batch_size=MANY // 2)
        disable()
    # One of the calls checks what Django refuses.
    assert len(calls) >= 2
    assert column(Ship, "speed") == [i * 2 for i in range(MANY)]
