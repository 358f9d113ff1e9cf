"""Which row made a step fail, and what happens to the job."""

from __future__ import annotations

from dataclasses import replace
from traceback import format_exception, format_exception_only

from django.db import transaction

from signal_patch.contrib.jobs import databases, pace
from signal_patch.contrib.jobs.models import FailedRow, Job, Lane
from signal_patch.contrib.jobs.steps import Result, Step


def narrow_down(failed: Step, error: Exception) -> None:
    """Find the row that made a step fail, and record it.

    The first half of the rows runs as a step of its own. If it succeeds, it stays committed and the row is in
    the second half; otherwise the row is in the first half. If another worker takes the lane meanwhile, that
    worker does the rest. Temporary errors are raised, as by any step. An error that occurred before any row
    was tried stops the job and is raised.
    """
    left = failed.size
    if not left:
        stop(failed.job_id, failed.using, summary(error))
        raise error
    while left > 0:
        if failed.size == 1:
            record(failed, error)
            return
        half = replace(failed, limit=max(1, left // 2), keys=None, size=0)
        try:
            if half.run() is not Result.MOVED:
                return
        except Exception as again:
            if databases.trouble(again):
                raise
            failed, error, left = half, again, half.size
        else:
            failed.cursor = half.end
            left -= half.size


def record(failed: Step, error: Exception) -> None:
    """Record the only row of a failed step, then skip it or stop the job, as the job's `on_error` says."""
    with transaction.atomic(using=failed.using, durable=True):
        lane = replace(failed, limit=1).lock()
        key = failed.first_key()
        if lane is None or key is None or lane.job.status != Job.Status.RUNNING:
            # Another worker has dealt with it, somebody has deleted the row, or the job has been stopped.
            return
        job = lane.job
        is_skipped = job.on_error == Job.OnError.SKIP
        FailedRow.objects.using(failed.using).create(
            job=job, key=key, error=summary(error), traceback=_traceback(error), skipped=is_skipped
        )
        if is_skipped:
            _skip(lane, key)
        else:
            stop(job.pk, failed.using, f"Row {key}: {summary(error)}")


def stop(job_id: int, using: str, reason: str) -> None:
    """Stop a job because of an error, until somebody resumes it."""
    Job.objects.using(using).filter(pk=job_id, status=Job.Status.RUNNING).update(
        status=Job.Status.FAILED, error=reason
    )


def summary(error: Exception) -> str:
    """Return the last line of a traceback."""
    return format_exception_only(error)[-1].strip()


def _skip(lane: Lane, key: str) -> None:
    # More rows may fail after this one, and finding each takes fewer tries in a smaller step.
    Lane.objects.using(lane._state.db).filter(pk=lane.pk).update(
        cursor=key, done=key == lane.upto, step_size=pace.halved(lane.step_size)
    )


def _traceback(error: Exception) -> str:
    return "".join(format_exception(error))
