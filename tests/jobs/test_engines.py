"""Celery and Django's tasks as engines: what they are sent, and what their tasks do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module, reload
from typing import Any

import celery
import django
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from signal_patch.contrib.jobs import engines
from tests.jobs.bulk_jobs import Increase
from tests.jobs.rows import counts, items

pytestmark = pytest.mark.django_db

TASKS = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"


@pytest.fixture
def broker() -> Iterator[Any]:
    """A Celery application whose messages stay in memory."""
    app = celery.Celery("tests", broker="memory://", set_as_current=True)
    app.set_default()
    yield app
    app.close()


def messages(app: Any) -> list[Any]:
    """Take the messages out of the queue."""
    found = []
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            message.ack()
            found.append(message)
        queue.close()
    return found


class TestCelery:
    def test_a_message_for_each_runner(
        self, broker: Any, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        items(20)
        with django_capture_on_commit_callbacks(execute=True):
            job = Increase.start(engine="celery", runners=2)
        sent = messages(broker)
        assert [message.headers["task"] for message in sent] == ["signal_patch.jobs.work"] * 2
        assert [message.payload[0] for message in sent] == [[job.pk]] * 2

    def test_the_task_works_and_sends_itself_again_while_something_is_left(self, broker: Any) -> None:
        from signal_patch.contrib.jobs.tasks import work_on

        items(5)
        job = Increase.start()
        work_on.apply((job.pk, 0)).get()
        (again,) = messages(broker)
        assert again.payload[0] == [job.pk, 0]
        assert sum(counts()) == 3
        work_on.apply((job.pk, 0)).get()
        work_on.apply((job.pk, 0)).get()
        assert counts() == [1] * 5
        assert len(messages(broker)) == 1

    def test_a_job_that_waits_is_sent_later(self, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from signal_patch.contrib.jobs.tasks import work_on

        items(5)
        job = Increase.start()
        monkeypatch.setattr(Increase, "throttle", lambda self: 60.0)
        work_on.apply((job.pk, 0)).get()
        (again,) = messages(broker)
        assert again.headers["eta"] is not None

    def test_messages_of_dead_workers_are_delivered_again(self) -> None:
        from signal_patch.contrib.jobs.tasks import work_on

        assert work_on.acks_late
        assert work_on.reject_on_worker_lost

    def test_without_celery_the_remedy_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = import_module("signal_patch.contrib.jobs.engines.celery")
        monkeypatch.setitem(sys.modules, "celery", None)
        with pytest.raises(ImproperlyConfigured, match=r"pip install 'django-signal-patch\[jobs-celery\]'"):
            reload(module)


@pytest.fixture
def backend(settings: Settings) -> Any:
    """A backend that keeps what it is given."""
    settings.TASKS = {"default": {"BACKEND": f"{TASKS}.backends.dummy.DummyBackend"}}
    return import_module(TASKS).default_task_backend


class TestDjangosTasks:
    def test_a_task_for_each_runner(
        self, backend: Any, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        items(20)
        with django_capture_on_commit_callbacks(execute=True):
            job = Increase.start(engine="tasks", runners=2)
        assert [(result.args, result.task.run_after) for result in backend.results] == [([job.pk], None)] * 2

    def test_the_task_works_and_enqueues_itself_again_while_something_is_left(self, backend: Any) -> None:
        from signal_patch.contrib.jobs.engines.tasks import work_on

        items(5)
        job = Increase.start()
        work_on.call(job.pk, 0)
        assert [result.args for result in backend.results] == [[job.pk, 0]]
        work_on.call(job.pk, 0)
        work_on.call(job.pk, 0)
        assert counts() == [1] * 5
        assert len(backend.results) == 2

    def test_a_job_that_waits_is_enqueued_for_later(
        self, backend: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from signal_patch.contrib.jobs.engines.tasks import work_on

        items(5)
        job = Increase.start()
        monkeypatch.setattr(Increase, "throttle", lambda self: 60.0)
        work_on.call(job.pk, 0)
        (result,) = backend.results
        assert result.task.run_after > timezone.now()

    def test_a_backend_that_cannot_wait_is_refused(self, settings: Settings) -> None:
        settings.TASKS = {"default": {"BACKEND": f"{TASKS}.backends.immediate.ImmediateBackend"}}
        items(5)
        with pytest.raises(
            ImproperlyConfigured, match="ImmediateBackend, the `default` of the setting TASKS, cannot"
        ):
            Increase.start(engine="tasks")

    @pytest.mark.skipif(django.VERSION >= (6, 0), reason="Django 6.0 and later have tasks of their own")
    def test_without_a_package_for_tasks_the_remedy_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = import_module("signal_patch.contrib.jobs.engines.tasks")
        monkeypatch.setitem(sys.modules, "django_tasks", None)
        with pytest.raises(ImproperlyConfigured, match=r"pip install 'django-signal-patch\[jobs-tasks\]'"):
            reload(module)


def test_processes_are_sent_nothing(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    items(5)
    with django_capture_on_commit_callbacks(execute=True):
        job = Increase.start(runners=2)
    engines.find("processes").send(job.pk)
    assert sum(counts()) == 0
