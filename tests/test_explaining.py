"""`explain()` says what an operation would do, and does nothing."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db import NotSupportedError, connection
from django.db.models import Count, F, Model, OuterRef, Prefetch, Subquery
from django.db.models.functions import Coalesce, Now
from django.db.models.signals import post_delete, post_init, post_save, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, disable, enable, explain, no_bulk_signals
from tests.fleet import column, rows, ships
from tests.models import (
    Berth,
    Book,
    Cargo,
    Crane,
    Foghorn,
    Logbook,
    Machine,
    Novel,
    Port,
    Publisher,
    Sailor,
    Ship,
)
from tests.refusals import reads_its_own_table

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = pytest.mark.django_db


def receiver(**kwargs: Any) -> None: ...


async def async_receiver(**kwargs: Any) -> None: ...


def test_what_decides_which_receivers_hear_how_many_rows_and_batches(receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Ship)
    receivers.connect(post_save, async_receiver, Ship)
    receivers.connect(pre_save, receiver, Ship)
    ships(1, 2, 3, 4, 5)
    enable(Ship, batch_size=2)

    found = explain(Ship.objects.filter(speed__gt=2), speed=7)

    assert (found.model, found.operation, found.rows, found.batches) == (Ship, "update", 3, 2)
    assert found.decided_by.startswith("enable(), tests/test_explaining.py:")
    assert found.sends
    assert found.options is not None
    assert found.options.batch_size == 2
    assert found.receivers == {
        "pre_save": ["tests.test_explaining.receiver"],
        "post_save": ["tests.test_explaining.receiver", "tests.test_explaining.async_receiver (async)"],
    }
    assert found.locks_rows == connection.features.has_select_for_update
    assert (found.slow_loading, found.precomputed, found.computed, found.read_again) == ([], [], [], [])
    lines = str(found).splitlines()
    assert lines[0] == "tests.Ship.update() of 3 rows sends signals"
    assert "  options      batch_size=2" in lines
    assert "  pre_save     tests.test_explaining.receiver" in lines
    assert "  batches      2" in lines


def test_it_changes_and_sends_nothing_with_one_statement(receivers: Receivers) -> None:
    ships(1, 2)
    log = receivers.record(Ship)
    with bulk_signals(), CaptureQueriesContext(connection) as queries:
        explain(Ship.objects.all(), speed=F("speed") + 1)
        explain(Ship.objects, "delete")
    assert not log
    assert len(queries) == 2
    assert column(Ship, "speed") == [1, 2]


class TestWhoDecides:
    def test_nothing(self, receivers: Receivers) -> None:
        receivers.connect(post_save, receiver, Book)
        rows(Book, {})
        found = explain(Book.objects.all(), title="a")
        assert (found.options, found.sends, found.rows) == (None, False, 1)
        assert str(found).splitlines() == [
            "tests.Book.update() of 1 rows sends no signals",
            "  decided by   nothing, so it is off",
            "  post_save    tests.test_explaining.receiver",
        ]

    def test_a_scope_before_the_process(self) -> None:
        enable()
        with no_bulk_signals(Book):
            found = explain(Book.objects.all(), title="a")
        assert found.decided_by.startswith("no_bulk_signals(), tests/test_explaining.py:")
        assert found.options is None

    def test_a_scope_that_leaves_the_operation_out(self) -> None:
        with bulk_signals(operations=["delete"]):
            found = explain(Book.objects.all(), title="a")
        assert found.decided_by.startswith("bulk_signals(), ")
        assert found.options is None

    def test_a_mixin_unless_the_process_is_on(self) -> None:
        disable(Foghorn)
        assert explain(Foghorn.objects.all(), size=1).decided_by.startswith(
            "the mixin of FoghornQuerySet, tests/mo"
        )
        enable(Foghorn, batch_size=5)
        found = explain(Foghorn.objects.all(), size=1)
        assert found.decided_by.startswith("enable(), ")
        assert found.options is not None
        assert found.options.batch_size == 5
        enable()
        disable(Foghorn)
        assert explain(Foghorn.objects.all(), size=1).decided_by.startswith("the mixin of ")

    def test_django_for_models_of_which_it_sends_none(self, receivers: Receivers) -> None:
        receivers.connect(post_save, receiver)
        enable()
        found = explain(Book.readers.through.objects.all(), book=5)
        assert found.decided_by == "Django, which sends no signals for this model"
        assert (found.options, found.receivers) == (None, {})


class TestAnUpdate:
    @pytest.fixture(autouse=True)
    def _heard(self, receivers: Receivers) -> None:
        for model in (Book, Cargo, Logbook, Novel, Ship):
            receivers.connect(pre_save, receiver, model)
            receivers.connect(post_save, receiver, model)
        enable(batch_size=2)

    def test_the_values_that_are_computed_and_read_again(self) -> None:
        ships(1, 2)
        fastest = Ship.objects.order_by("-speed").values("speed")[:1]
        found = explain(Ship.objects.all(), speed=Subquery(fastest), tonnage=F("speed") * 2, launched=Now())
        # MariaDB assigns from left to right, so there the tonnage is precomputed as well.
        assert "speed" in found.precomputed
        assert "tonnage" in found.precomputed + found.computed
        assert "launched" in found.read_again
        assert f"  computed     {', '.join(found.computed)}" in str(found).splitlines()
        assert explain(Cargo.objects.all(), weight=5).read_again == ["total"]

    @pytest.mark.parametrize(
        ("queryset", "values"),
        [
            (lambda: Ship.objects.all(), {"speed": 7}),
            (lambda: Ship.objects.filter(speed=1), {"speed": 7}),
            (lambda: Ship.objects.order_by("-name"), {"speed": F("tonnage") + 1}),
            (lambda: Ship.objects.all(), {"launched": Now()}),
            pytest.param(
                lambda: Ship.objects.all(),
                {"speed": Subquery(Ship.objects.filter(pk=OuterRef("pk")).values("tonnage")[:1])},
                marks=reads_its_own_table,
            ),
            (
                lambda: Ship.objects.all(),
                {"speed": Coalesce(Subquery(Berth.objects.values("number")[:1]), 7)},
            ),
            (lambda: Novel.objects.order_by("title"), {"title": "a", "plot": "b"}),
            (lambda: Cargo.objects.all(), {"weight": F("amount") + 1}),
            pytest.param(
                lambda: Ship.objects.annotate(hands=Count("crew")).filter(hands=0),
                {"speed": 7},
                marks=reads_its_own_table,
            ),
        ],
    )
    def test_it_takes_no_more_statements_than_are_said(self, queryset: Any, values: dict[str, Any]) -> None:
        ships(1, 2, 3, 4, 5)
        rows(Cargo, {}, {}, {})
        for title in "abc":
            with no_bulk_signals():
                Novel.objects.create(title=title)
        found = explain(queryset(), **values)
        with CaptureQueriesContext(connection) as queries:
            assert queryset().update(**values) == found.rows
        ends = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
        executed = [query["sql"] for query in queries]
        counted = [sql for sql in executed if not sql.startswith(ends)]
        assert found.statements is not None
        assert len(counted) <= found.statements <= len(counted) + found.batches + 2

    @pytest.mark.parametrize("count", [0, 5])
    @pytest.mark.parametrize(
        "queryset",
        [
            lambda: Ship.objects.select_related("berth__port"),
            lambda: Ship.objects.order_by("-name").select_related("berth__port"),
            lambda: Ship.objects.prefetch_related(Prefetch("crew", Sailor.objects.prefetch_related("ship"))),
            lambda: Ship.objects.prefetch_related("berth").extra(where=["1 = 1"]),
        ],
    )
    def test_the_statements_that_load_related_objects_are_counted(self, queryset: Any, count: int) -> None:
        berths = rows(Berth, *({"number": number, "port": port} for number, port in self._ports(count)))
        fleet = rows(Ship, *({"speed": berth.number, "berth": berth} for berth in berths))
        rows(Sailor, *({"ship": ship, "name": "a"} for ship in fleet))
        enable(batch_size=2, prefetch=["berth__port", "crew"])
        found = explain(queryset(), name="z")
        with CaptureQueriesContext(connection) as queries:
            assert queryset().update(name="z") == found.rows == count
        executed = [query["sql"] for query in queries]
        counted = [sql for sql in executed if not sql.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]
        assert found.statements is not None
        assert len(counted) <= found.statements <= len(counted) + found.batches + 2

    def _ports(self, count: int) -> list[tuple[int, Port]]:
        return list(enumerate(rows(Port, *({"code": str(number)} for number in range(count)))))

    @pytest.mark.parametrize(
        ("queryset", "values", "reason"),
        [
            (lambda: Logbook.objects.all(), {"page": 1}, "from_db() of Logbook"),
            (lambda: Book.objects.select_related("publisher"), {"title": "a"}, "select_related()"),
            (lambda: Publisher.objects.create().books.all(), {"title": "a"}, "a fetch mode, known related"),
        ],
    )
    def test_it_says_why_instances_take_longer_to_load(
        self, queryset: Any, values: dict[str, Any], reason: str
    ) -> None:
        (why,) = explain(queryset(), **values).slow_loading
        assert why.startswith(reason)

    def test_receivers_of_post_init_make_loading_slow(self, receivers: Receivers) -> None:
        receivers.connect(post_init, receiver, Book)
        found = explain(Book.objects.values("title"), title="a")
        assert found.slow_loading == ["receivers of post_init", "the queryset's own instances"]
        assert "  slow loading receivers of post_init" in str(found)

    def test_what_django_refuses_is_refused(self) -> None:
        with pytest.raises(TypeError, match="Cannot update a query once a slice has been taken"):
            explain(Book.objects.all()[:5], title="a")
        with pytest.raises(FieldDoesNotExist):
            explain(Book.objects.all(), titel="a")

    def test_sentrys_spans_give_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        integration = types.SimpleNamespace(signals_spans=True)
        client = types.SimpleNamespace(get_integration=lambda name: integration)
        monkeypatch.setitem(sys.modules, "sentry_sdk", types.SimpleNamespace(get_client=lambda: client))
        assert "  warning      Sentry records each call" in str(explain(Book.objects.all(), title="a"))
        integration.signals_spans = False
        assert explain(Book.objects.all(), title="a").warnings == []


@pytest.mark.parametrize("delete_batch_size", [None, 2])
def test_a_delete(delete_batch_size: int | None, receivers: Receivers) -> None:
    receivers.connect(post_delete, receiver, Book)
    rows(Book, {}, {}, {})
    enable(delete_batch_size=delete_batch_size)
    found = explain(Book.objects.all(), "delete")
    assert found.receivers == {"post_delete": ["tests.test_explaining.receiver"]}
    assert (found.rows, found.batches, found.statements) == (3, 2 if delete_batch_size else 1, None)
    disable()
    assert explain(Book.objects.all(), "delete").sends


@pytest.mark.parametrize(
    ("queryset", "message"),
    [
        (lambda: Book.objects.values("title"), r"Cannot call delete\(\) after \.values\(\)"),
        (lambda: Book.objects.all()[:5], "Cannot use 'limit' or 'offset' with delete"),
        (lambda: Book.objects.distinct("title"), r"Cannot call delete\(\) after \.distinct"),
        (lambda: Book.objects.union(Book.objects.all()), r"delete\(\) after union\(\) is not supported"),
    ],
)
@pytest.mark.parametrize("on", [True, False])
def test_what_djangos_delete_refuses_is_refused(on: bool, queryset: Any, message: str) -> None:
    if on:
        enable(delete_batch_size=2)
    with CaptureQueriesContext(connection) as queries:
        with pytest.raises((TypeError, NotSupportedError), match=message):
            queryset().delete()
        with pytest.raises((TypeError, NotSupportedError), match=message):
            explain(queryset(), "delete")
    assert not queries


def test_a_delete_takes_no_values() -> None:
    with pytest.raises(TypeError, match="a delete takes no values, but these are given: title, price"):
        explain(Book.objects.all(), "delete", title="a", price=3)


def test_without_values_nothing_is_executed(receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Book)
    rows(Book, {}, {})
    enable()
    found = explain(Book.objects.all())
    assert (found.sends, found.rows, found.batches, found.statements) == (False, 2, 0, 0)
    assert "  warning      without values, update() executes nothing" in str(found).splitlines()
    with CaptureQueriesContext(connection) as queries:
        assert Book.objects.update() == 0
    assert not queries


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Book, r"takes a queryset or a manager; give one, such as Book\.objects\.all\(\)"),
        (Model, r"such as Model\.objects\.all\(\)"),
        (Book(), "takes a queryset or a manager; Book is neither"),
        ("tests.Book", "str is neither"),
    ],
)
def test_what_is_no_queryset_is_refused(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        explain(given, title="a")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", ["update", "delete"])
def test_a_queryset_that_locks_is_explained_outside_a_transaction(operation: Any) -> None:
    rows(Book, {}, {})
    values = {"title": "a"} if operation == "update" else {}
    assert explain(Book.objects.select_for_update(), operation, **values).rows == 2


def test_a_polymorphic_model_has_the_receivers_of_its_subclasses(receivers: Receivers) -> None:
    receivers.connect(pre_save, receiver, Crane)
    found = explain(Machine.objects.all(), name="b")
    assert found.receivers == {"pre_save": ["tests.test_explaining.receiver"]}


def test_another_operation_is_an_error() -> None:
    wrong: Any = "bulk_update"
    with pytest.raises(ValueError, match=r"explain\(\) knows the operations 'update', 'delete', not 'bulk_u"):
        explain(Book.objects.all(), wrong)
