from __future__ import annotations

import pytest
from hypothesis import assume, given

from tests.parity.oracle import differences, expected, undone
from tests.parity.patched import observed
from tests.parity.rows import load
from tests.parity.scenario import Update
from tests.parity.strategies import updates

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@given(updates())
def test_update_does_what_the_loop_does(scenario: Update) -> None:
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        wanted = expected(scenario)
        assume(wanted)
        assert not differences(scenario, wanted, observed(scenario))
