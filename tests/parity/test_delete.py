from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from signal_patch import bulk_signals
from tests.parity.deleting import SIGNALS, Deletion, differences, run, tables_of
from tests.parity.deletion_models import Bud, Bug, Leaf, Node
from tests.parity.oracle import undone
from tests.parity.profiles import share
from tests.parity.receivers import Boom

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.parity.deleting import Run, Told

pytestmark = pytest.mark.django_db(databases=["default", "other"])
MODELS = (Node, Leaf, Bud, Bug)
DELETES = {"pre_delete", "post_delete"}
SAVES = {"pre_save", "post_save"}


@st.composite
def deletions(draw: st.DrawFn) -> Deletion:
    seeds = st.lists(st.integers(0, 999), min_size=1, max_size=5)
    heard = st.sampled_from([set(SIGNALS)] * 5 + [DELETES, SAVES, {"pre_save"}, {"post_save", "post_delete"}])
    return Deletion(
        model=draw(st.sampled_from([Node, Node, Node, Leaf, Bud, Bug])),
        alias=draw(st.sampled_from(["default", "default", "default", "other"])),
        nodes=draw(seeds),
        leaves=draw(seeds),
        chosen=draw(st.frozensets(st.integers(1, 5), min_size=1, max_size=4)),
        of_queryset=draw(st.booleans()),
        signals=frozenset(draw(heard)),
        sender=draw(st.sampled_from([None, None, None, *MODELS])),
        batch_size=draw(st.integers(1, 3) | st.just(2000)),
        note=draw(st.sampled_from([None, None, "set"])),
    )


def switched_on(scenario: Deletion) -> object:
    with bulk_signals(batch_size=scenario.batch_size):
        return scenario.call()


@share(2)
@given(deletions())
def test_delete_tells_what_it_removes_and_what_it_changes(scenario: Deletion) -> None:
    with undone(scenario.alias):
        scenario.load()
        before = tables_of(MODELS, scenario.alias)
        django = run(scenario, MODELS, scenario.call)
        seen = run(scenario, MODELS, lambda: switched_on(scenario))
        assert not list(differences(scenario, before, django, seen))


@share(10)
@given(deletions(), st.integers(1, 12))
def test_an_exception_of_a_receiver_leaves_all_as_it_was(scenario: Deletion, number: int) -> None:
    with undone(scenario.alias):
        scenario.load()
        before = tables_of(MODELS, scenario.alias)
        calm = run(scenario, MODELS, lambda: switched_on(scenario))
        seen = run(replace(scenario, boom=number), MODELS, lambda: switched_on(scenario))
        assert seen.log == calm.log[:number]
        if number <= len(calm.log):
            assert isinstance(seen.error, Boom)
            assert seen.tables == before


EXAMPLE = Deletion(
    model=Node,
    alias="default",
    nodes=(0, 0, 0),
    leaves=(1, 2, 3, 4, 5),
    chosen=frozenset({1}),
    of_queryset=True,
    signals=frozenset(SIGNALS),
    sender=None,
    batch_size=2000,
    note="set",
)


def _first(signal: str, doctor: Callable[[Told], Told]) -> Callable[[Run], Run]:
    """Doctor what the first signal of this name said."""

    def doctored(seen: Run) -> Run:
        place = [told.signal for told in seen.log].index(signal)
        return replace(seen, log=[*seen.log[:place], doctor(seen.log[place]), *seen.log[place + 1 :]])

    return doctored


def _argument(signal: str, name: str, value: object) -> Callable[[Run], Run]:
    return _first(signal, lambda told: replace(told, arguments={**told.arguments, name: value}))


def _without(signal: str) -> Callable[[Run], Run]:
    return lambda seen: replace(seen, log=[told for told in seen.log if told.signal != signal])


WRONG: dict[str, Callable[[Run], Run]] = {
    "the number of rows is another": lambda seen: replace(seen, result=(0, {})),
    "no deletes are sent": _without("pre_delete"),
    "no saves are sent": _without("post_save"),
    "a row that is not changed is saved": _first("pre_save", lambda told: replace(told, key=-1)),
    "a row is left": lambda seen: replace(seen, tables={**seen.tables, Node: {}}),
    "the database is another": _argument("pre_save", "using", "other"),
    "created is true": _argument("post_save", "created", True),
    "update_fields is no frozenset": _first(
        "pre_save",
        lambda told: replace(
            told, arguments={**told.arguments, "update_fields": set(told.arguments["update_fields"])}
        ),
    ),
    "the instance holds another value": _first(
        "post_save", lambda told: replace(told, fields={**told.fields, "id": ("int", -1)})
    ),
    "the instance is not whole": _first("post_save", lambda told: replace(told, fields={})),
    "rows are changed before anything is announced": lambda seen: replace(
        seen, log=[*seen.of("pre_save", "post_save"), *seen.of("pre_delete", "post_delete")]
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_notices_that(wrong: str) -> None:
    with undone("default"):
        EXAMPLE.load()
        before = tables_of(MODELS, "default")
        django = run(EXAMPLE, MODELS, EXAMPLE.call)
        seen = run(EXAMPLE, MODELS, lambda: switched_on(EXAMPLE))
        assert not list(differences(EXAMPLE, before, django, seen))
        assert list(differences(EXAMPLE, before, django, WRONG[wrong](seen)))
