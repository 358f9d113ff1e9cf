from __future__ import annotations

import pytest
from hypothesis import assume, given

from tests.parity.oracle import differences, expected, undone
from tests.parity.patched import observed
from tests.parity.profiles import share
from tests.parity.rows import load
from tests.parity.scenario import BulkUpdate
from tests.parity.strategies import bulk_updates

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@share(2)
@given(bulk_updates())
def test_bulk_update_does_what_the_loop_does(scenario: BulkUpdate) -> None:
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        wanted = expected(scenario)
        assume(wanted)
        assert not differences(scenario, wanted, observed(scenario))
