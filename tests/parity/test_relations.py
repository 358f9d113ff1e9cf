from __future__ import annotations

import pytest
from hypothesis import given

from tests.parity.comparison import differences
from tests.parity.oracle import expected, undone
from tests.parity.patched import observed
from tests.parity.profiles import share
from tests.parity.relating import Relating, relatings
from tests.parity.rows import load

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@share(4)
@given(relatings())
def test_related_managers_and_orders_do_what_the_loop_does(scenario: Relating) -> None:
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        assert not differences(scenario, expected(scenario), observed(scenario))
