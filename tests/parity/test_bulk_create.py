from __future__ import annotations

import pytest
from django.db import connections
from django.db.models import Model
from hypothesis import example, given

from tests.parity import particular
from tests.parity.comparison import differences
from tests.parity.creating import Creation, expected
from tests.parity.creations import creations
from tests.parity.models import Cargo, Vessel, Wide
from tests.parity.oracle import undone
from tests.parity.patched import observed
from tests.parity.renumbering import alike, renumbered
from tests.parity.rows import load
from tests.parity.scenario import Hearing
from tests.parity.typed_models import Horse, Wagon

pytestmark = pytest.mark.django_db(databases=["default", "other"])

# Higher than any key of an example.
FIRST_NEW_KEY = 1000


@pytest.fixture(autouse=True)
def _new_keys_keep_clear_of_given_ones(db: None) -> None:
    """PostgreSQL is the only database that does not take care of this by itself."""
    for alias in ("default", "other"):
        if connections[alias].vendor == "postgresql":
            with connections[alias].cursor() as cursor:
                models: list[type[Model]] = [Cargo, Vessel, Wide, Wagon, Horse, *particular.MODELS]
                for model in models:
                    sequence = "pg_get_serial_sequence(%s, 'id')"
                    cursor.execute(
                        f"SELECT setval({sequence}, GREATEST({FIRST_NEW_KEY}, nextval({sequence})))",
                        [model._meta.db_table] * 2,
                    )


_target = connections["default"].features.supports_update_conflicts_with_target
# On PostgreSQL one statement cannot write a row twice.
TWICE = Creation(
    model=Wide,
    alias="default",
    seeds=[0],
    hearing=Hearing(),
    batch_size=1,
    values=({"id": 1, "rank": 5}, {"id": 1, "rank": 7}),
    arguments={
        "update_conflicts": True,
        "update_fields": ["rank"],
        **({"unique_fields": ["pk"]} if _target else {}),
    },
)


@given(creations())
@example(TWICE)
def test_bulk_create_does_what_the_loop_does(scenario: Creation) -> None:
    with undone(scenario.alias):
        load(scenario.model, scenario.alias, scenario.seeds)
        runs = (
            renumbered(run, scenario.model, scenario.known_keys())
            for run in (expected(scenario), observed(scenario))
        )
        assert not differences(scenario, *alike(scenario.model, *runs))
