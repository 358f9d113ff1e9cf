from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from django.db import connections
from hypothesis import given, strategies as st

from tests.parity.comparison import differences
from tests.parity.oracle import expected, undone
from tests.parity.patched import observed, receiving, switched_on
from tests.parity.profiles import share
from tests.parity.rows import emptied, load, tables
from tests.parity.scenario import Action
from tests.parity.strategies import bulk_updates, updates

if TYPE_CHECKING:
    from tests.parity.scenario import Change


@st.composite
def exploding(draw: st.DrawFn) -> Change:
    scenario: Change = draw(updates() | bulk_updates())
    boom = Action("raise", draw(st.sampled_from(["pre", "post"])), call=draw(st.integers(1, 8)))
    hearing = replace(scenario.hearing, actions=(*scenario.hearing.actions, boom))
    return replace(scenario, hearing=hearing)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@share(10)
@given(exploding())
def test_an_exception_from_a_receiver_leaves_no_row_changed_and_no_state_behind(scenario: Change) -> None:
    """Run outside any transaction, so that the call itself must roll back."""
    with emptied(scenario.model, scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        before = tables(scenario.model, scenario.alias)
        receivers = receiving(scenario)
        try:
            with receivers.connected():
                switched_on(scenario)
        except Exception:  # noqa: BLE001  # or what Django refuses
            assert tables(scenario.model, scenario.alias) == before
        assert not connections[scenario.alias].in_atomic_block
        calm = replace(scenario, hearing=replace(scenario.hearing, actions=()))
        with undone(scenario.alias):
            assert not differences(calm, expected(calm), observed(calm))
