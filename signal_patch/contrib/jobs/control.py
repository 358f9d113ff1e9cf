"""Starting, pausing, resuming and cancelling jobs."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router, transaction
from django.utils import timezone

from signal_patch import no_bulk_signals
from signal_patch.contrib.jobs import databases, engines, lanes, registry
from signal_patch.contrib.jobs.keys import from_text, to_text
from signal_patch.contrib.jobs.models import IDLE_AFTER, Job, Lane
from signal_patch.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signal_patch.contrib.jobs.definitions import BulkJob
    from signal_patch.contrib.jobs.operations import Operation

UNFINISHED = (Job.Status.RUNNING, Job.Status.PAUSED, Job.Status.FAILED, Job.Status.CHANGED)


def start(
    definition: type[BulkJob],
    parameters: dict[str, Any],
    *,
    runners: int = 1,
    on_error: str = "stop",
    engine: str | None = None,
    started_by: str = "",
) -> Job:
    """Write a job into the ledger and, after the commit, ask its engine for runners.

    The arguments are those of `BulkJob.start()`. If the engine cannot be reached, its error is raised, but
    the job is in the ledger: `resume()` asks the engine again.
    """
    _check_runners(runners)
    _check_on_error(on_error)
    engine = engine or engines.default()
    engines.find(engine).check()
    parameters = parameters_as_json(definition, parameters)
    operation = checked(definition, parameters)
    using = operation.using
    with no_bulk_signals("signal_patch_jobs"), transaction.atomic(using=using):
        databases.begin_to_write(connections[using])
        ends = lanes.range_of(operation)
        job = Job.objects.using(using).create(
            name=definition.name,
            model=operation.model._meta.label,
            parameters=parameters,
            sql=operation.sql(),
            fingerprint=operation.fingerprint(),
            engine=engine,
            runners=runners,
            on_error=on_error,
            started_by=started_by,
        )
        if ends is None:
            job.status, job.finished = Job.Status.DONE, timezone.now()
            job.save(update_fields=["status", "finished"])
        else:
            _write_lanes(job, operation, ends, definition.first_step)
            _send(job, runners)
    return job


def pause(job_id: int) -> Job:
    """Begin no further steps of a running job; steps that have begun are finished.

    Returns the job. Raises ValueError if it is not running, and Job.DoesNotExist if there is none.
    """
    return _set_status(job_id, [Job.Status.RUNNING], Job.Status.PAUSED)


def cancel(job_id: int) -> Job:
    """End a job for good. What its steps have committed stays.

    Returns the job. Raises ValueError if it has ended, and Job.DoesNotExist if there is none.
    """
    return _set_status(job_id, UNFINISHED, Job.Status.CANCELLED)


def resume(job_id: int, *, confirm: bool = False) -> Job:
    """Continue a job that is paused or has failed; for a running job, replace the runners that are gone.

    `confirm=True` also continues a job whose SQL has changed since its start. The new SQL applies to the
    remaining rows. Returns the job. Raises ValueError if it has ended, or needs to be confirmed, and
    Job.DoesNotExist if there is none.
    """
    with no_bulk_signals("signal_patch_jobs"), transaction.atomic(using=router.db_for_write(Job)):
        job = find(job_id, lock=True)
        if job.status == Job.Status.CHANGED and not confirm:
            raise ValueError(
                f"job {job_id} would continue with different SQL, because its definition has changed since "
                "it was started. To accept that, confirm it (resume(…, confirm=True), "
                f"bulk_jobs resume {job_id} --confirm). The new SQL is:\n"
                f"{registry.find(job.name)().operation(job.parameters).sql()}"
            )
        _check_status(job, UNFINISHED, "resumed")
        if job.status == Job.Status.CHANGED:
            operation = checked(registry.find(job.name), job.parameters)
            job.sql, job.fingerprint = operation.sql(), operation.fingerprint()
        was_running = job.status == Job.Status.RUNNING
        job.status, job.error = Job.Status.RUNNING, ""
        job.save(update_fields=["status", "error", "sql", "fingerprint"])
        # The rows that stopped the job are tried again.
        job.failed_rows.filter(skipped=False).delete()
        # The runners of a job that was not running have ended, or are about to.
        _send(job, missing_runners(job) if was_running else job.runners)
    return job


def find(job_id: int, *, lock: bool = False) -> Job:
    """Return a job from the ledger, or raise Job.DoesNotExist; `lock` locks it in the current transaction."""
    using = router.db_for_write(Job)
    jobs = Job.objects.using(using)
    if lock:
        databases.begin_to_write(connections[using])
        jobs = jobs.select_for_update()
    try:
        return jobs.get(pk=job_id)
    except Job.DoesNotExist:
        raise Job.DoesNotExist(
            f"there is no bulk job {job_id}; `manage.py bulk_jobs list` shows all"
        ) from None


def resume_all() -> list[Job]:
    """Replace the missing runners of all running jobs. Call this on a schedule."""
    using = router.db_for_write(Job)
    with no_bulk_signals("signal_patch_jobs"), transaction.atomic(using=using):
        databases.begin_to_write(connections[using])
        running = list(Job.objects.using(using).filter(status=Job.Status.RUNNING).select_for_update())
        for job in running:
            _send(job, missing_runners(job))
    return running


def checked(definition: type[BulkJob], parameters: dict[str, Any]) -> Operation:
    """Return a job's operation, or raise ValueError with all reasons why it cannot be done in steps.

    Django's `update()` and `bulk_signals()` raise their own errors for what they refuse.
    """
    Options.from_keywords(definition.signal_options)
    operation = definition().operation(parameters)
    reasons = list(operation.refusals())
    ledger = router.db_for_write(Job)
    if operation.using != ledger:
        reasons.append(
            f"its rows are in the database {operation.using!r} and the ledger in {ledger!r}, so that a step "
            "could not commit both together"
        )
    if not reasons and operation.sql() != definition().operation(parameters).sql():
        reasons.append(
            "its SQL differs each time it is built: its queryset or its values depend on something other "
            "than the parameters, such as the time; make that a parameter"
        )
    if reasons:
        raise ValueError(f"{definition.name} cannot run as a job: {'; '.join(reasons)}")
    _check_ledger(ledger)
    return operation


def missing_runners(job: Job) -> int:
    """Return how many runners a running job lacks; 0 unless a lane is idle."""
    lanes_left = Lane.objects.using(job._state.db).filter(job=job, done=False)
    skip_locked = connections[str(job._state.db)].features.has_select_for_update_skip_locked
    since = timezone.now() - IDLE_AFTER
    idle = [
        lane
        for lane in lanes_left.select_for_update(skip_locked=skip_locked)
        if (lane.stepped or job.sent) < since
    ]
    in_use = lanes_left.count() - len(idle)
    return max(job.runners - in_use, 0) if idle else 0


def _write_lanes(job: Job, operation: Operation, ends: tuple[Any, Any], step_size: int) -> None:
    job.first_key, job.last_key = (_as_text(operation, key) for key in ends)
    job.save(update_fields=["first_key", "last_key"])
    lanes.plan(job, operation, job.last_key, step_size=step_size)


def _as_text(operation: Operation, key: Any) -> str:
    text = to_text(key)
    if from_text(operation.model, text) != key:
        raise ValueError(
            f"{operation.model._meta.label} cannot be changed by a job: its primary key {key!r} cannot be "
            "written as text and read again"
        )
    return text


def _send(job: Job, count: int) -> None:
    """Ask the engine for runners once the transaction has committed."""
    if not count:
        return
    job.sent = timezone.now()
    job.save(update_fields=["sent"])
    engine = engines.find(job.engine)
    for _ in range(count):
        transaction.on_commit(partial(engine.send, job.pk), using=job._state.db)


def _set_status(job_id: int, allowed: Iterable[str], status: Job.Status) -> Job:
    with no_bulk_signals("signal_patch_jobs"), transaction.atomic(using=router.db_for_write(Job)):
        job = find(job_id, lock=True)
        _check_status(job, allowed, status)
        job.status = status
        if status == Job.Status.CANCELLED:
            job.finished = timezone.now()
        job.save(update_fields=["status", "finished"])
    return job


def _check_status(job: Job, allowed: Iterable[str], change: str) -> None:
    if job.status not in allowed:
        raise ValueError(
            f"job {job.pk} is {job.status} and cannot be {change}; only a job that is "
            f"{' or '.join(sorted(map(_described, allowed)))} can"
        )


def _described(status: str) -> str:
    return "changed (its SQL is not the same as at its start)" if status == Job.Status.CHANGED else status


def _check_runners(runners: object) -> None:
    if not isinstance(runners, int) or isinstance(runners, bool):
        raise TypeError(f"runners must be a whole number, at least 1, not {runners!r}")
    if runners < 1:
        raise ValueError(f"runners must be at least 1, not {runners!r}")


def _check_on_error(on_error: str) -> None:
    if on_error not in Job.OnError.values:
        raise ValueError(f"on_error must be one of {Job.OnError.values}, not {on_error!r}")


def parameters_as_json(definition: type[BulkJob], parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters as each step will read them from the ledger."""
    try:
        return dict(json.loads(json.dumps(parameters)))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{definition.name}: the parameters must be JSON (numbers, text, lists…), "
            f"not {parameters!r}: {error}"
        ) from None


def _check_ledger(using: str) -> None:
    table = Job._meta.db_table
    if table not in connections[using].introspection.table_names():
        raise ImproperlyConfigured(
            f"the table {table!r} is missing in the database {using!r}: "
            "run `manage.py migrate signal_patch_jobs`"
        )
