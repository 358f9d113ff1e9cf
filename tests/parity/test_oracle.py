"""The oracle is checked against the bare loop, and its comparison against outcomes that are wrong."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import DatabaseError, IntegrityError, OperationalError, ProgrammingError
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import given, strategies as st

from tests.database import is_mysql
from tests.parity.comparison import Near, Outcome, differences
from tests.parity.fields import put
from tests.parity.models import EPOCH, Ship, concrete_fields
from tests.parity.oracle import expected, is_undecided, outcome, statement, undone
from tests.parity.patched import observed, receiving
from tests.parity.profiles import share
from tests.parity.rows import frozen, load, saved_pool, ship_id
from tests.parity.scenario import Given, Hearing, Update, step
from tests.parity.strategies import MODELS, orders, some_fields, updates
from tests.parity.values import constants, expressions, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.parity.receivers import Sent

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def bare_loop(scenario: Update) -> Outcome:
    """The contract's loop exactly as written; constants only, one row after another."""
    receivers = receiving(scenario)
    values = {name: given.value for name, given in scenario.values.items()}
    fields = [scenario.model._meta.get_field(name).name for name in values]

    def run() -> int:
        rows = scenario.rows()
        loaded = {obj.pk: obj for obj in rows.order_by(*rows.query.order_by, "pk")}
        with receivers.connected():
            for obj in loaded.values():
                for name, value in values.items():
                    put(obj, name, value)
                obj.save(update_fields=fields)
        return len(loaded)

    return outcome(scenario, run, receivers)


def without_generated(scenario: Update, found: Outcome) -> Outcome:
    """Leave out generated columns: a saved instance has the old value, the new one, or none."""
    fields = scenario.model._meta.concrete_fields
    kept = {field.attname for field in fields if not field.generated}
    log = [
        replace(sent, fields={name: value for name, value in sent.fields.items() if name in kept})
        for sent in found.log
    ]
    return replace(found, log=log)


@st.composite
def plain_updates(draw: st.DrawFn) -> Update:
    scenario = draw(updates())
    model = scenario.model
    fields = [field for field in draw(some_fields(model)) if not field.unique and field.name != "touched"]
    return replace(
        scenario,
        annotations=(),
        order=draw(st.sampled_from([(), *((order,) for order in orders(model)[:6])])),
        looks=(),
        values={
            "note": Given("new"),
            **{field.attname: Given(draw(st.sampled_from(saved_pool(field)))) for field in fields},
        },
        hearing=Hearing(sender=scenario.hearing.sender),
        batch_size=1,
        total_order=True,
    )


@share(4)
@given(plain_updates())
def test_the_oracle_says_what_the_bare_loop_shows(scenario: Update) -> None:
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        wanted, seen = (
            without_generated(scenario, found) for found in (expected(scenario), bare_loop(scenario))
        )
        # MySQL's UPDATE cannot read the table that it writes; a loop can.
        is_refused = is_mysql() and isinstance(wanted.error, OperationalError)
        assert is_refused or not differences(scenario, wanted, seen)


SCENARIO = Update(
    model=Ship,
    alias="default",
    seeds=(1, 2, 3),
    hearing=Hearing(),
    batch_size=1,
    order=(step("order_by", "-pk"),),
    values={"note": Given("new"), "price": Given(Decimal("15.00")), "home_id": Given("C")},
)


def _at(found: Outcome, number: int, doctor: Callable[[Sent], Sent]) -> Outcome:
    log = list(found.log)
    log[number] = doctor(log[number])
    return replace(found, log=log)


def _field(signal: int, name: str, value: Any) -> Callable[[Outcome], Outcome]:
    return lambda found: _at(
        found, signal, lambda sent: replace(sent, fields={**sent.fields, name: frozen(value)})
    )


def _argument(signal: int, name: str, value: Any) -> Callable[[Outcome], Outcome]:
    return lambda found: _at(
        found, signal, lambda sent: replace(sent, arguments={**sent.arguments, name: value})
    )


def _cell(name: str, value: Any) -> Callable[[Outcome], Outcome]:
    def doctor(found: Outcome) -> Outcome:
        rows = found.tables["Ship"]
        key = str(ship_id(2))
        return replace(
            found, tables={**found.tables, "Ship": {**rows, key: {**rows[key], name: frozen(value)}}}
        )

    return doctor


WRONG: dict[str, Callable[[Outcome], Outcome]] = {
    "a signal is missing": lambda found: replace(found, log=found.log[:-1]),
    "a row is visited twice": lambda found: replace(found, log=[*found.log, *found.log[-2:]]),
    "the order is another": lambda found: replace(found, log=[*found.log[2:], *found.log[:2]]),
    "post_save comes first": lambda found: replace(found, log=[found.log[1], found.log[0], *found.log[2:]]),
    "the rows of a batch are announced together": lambda found: replace(
        found, log=[found.log[number] for number in (0, 2, 1, 3, 4, 5)]
    ),
    "the sender is another": lambda found: _at(found, 0, lambda sent: replace(sent, sender="Yacht")),
    "update_fields is a list": _argument(0, "update_fields", ("list", ["home", "note", "price"])),
    "update_fields names the column": _argument(
        1, "update_fields", ("frozenset", ["home_id", "note", "price"])
    ),
    "created is true": _argument(1, "created", True),
    "the database is another": _argument(0, "using", "other"),
    "pre_save sees the old value": _field(0, "note", ""),
    "pre_save sees an expression": _field(0, "note", F("note")),
    "a key is text": _field(0, "registry_id", "1"),
    "a decimal has lost its scale": _field(0, "price", Decimal(15)),
    "post_save sees another value": _field(1, "rank", 1000),
    "another instance comes to post_save": lambda found: _at(
        found, 1, lambda sent: replace(sent, honest={**sent.honest, "it is the object of pre_save": False})
    ),
    "the instance is not whole": lambda found: _at(found, 0, lambda sent: replace(sent, fields={})),
    "the row is not written": _cell("note", ""),
    "another column is written": _cell("state", "written"),
    "a row is lost": lambda found: replace(found, tables={**found.tables, "Ship": {}}),
    "the number of rows is another": lambda found: replace(found, result=2),
    "an exception comes from nowhere": lambda found: replace(found, error=ValueError("no")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_notices_that(wrong: str) -> None:
    with undone("default"):
        load(Ship, "default", SCENARIO.seeds)
        wanted = without_generated(SCENARIO, expected(SCENARIO))
        seen = without_generated(SCENARIO, bare_loop(SCENARIO))
        assert not differences(SCENARIO, wanted, seen)
        assert differences(SCENARIO, wanted, WRONG[wrong](seen))


def test_the_comparison_notices_another_message() -> None:
    scenario = replace(SCENARIO, values={"nowhere": Given(1)})
    wanted = expected(scenario)
    assert not differences(scenario, wanted, wanted)
    assert differences(scenario, wanted, replace(wanted, error=FieldDoesNotExist("other")))


def test_the_comparison_lets_a_refusal_of_djangos_come_before_one_of_the_database() -> None:
    outcome = expected(replace(SCENARIO, values={"nowhere": Given(1)}))
    late, early = (replace(outcome, error=error("no")) for error in (DatabaseError, FieldError))
    assert not differences(SCENARIO, late, early)
    assert differences(SCENARIO, early, late)


def test_the_comparison_lets_batches_meet_another_refusal_of_the_database_first() -> None:
    outcome = expected(replace(SCENARIO, values={"nowhere": Given(1)}))
    one, other = (replace(outcome, error=error("no")) for error in (ProgrammingError, IntegrityError))
    assert not differences(SCENARIO, one, other)
    assert differences(replace(SCENARIO, batch_size=Update.batch_size), one, other)


def test_what_django_writes_and_cannot_read_is_undecided() -> None:
    with undone("default"):
        load(Ship, "default", SCENARIO.seeds)
        written = statement(SCENARIO)
    assert not is_undecided(SCENARIO, written)
    assert is_undecided(SCENARIO, replace(written, error=InvalidOperation()))


def test_the_comparison_notices_a_volatile_value_that_is_not_the_rows() -> None:
    scenario = replace(SCENARIO, values={"touched": Given(Now(), volatile=True)})
    with undone("default"):
        load(Ship, "default", SCENARIO.seeds)
        wanted, seen = expected(scenario), observed(scenario)
        assert not differences(scenario, wanted, seen)
        assert differences(scenario, wanted, _field(1, "touched", EPOCH)(seen))


@pytest.mark.parametrize(
    ("seen", "allowed"),
    [
        (Decimal("1.23"), True),
        (Decimal("1.234"), True),
        (Decimal("1.230"), False),
        (Decimal("1.3"), False),
        (1.23, False),
    ],
)
def test_a_decimal_may_not_be_rounded_yet_but_not_lose_its_scale(seen: object, allowed: bool) -> None:
    assert Near(Decimal("1.23")).allows(frozen(seen)) is allowed


@pytest.mark.parametrize(("seen", "allowed"), [(0.1 + 0.2, True), (0.31, False)])
def test_a_float_may_differ_in_its_last_digits(seen: float, allowed: bool) -> None:
    assert Near(0.3).allows(frozen(seen)) is allowed


@pytest.mark.parametrize("model", MODELS)
def test_there_are_values_of_every_sort_for_every_field(model: Any) -> None:
    for field in concrete_fields(model):
        assert constants(field)
        assert refused(field)
        assert expressions(model, field) or field.unique or field.name == "memo"
