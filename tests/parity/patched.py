"""The other side of the comparison: the call itself, with the patch on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signal_patch import bulk_signals
from tests.parity.oracle import outcome
from tests.parity.receivers import Receivers

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from tests.parity.comparison import Outcome
    from tests.parity.scenario import Call


def observed(scenario: Call) -> Outcome:
    """Return what the call does."""
    receivers = receiving(scenario)

    def run() -> int:
        with receivers.connected():
            return switched_on(scenario)

    return outcome(scenario, run, receivers)


def receiving(scenario: Call) -> Receivers:
    def update(queryset: QuerySet[Any], values: dict[str, Any]) -> int:
        return queryset.update(**values)

    return Receivers(scenario.model, scenario.alias, scenario.hearing, update, scenario.loads)


def switched_on(scenario: Call) -> int:
    options: dict[str, Any] = {
        "write_back": scenario.write_back,
        "lock": scenario.lock,
        "atomic": scenario.atomic,
    }
    if scenario.batched:
        options |= {"batch_inserts": ["tests", "parity"], "batch_reads": scenario.lock}
    with bulk_signals(batch_size=scenario.batch_size, **options):
        return scenario.call()
