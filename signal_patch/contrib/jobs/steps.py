"""A step: the next rows of a lane and the lane's cursor, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import F
from django.utils import timezone

from signal_patch.contrib.jobs import databases, pace
from signal_patch.contrib.jobs.keys import from_text, to_text
from signal_patch.contrib.jobs.models import Job, Lane
from signal_patch.contrib.jobs.signals import job_progressed

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from signal_patch.contrib.jobs.definitions import BulkJob
    from signal_patch.contrib.jobs.operations import Operation


class Result(Enum):
    MOVED = "moved"
    # Another worker has the lane, or has moved its cursor meanwhile.
    TAKEN = "taken"
    STOPPED = "stopped"


@dataclass(repr=False)
class Step:
    """One step of a lane.

    `limit` is used to find a row that fails: the step changes at most this many rows, and only if the lane's
    cursor is still at `cursor`. If `run()` raises, the transaction has been rolled back. Then `keys` has the
    keys after the cursor, and the step tried the first `size` of them.
    """

    definition: BulkJob
    job_id: int
    lane_id: int
    using: str
    worker: str
    limit: int | None = None
    cursor: str | None = None
    keys: QuerySet[Any, Any] | None = None
    size: int = 0
    end: str | None = None

    def run(self) -> Result:
        """Run the step and commit it. Errors of receivers and of the database are not caught."""
        began = monotonic()
        with transaction.atomic(using=self.using, durable=True):
            lane = self.lock()
            if lane is None:
                return Result.TAKEN
            job = lane.job
            if job.status != Job.Status.RUNNING:
                return Result.STOPPED
            operation = self.definition.operation(job.parameters)
            if operation.fingerprint() != job.fingerprint:
                self._halt(job)
                return Result.STOPPED
            rows = self._change(lane, operation)
            seconds = monotonic() - began
            self._move(lane, rows, seconds)
        job_progressed.send_robust(
            type(self.definition),
            job_id=job.pk,
            lane_id=lane.pk,
            rows=rows,
            seconds=seconds,
            is_lane_done=self.end == lane.upto,
        )
        return Result.MOVED

    def lock(self) -> Lane | None:
        """Lock and return the lane, or return None if it is done or another worker has locked or moved it."""
        lanes = Lane.objects.using(self.using).filter(pk=self.lane_id, done=False)
        connection = connections[self.using]
        databases.begin_step(connection, self.definition.idle_seconds)
        skip_locked = connection.features.has_select_for_update_skip_locked
        lane = lanes.select_for_update(skip_locked=skip_locked).first()
        if lane is None or (self.limit is not None and lane.cursor != self.cursor):
            return None
        self.cursor = lane.cursor
        return lane

    def first_key(self) -> str | None:
        """Return the key of the first row after the cursor."""
        key = None if self.keys is None else self.keys.first()
        return None if key is None else to_text(key)

    def _halt(self, job: Job) -> None:
        """Stop the job, whose SQL has changed since its start, until somebody confirms the new SQL."""
        Job.objects.using(self.using).filter(pk=job.pk, status=Job.Status.RUNNING).update(
            status=Job.Status.CHANGED,
            error=(
                "The SQL of the job differs from what it was at the start. "
                f"`bulk_jobs resume {job.pk}` shows it; `bulk_jobs resume {job.pk} --confirm` accepts it."
            ),
        )

    def _change(self, lane: Lane, operation: Operation) -> int:
        model = operation.model
        self.size = self.limit or lane.step_size
        after = None if lane.cursor is None else from_text(model, lane.cursor)
        upto = from_text(model, lane.upto)
        self.keys = keys = operation.keys_between(after, upto)
        last = list(keys[self.size - 1 : self.size])
        if last:
            upto, self.end = last[0], to_text(last[0])
        else:
            self.size, self.end = keys.count(), lane.upto
        return operation.run(operation.between(after, upto))

    def _move(self, lane: Lane, rows: int, seconds: float) -> None:
        row_seconds = pace.average(lane.row_seconds, rows, seconds)
        values: dict[str, Any] = {
            "cursor": self.end,
            "done": self.end == lane.upto,
            "rows": F("rows") + rows,
            "steps": F("steps") + 1,
            "seconds": F("seconds") + seconds,
            "row_seconds": row_seconds,
            "attempts": 0,
            "error": "",
            "worker": self.worker,
            "stepped": timezone.now(),
        }
        if self.limit is None:
            values["step_size"] = pace.next_size(self.size, row_seconds, self.definition.target_seconds)
        Lane.objects.using(self.using).filter(pk=lane.pk).update(**values)
