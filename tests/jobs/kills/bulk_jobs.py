from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tests.jobs.bulk_jobs import Retire

if TYPE_CHECKING:
    from signal_patch.options import Keywords


class RetireSlowly(Retire):
    """Its rows stop matching the filter; its steps are short, so that many are killed.

    Small batches make it slow: on a fast machine, too, it must not be done before the last kill.
    """

    name = "kills.RetireSlowly"
    first_step = 50
    target_seconds = 0.3
    signal_options: ClassVar[Keywords] = {"batch_size": 2}
