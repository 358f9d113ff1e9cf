"""Celery as an engine: the extra `jobs-celery`."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from signal_patch.contrib.jobs.engines import SECONDS, Engine
from signal_patch.contrib.jobs.working import work

try:
    from celery import shared_task
except ImportError as error:
    raise ImproperlyConfigured(
        "the engine 'celery' needs Celery: pip install 'django-signal-patch[jobs-celery]'"
    ) from error


# Acknowledged late, so that the message of a worker that dies is delivered again.
@shared_task(  # type: ignore[untyped-decorator]  # Celery has no types
    name="signal_patch.jobs.work",
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
)
def work_on(self: Any, job_id: int, seconds: float = SECONDS) -> None:
    outcome = work(job_id, seconds)
    if outcome.is_left:
        # Sent before this message is acknowledged: if the worker dies in between, the job has one runner
        # too many, not one too few.
        self.apply_async((job_id, seconds), countdown=outcome.delay)


class CeleryEngine(Engine):
    """Workers find the task in `signal_patch.contrib.jobs.tasks`, by `autodiscover_tasks()`."""

    def send(self, job_id: int, delay: float = 0.0) -> None:
        work_on.apply_async((job_id,), countdown=delay)
