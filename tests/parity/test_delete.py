from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from signal_patch import bulk_signals
from tests.parity.deleting import SIGNALS, Deletion, differences, run, tables_of
from tests.parity.deletion_models import Bud, Bug, Leaf, Node
from tests.parity.oracle import undone
from tests.parity.profiles import share
from tests.parity.receivers import Boom

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
