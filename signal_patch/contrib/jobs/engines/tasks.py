"""Django's tasks as an engine: Django 6.0 and later; on 5.2 the extra `jobs-tasks`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from signal_patch.contrib.jobs.engines import SECONDS, Engine
from signal_patch.contrib.jobs.working import work

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    try:
        from django_tasks import task  # type: ignore[import-not-found,no-redef,unused-ignore]  # one is installed
    except ImportError as error:
        raise ImproperlyConfigured(
            "the engine 'tasks' needs Django 6.0 or django-tasks: "
            "pip install 'django-signal-patch[jobs-tasks]'"
        ) from error


@task()
def work_on(job_id: int, seconds: float = SECONDS) -> None:
    outcome = work(job_id, seconds)
    if outcome.is_left:
        _enqueue(outcome.delay, job_id, seconds)


class TasksEngine(Engine):
    """Uses the task backend `default`.

    If the backend does not redeliver the tasks of a dead worker, the job loses a runner, but no work. Run
    `bulk_jobs resume` on a schedule to replace it.
    """

    def check(self) -> None:
        backend = work_on.get_backend()
        if not backend.supports_defer:
            raise ImproperlyConfigured(
                f"the engine 'tasks' needs a backend that can run a task later; {type(backend).__name__}, "
                "the `default` of the setting TASKS, cannot. django-tasks-db has one"
            )

    def send(self, job_id: int, delay: float = 0.0) -> None:
        _enqueue(delay, job_id)


def _enqueue(delay: float, *arguments: Any) -> None:
    later = timezone.now() + timedelta(seconds=delay) if delay else None
    work_on.using(run_after=later).enqueue(*arguments)
