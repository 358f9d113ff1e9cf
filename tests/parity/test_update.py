from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given

from tests.parity.comparison import differences
from tests.parity.oracle import expected, undone
from tests.parity.patched import observed
from tests.parity.profiles import share
from tests.parity.rows import load
from tests.parity.scenario import Update
from tests.parity.strategies import updates

pytestmark = pytest.mark.django_db(databases=["default", "other"])

# Receivers that change other rows would change which rows a later batch has.
OF_ONE_ROW = ("set", "append", "distinguish")


@given(updates())
def test_update_does_what_the_loop_does(scenario: Update) -> None:
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        assert not differences(scenario, expected(scenario), observed(scenario))


@share(2)
@given(updates())
def test_update_does_it_batch_by_batch_too(scenario: Update) -> None:
    actions = tuple(action for action in scenario.hearing.actions if action.kind in OF_ONE_ROW)
    hearing = replace(scenario.hearing, actions=actions)
    scenario = replace(scenario, atomic=False, order=(), hearing=hearing, total_order=True)
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        seen = observed(scenario)
        assume("not possible with atomic=False" not in str(seen.error))
        assert not differences(scenario, expected(scenario), seen)
