from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given, strategies as st

from signal_patch import bulk_signals
from tests.parity.deleting import SIGNALS, Deletion, differences, run, tables_of
from tests.parity.deletion_models import Bud, Bug, Leaf, Node
from tests.parity.oracle import undone
from tests.parity.profiles import share
from tests.parity.receivers import Boom
from tests.parity.rows import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import Model

    from tests.parity.deleting import Received, Run

pytestmark = pytest.mark.django_db(databases=["default", "other"])
MODELS = (Node, Leaf, Bud, Bug)
DELETES = {"pre_delete", "post_delete"}
SAVES = {"pre_save", "post_save"}

AnyDeletion = TypeVar("AnyDeletion", bound=Deletion)


@st.composite
def deletions(
    draw: st.DrawFn, kind: type[AnyDeletion], models: Sequence[type[Model]], senders: Sequence[type[Model]]
) -> AnyDeletion:
    """Draw a delete of rows of one of the models, with receivers of all senders or of one."""
    seeds = st.lists(st.integers(0, 999), min_size=1, max_size=5)
    heard = st.sampled_from([set(SIGNALS)] * 5 + [DELETES, SAVES, {"pre_save"}, {"post_save", "post_delete"}])
    return kind(
        model=draw(st.sampled_from(models)),
        alias=draw(st.sampled_from(["default", "default", "default", "other"])),
        nodes=draw(seeds),
        leaves=draw(seeds),
        chosen=draw(st.frozensets(st.integers(1, 5), min_size=1, max_size=4)),
        of_queryset=draw(st.booleans()),
        signals=frozenset(draw(heard)),
        sender=draw(st.sampled_from([None, None, None, *senders])),
        batch_size=draw(st.integers(1, 3) | st.just(2000)),
        note=draw(st.sampled_from([None, None, "set"])),
    )


def switched_on(scenario: Deletion) -> object:
    with bulk_signals(batch_size=scenario.batch_size):
        return scenario.call()


deletions_in_python = deletions(Deletion, [Node, Node, Node, Leaf, Bud, Bug], MODELS)


@share(2)
@given(deletions_in_python)
def test_delete_sends_signals_for_what_it_removes_and_what_it_changes(scenario: Deletion) -> None:
    with undone(scenario.alias):
        scenario.load()
        before = tables_of(MODELS, scenario.alias)
        django = run(scenario, MODELS, scenario.call)
        seen = run(scenario, MODELS, lambda: switched_on(scenario))
        assert not list(differences(scenario, before, django, seen))


@share(10)
@given(deletions_in_python, st.integers(1, 12))
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


SCENARIO = Deletion(
    model=Node,
    alias="default",
    nodes=[0, 0],
    leaves=[2, 3, 5, 8, 9],
    chosen=frozenset({1, 2}),
    of_queryset=True,
    signals=frozenset(SIGNALS),
    sender=None,
    batch_size=2000,
)


def with_received(signal: str, doctor: Callable[[Received], list[Received]]) -> Callable[[Run], Run]:
    """Return a function that replaces the first such signal by others."""

    def doctored(seen: Run) -> Run:
        place = [received.signal for received in seen.log].index(signal)
        return replace(seen, log=[*seen.log[:place], *doctor(seen.log[place]), *seen.log[place + 1 :]])

    return doctored


def with_argument(signal: str, name: str, value: object) -> Callable[[Run], Run]:
    return with_received(signal, lambda seen: [replace(seen, arguments={**seen.arguments, name: value})])


def _moved(signal: str, where: slice) -> Callable[[Run], Run]:
    """Return a function that moves the first such signal."""

    def doctored(seen: Run) -> Run:
        log = list(seen.log)
        first = log.pop([received.signal for received in log].index(signal))
        log[where] = [first]
        return replace(seen, log=log)

    return doctored


FIRST, LAST = slice(0, 0), slice(10_000, None)


def _cell(name: str, value: object) -> Callable[[Run], Run]:
    def doctored(seen: Run) -> Run:
        rows = seen.tables[Leaf]
        key = min(rows)
        return replace(seen, tables={**seen.tables, Leaf: {**rows, key: {**rows[key], name: frozen(value)}}})

    return doctored


WRONG: dict[str, Callable[[Run], Run]] = {
    **{f"a {signal} is missing": with_received(signal, lambda received: []) for signal in SIGNALS},
    **{
        f"a {signal} comes twice": with_received(signal, lambda received: [received, received])
        for signal in SIGNALS
    },
    "a removed row sends a save": with_received(
        "pre_save", lambda received: [received, replace(received, sender=Node, key=1)]
    ),
    "a row that is not changed sends a save": with_received(
        "pre_save", lambda received: [received, replace(received, key=99)]
    ),
    "update_fields is a list": with_received(
        "pre_save",
        lambda received: [
            replace(
                received,
                arguments={**received.arguments, "update_fields": list(received.arguments["update_fields"])},
            )
        ],
    ),
    "update_fields names another field": with_argument("post_save", "update_fields", frozenset({"note"})),
    "created is true": with_argument("post_save", "created", True),
    "the database is another": with_argument("pre_save", "using", "other"),
    "the origin is another": with_argument("pre_delete", "origin", Node),
    "the sender is another": with_received("pre_save", lambda received: [replace(received, sender=Bug)]),
    "an instance is not whole": with_received("pre_save", lambda received: [replace(received, fields={})]),
    "a receiver sees another value": with_received(
        "post_save",
        lambda received: [replace(received, fields={**received.fields, "note": frozen("another")})],
    ),
    "a row is saved before all deletes are announced": _moved("pre_save", FIRST),
    "a row is saved after the deletes": _moved("post_save", LAST),
    "post_save comes first": lambda seen: replace(seen, log=_exchanged(seen.log)),
    "a row is not changed": _cell("defaulted_id", 1),
    "another column is changed": _cell("note", "another"),
    "a row is lost": lambda seen: replace(seen, tables={**seen.tables, Bug: {}}),
    "the count is another": lambda seen: replace(seen, result=(1, {})),
}


def _exchanged(log: list[Received]) -> list[Received]:
    """Return the log with the saves of the first changed row in exchanged order."""
    names = [seen.signal for seen in log]
    pre, post = names.index("pre_save"), names.index("post_save")
    return [*log[:pre], log[post], *log[pre + 1 : post], log[pre], *log[post + 1 :]]


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_notices_that(wrong: str) -> None:
    with undone("default"):
        SCENARIO.load()
        before = tables_of(MODELS, "default")
        django = run(SCENARIO, MODELS, SCENARIO.call)
        seen = run(SCENARIO, MODELS, lambda: switched_on(SCENARIO))
        assert not list(differences(SCENARIO, before, django, seen))
        assert list(differences(SCENARIO, before, django, WRONG[wrong](seen)))
