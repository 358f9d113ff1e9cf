from __future__ import annotations

import pytest

from tests.parity.cases import CASES
from tests.parity.comparison import differences
from tests.parity.oracle import expected, is_undecided, statement, undone
from tests.parity.patched import observed
from tests.parity.rows import load
from tests.parity.scenario import Given, step

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.mark.parametrize("case", CASES)
def test_the_loop_and_the_library_agree_on(case: str) -> None:
    scenario = CASES[case]
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        if is_undecided(scenario, statement(scenario)):
            pytest.skip("Django's own statement fails on this database")
        assert not differences(scenario, expected(scenario), observed(scenario))


def test_an_example_prints_as_the_call_that_it_is() -> None:
    assert repr(step("filter", 1, rank=Given(2))) == ".filter(1, rank=2)"
