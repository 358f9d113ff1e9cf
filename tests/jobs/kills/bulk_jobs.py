from __future__ import annotations

from tests.jobs.bulk_jobs import Retire


class RetireSlowly(Retire):
    """Its rows stop matching the filter; its steps are short, so that many are killed."""

    name = "kills.RetireSlowly"
    first_step = 50
    target_seconds = 0.3
