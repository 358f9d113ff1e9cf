"""Which row fails, and what becomes of the job then."""

from __future__ import annotations

from dataclasses import replace
from traceback import format_exception, format_exception_only

from django.db import transaction

from . import databases, pace
from .models import FailedRow, Job, Lane
from .steps import Result, Step


def narrow_down(failed: Step, error: Exception) -> None:
    """
    Look for the row because of which a step failed, and record it.

    The first half of the rows is tried in a step of its own. If it succeeds it stays committed, and the row
    is among the others; else it is among these. Another worker may take the lane meanwhile: then the rest is
    left to that one. Passing trouble is raised, as by any step; so is an error that came before any row
    was tried, when it has stopped the job.
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
    """Record the one row of a failed step, and skip it or stop the job, as was chosen at the start."""
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
    """Stop a job because of an error: it goes on when somebody resumes it."""
    Job.objects.using(using).filter(pk=job_id, status=Job.Status.RUNNING).update(
        status=Job.Status.FAILED, error=reason
    )


def summary(error: Exception) -> str:
    """Return the last line of a traceback."""
    return format_exception_only(error)[-1].strip()


def _skip(lane: Lane, key: str) -> None:
    # Where one row fails others may, and each costs its step some tries.
    Lane.objects.using(lane._state.db).filter(pk=lane.pk).update(
        cursor=key, done=key == lane.upto, step_size=pace.halved(lane.step_size)
    )


def _traceback(error: Exception) -> str:
    return "".join(format_exception(error))
