"""How far a job is, how fast it goes, and how long the rest will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils import timezone

from signal_patch.contrib.jobs.lanes import JobScale
from signal_patch.contrib.jobs.models import IDLE_AFTER, Job

if TYPE_CHECKING:
    from signal_patch.contrib.jobs.models import Lane


@dataclass(frozen=True)
class LaneProgress:
    lane: Lane
    # The processed share of the lane, from 0 to 1.
    share: float

    @property
    def percent(self) -> int:
        return int(self.share * 100)


@dataclass(frozen=True)
class Progress:
    """A job's progress, computed without reading the rows: shares are of the range of keys, not of the rows.

    `rate` is in rows per second. `seconds_left` is an estimate for the current number of workers. Both are
    None while nobody works.
    """

    share: float
    rows: int
    failed: int
    rate: float | None
    seconds_left: float | None
    lanes: list[LaneProgress]

    def __str__(self) -> str:
        shown = f"{self.share:.1%}, {self.rows} rows"
        if self.failed:
            shown += f", {self.failed} failed"
        if self.rate is not None and self.seconds_left is not None:
            shown += f", {self.rate:.0f} rows/s, {self.seconds_left:.0f} s left"
        return shown


def progress_of(job: Job) -> Progress:
    """Return a job's progress, from its lanes alone."""
    lanes = list(job.lanes.order_by("pk"))
    scale = JobScale(job)
    left = sum(map(scale.remaining, lanes))
    share = 1.0 if job.status == Job.Status.DONE else max(0.0, 1.0 - left)
    rows = sum(lane.rows for lane in lanes)
    seconds = sum(lane.seconds for lane in lanes)
    workers = sum(map(_is_active, lanes)) if job.status == Job.Status.RUNNING else 0
    is_measured = bool(workers and seconds and share)
    return Progress(
        share=share,
        rows=rows,
        failed=job.failed_rows.count(),
        rate=rows / seconds * workers if is_measured else None,
        seconds_left=left / share * seconds / workers if is_measured else None,
        lanes=[LaneProgress(lane, _share(lane, scale)) for lane in lanes],
    )


def _is_active(lane: Lane) -> bool:
    return not lane.done and lane.stepped is not None and lane.stepped > timezone.now() - IDLE_AFTER


def _share(lane: Lane, scale: JobScale) -> float:
    if lane.done:
        return 1.0
    whole = scale.width(lane)
    return 1.0 - scale.remaining(lane) / whole if whole else 0.0
