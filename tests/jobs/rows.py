"""Rows for the tests of jobs, and what the ledger says."""

from __future__ import annotations

from typing import Any

from signal_patch.contrib.jobs.models import Job, Lane
from signal_patch.contrib.jobs.working import Outcome, work
from tests.jobs.models import Audit, Item


def items(count: int, **values: Any) -> list[Item]:
    # Not at the top: the workers that are killed have only the models of jobs.
    from tests.fleet import rows

    return rows(Item, *(values for _ in range(count)))


def write_audit(instance: Item, **_: Any) -> None:
    Audit.objects.create(item=instance.pk, n=instance.n)


def counts(model: Any = Item) -> list[int]:
    """Return how often each row has been changed, in the order of the key."""
    return list(model.objects.order_by("pk").values_list("n", flat=True))


def audits() -> list[tuple[int, int]]:
    return sorted(Audit.objects.values_list("item", "n"))


def finish(job: Job) -> Outcome:
    """Work on a job until nothing is left of it or it has stopped."""
    outcomes = (work(job.pk, seconds=0) for _ in range(1000))
    outcome = next(outcome for outcome in outcomes if not outcome.is_left)
    job.refresh_from_db()
    return outcome


def only_lane(job: Job) -> Lane:
    return Lane.objects.get(job=job)
