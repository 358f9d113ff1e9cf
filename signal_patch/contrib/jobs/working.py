"""Working on a job: what every engine calls."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import Error, connections, router, transaction
from django.db.models import F
from django.db.models.functions import Greatest
from django.utils import timezone

from signal_patch import no_bulk_signals
from signal_patch.contrib.jobs import control, databases, failures, lanes, registry
from signal_patch.contrib.jobs.databases import Trouble
from signal_patch.contrib.jobs.models import Job, Lane
from signal_patch.contrib.jobs.steps import Result, Step

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from signal_patch.contrib.jobs.definitions import BulkJob
    from signal_patch.contrib.jobs.operations import Operation

logger = logging.getLogger("signal_patch.jobs")

# After this many temporary errors of one step, the job is stopped. Lost connections do not count, because
# they cannot be written into the ledger.
MOST_ATTEMPTS = 10
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
# The pause if other workers have all lanes, and these are too short to divide.
BUSY_PAUSE = 1.0


class Status(Enum):
    MORE = "more"
    BUSY = "busy"
    DONE = "done"
    STOPPED = "stopped"
    # Other workers have all lanes, and there are as many lanes as runners: this worker is not needed.
    SURPLUS = "surplus"


class Outcome(NamedTuple):
    """What is left after some work on a job: if `is_left`, call `work()` again after `delay` seconds."""

    status: Status
    delay: float = 0.0

    @property
    def is_left(self) -> bool:
        return self.status in (Status.MORE, Status.BUSY)


def work(job_id: int, seconds: float = 20.0, steps: int | None = None) -> Outcome:
    """Work on a job for about `seconds` or at most `steps`, and return what is left.

    At least one step is tried. Any number of processes may call it at the same time, and any of them may be
    killed: only its current step is lost. While the outcome `is_left`, the caller must call it again;
    otherwise the job loses a runner, even if it was only busy. Job.DoesNotExist if there is no such job.

        def run(job_id):
            outcome = work(job_id, seconds=20)
            if outcome.is_left:
                queue.enqueue_in(timedelta(seconds=outcome.delay), run, job_id)
    """
    using = router.db_for_write(Job)
    try:
        job = control.find(job_id)
    except Error as error:
        if databases.trouble(error) is None:
            raise
        # For example, the server may have closed the connection since the last message.
        connections[using].close()
        return Outcome(Status.BUSY, BUSY_PAUSE)
    # Changes to the ledger itself send no bulk signals.
    with no_bulk_signals("signal_patch_jobs"):
        return _Worker(job, using, time.monotonic() + seconds, steps).work()


class _Worker:
    def __init__(self, job: Job, using: str, end: float, steps: int | None) -> None:
        self.job = job
        self.using = using
        self.definition: BulkJob = registry.find(self.job.name)()
        self.end = end
        self.steps = steps
        self.name = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
        # The lane of the last step is tried first, because its rows are cached by the database.
        self.lane_id: int | None = None

    def work(self) -> Outcome:
        while True:
            pause = self.definition.throttle()
            outcome = self._wait(pause) if pause else self._try_step()
            if outcome:
                return outcome
            if self.steps == 0 or time.monotonic() >= self.end:
                return Outcome(Status.MORE)

    def _try_step(self) -> Outcome | None:
        """Run a step, and return None if another may follow."""
        try:
            return self._step()
        except Exception as error:
            trouble = databases.trouble(error)
            if trouble is None:
                raise
            return self._back_off(trouble, error)

    def _step(self) -> Outcome | None:
        for lane_id in self._open_lanes():
            self.lane_id = lane_id
            step = Step(self.definition, self.job.pk, lane_id, self.using, self.name)
            result = self._run(step)
            if result is Result.STOPPED:
                return Outcome(Status.STOPPED)
            if result is Result.MOVED:
                if self.steps is not None:
                    self.steps -= 1
                return None
        return self._without_lane()

    def _run(self, step: Step) -> Result:
        try:
            return step.run()
        except Exception as error:
            if databases.trouble(error):
                raise
            failures.narrow_down(step, error)
            return Result.MOVED

    def _open_lanes(self) -> list[int]:
        """Return the lanes that are not done: the lane of the last step, then the others in random order."""
        # This takes no lock. Steps lock each lane by its key, because on MariaDB locking a range would keep
        # other workers from adding lanes.
        found = list(self._lanes().values_list("pk", flat=True))
        random.shuffle(found)
        return sorted(found, key=lambda pk: pk != self.lane_id)

    def _lanes(self) -> QuerySet[Lane]:
        return Lane.objects.using(self.using).filter(job_id=self.job.pk, done=False)

    def _without_lane(self) -> Outcome | None:
        """Finish the job if all lanes are done; if other workers have all lanes, divide one."""
        job = Job.objects.using(self.using).filter(pk=self.job.pk, status=Job.Status.RUNNING)
        left = self._lanes().count()
        if not left:
            job.update(status=Job.Status.DONE, finished=timezone.now())
            return Outcome(Status.DONE)
        if not job.exists():
            return Outcome(Status.STOPPED)
        if left >= self.job.runners:
            return Outcome(Status.SURPLUS)
        return None if self._divide() else self._wait(BUSY_PAUSE)

    def _divide(self) -> bool:
        operation = self.definition.operation(self.job.parameters)
        for lane in lanes.by_size(self.job, list(self._lanes())):
            if lanes.is_divisible(operation, lane) and self._divide_locked(operation, lane):
                return True
        return False

    def _divide_locked(self, operation: Operation, lane: Lane) -> bool:
        with transaction.atomic(using=self.using, durable=True):
            same = self._lanes().filter(pk=lane.pk)
            databases.begin_step(connections[self.using], self.definition.idle_seconds)
            # This waits until the lane's current step has ended.
            locked = same.select_for_update().first()
            return locked is not None and lanes.divide(self.job, operation, locked) is not None

    def _back_off(self, trouble: Trouble, error: Exception) -> Outcome | None:
        """Wait a little before the next try; after too many, stop the job."""
        logger.warning("A step of bulk job %s failed for the moment: %s", self.job, failures.summary(error))
        attempts = self._note(trouble, error)
        if attempts >= MOST_ATTEMPTS:
            failures.stop(self.job.pk, self.using, failures.summary(error))
            return Outcome(Status.STOPPED)
        longest = min(_SHORTEST_PAUSE * 2**attempts, _LONGEST_PAUSE)
        return self._wait(random.uniform(longest / 2, longest))  # noqa: S311  # jitter

    def _note(self, trouble: Trouble, error: Exception) -> int:
        """Write the error into the lane, and return how often its step has been tried."""
        if trouble is Trouble.LOST_CONNECTION:
            connections[self.using].close()
            return 1
        values: dict[str, Any] = {"attempts": F("attempts") + 1, "error": failures.summary(error)}
        if trouble is Trouble.TIMEOUT:
            values["step_size"] = Greatest(F("step_size") / 2, 1)
        lane = self._lanes().filter(pk__in=[self.lane_id])
        try:
            lane.update(**values)
            return lane.values_list("attempts", flat=True).first() or 0
        except Error as again:
            if databases.trouble(again) is None:
                raise
            logger.warning(
                "The error of bulk job %s could not be recorded: %s", self.job, failures.summary(again)
            )
            return 1

    def _wait(self, seconds: float) -> Outcome | None:
        """Wait and return None if there is time; otherwise leave the waiting to the caller."""
        if time.monotonic() + seconds > self.end:
            return Outcome(Status.BUSY, seconds)
        time.sleep(seconds)
        return None
