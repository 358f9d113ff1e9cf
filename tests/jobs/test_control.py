"""Starting, pausing, resuming and cancelling jobs, and what the engine is asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from signal_patch.contrib.jobs import control, job_progressed
from signal_patch.contrib.jobs.explaining import explain
from signal_patch.contrib.jobs.models import IDLE_AFTER, Job, Lane
from signal_patch.contrib.jobs.working import Status, work
from tests.jobs.bulk_jobs import Increase
from tests.jobs.engine import NOTEBOOK, UNREACHABLE, Notebook
from tests.jobs.models import Item
from tests.jobs.rows import counts, finish, items, only_lane
from tests.recording import Receivers

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks) -> Callable[..., list[Any]]:
    """Call something, commit, and return what the engine was asked for."""

    def call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> list[tuple[int, float]]:
        Notebook.sent.clear()
        with django_capture_on_commit_callbacks(execute=True):
            function(*arguments, **keywords)
        return list(Notebook.sent)

    return call


def started(**keywords: Any) -> Job:
    items(20)
    return Increase.start(engine=NOTEBOOK, **keywords)


def test_the_engine_is_asked_for_the_runners_once_the_job_is_committed(
    sent: Callable[..., list[Any]],
) -> None:
    items(3)
    asked = sent(Increase.start, engine=NOTEBOOK, runners=3)
    assert asked == [(Job.objects.get().pk, 0.0)] * 3


def test_the_setting_names_the_engine(settings: Settings, sent: Callable[..., list[Any]]) -> None:
    settings.SIGNAL_PATCH_JOBS_ENGINE = NOTEBOOK
    items(3)
    assert len(sent(Increase.start)) == 1
    assert Job.objects.get().engine == NOTEBOOK


def test_an_engine_that_cannot_be_reached_leaves_the_job_to_be_resumed(
    sent: Callable[..., list[Any]],
) -> None:
    items(3)
    with pytest.raises(ConnectionError):
        sent(Increase.start, engine=UNREACHABLE)
    assert Job.objects.get().status == Job.Status.RUNNING


def test_a_job_without_rows_is_done_at_once(sent: Callable[..., list[Any]]) -> None:
    assert sent(Increase.start, engine=NOTEBOOK) == []
    job = Job.objects.get()
    assert job.status == Job.Status.DONE
    assert job.finished is not None
    assert not job.lanes.exists()


def test_a_queryset_that_matches_nothing_is_done_at_once() -> None:
    job = Increase.start(colour="")
    assert job.status == Job.Status.DONE


def test_who_started_it_and_with_what_is_written_down() -> None:
    items(1, colour="blue")
    job = Increase.start(colour="blue", started_by="Ada", on_error="skip")
    job.refresh_from_db()
    assert (job.name, job.model, job.parameters) == ("jobs.Increase", "jobs.Item", {"colour": "blue"})
    assert (job.started_by, job.on_error, job.engine) == ("Ada", "skip", "processes")
    assert "blue" in job.sql
    finish(job)
    assert counts() == [1]


def test_no_step_begins_while_a_job_is_paused() -> None:
    job = started()
    work(job.pk, seconds=0)
    control.pause(job.pk)
    assert work(job.pk, seconds=0).status is Status.STOPPED
    assert sum(counts()) == 3


def test_it_goes_on_with_all_its_runners_when_it_is_resumed(sent: Callable[..., list[Any]]) -> None:
    job = started(runners=2)
    control.pause(job.pk)
    assert sent(control.resume, job.pk) == [(job.pk, 0.0)] * 2
    finish(job)
    assert counts() == [1] * 20


def test_a_cancelled_job_is_over() -> None:
    job = started()
    work(job.pk, seconds=0)
    control.cancel(job.pk)
    assert work(job.pk, seconds=0).status is Status.STOPPED
    job.refresh_from_db()
    assert job.finished is not None
    with pytest.raises(
        ValueError, match=f"job {job.pk} is cancelled and cannot be resumed; only a job that is"
    ):
        control.resume(job.pk)


def test_what_cannot_be_done_to_a_job_is_said() -> None:
    job = started()
    finish(job)
    with pytest.raises(
        ValueError, match=f"job {job.pk} is done and cannot be paused; only a job that is running"
    ):
        control.pause(job.pk)
    with pytest.raises(Job.DoesNotExist, match=r"there is no bulk job 999; `manage.py bulk_jobs list`"):
        control.cancel(999)
    with pytest.raises(Job.DoesNotExist):
        work(999)


def test_runners_that_are_gone_are_replaced(sent: Callable[..., list[Any]]) -> None:
    job = started(runners=3)
    long_ago = timezone.now() - 2 * IDLE_AFTER
    lanes = job.lanes.order_by("pk")
    # No runner has had time to begin yet.
    assert sent(control.resume, job.pk) == []
    Job.objects.update(sent=long_ago)
    assert len(sent(control.resume, job.pk)) == 3
    # Those runners have only just been asked for.
    assert sent(control.resume, job.pk) == []
    Job.objects.update(sent=long_ago)
    lanes.update(stepped=timezone.now())
    assert sent(control.resume_all) == []
    Lane.objects.filter(pk=lanes[0].pk).update(stepped=long_ago)
    assert len(sent(control.resume_all)) == 1


def test_only_running_jobs_are_looked_after(sent: Callable[..., list[Any]]) -> None:
    job = started()
    Job.objects.update(sent=timezone.now() - timedelta(days=1))
    control.pause(job.pk)
    assert sent(control.resume_all) == []


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Change the code of the job."""
    return lambda: monkeypatch.setattr(Increase, "values", lambda self: {"n": F("n") + 10})


def test_no_step_runs_after_the_sql_has_changed(deployed: Callable[[], None]) -> None:
    job = started()
    work(job.pk, seconds=0)
    deployed()
    assert work(job.pk, seconds=0).status is Status.STOPPED
    job.refresh_from_db()
    assert job.status == Job.Status.CHANGED
    assert "The SQL of the job differs" in job.error
    assert f"bulk_jobs resume {job.pk} --confirm" in job.error
    assert work(job.pk, seconds=0).status is Status.STOPPED
    assert sum(counts()) == 3
    with pytest.raises(ValueError, match=r"different SQL.* The new SQL is:\s+UPDATE jobs.Item SET n = .*10"):
        control.resume(job.pk)


def test_it_goes_on_with_the_new_sql_once_that_is_confirmed(
    deployed: Callable[[], None], sent: Callable[..., list[Any]]
) -> None:
    job = started()
    work(job.pk, seconds=0)
    deployed()
    work(job.pk, seconds=0)
    assert len(sent(control.resume, job.pk, confirm=True)) == 1
    finish(job)
    assert job.status == Job.Status.DONE
    assert counts() == [1] * 3 + [10] * 17
    assert "10" in job.sql


def test_a_job_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    job = started()
    waits = iter([5.0, 0.001])
    monkeypatch.setattr(Increase, "throttle", lambda self: next(waits, None))
    assert work(job.pk, seconds=0) == (Status.BUSY, 5.0)
    assert sum(counts()) == 0
    work(job.pk)
    assert counts() == [1] * 20


def test_so_many_steps_and_no_more() -> None:
    job = started()
    assert work(job.pk, steps=2).status is Status.MORE
    assert sum(job.lanes.values_list("steps", flat=True)) == 2


def test_progress_is_announced_after_each_step(receivers: Receivers) -> None:
    seen: list[dict[str, Any]] = []

    def watch(**arguments: Any) -> None:
        seen.append(arguments)

    receivers.connect(job_progressed, watch, Increase)
    job = Increase.start() if items(4) else None
    assert job is not None
    lane = only_lane(job)
    finish(job)
    assert [(s["job_id"], s["lane_id"], s["rows"], s["is_lane_done"]) for s in seen] == [
        (job.pk, lane.pk, 3, False),
        (job.pk, lane.pk, 1, True),
    ]
    assert all(s["seconds"] > 0 for s in seen)


@pytest.mark.django_db(transaction=True)
def test_a_step_is_not_part_of_a_transaction_around_it() -> None:
    job = started()
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        work(job.pk)
    assert sum(counts()) == 0


def test_what_a_job_would_do_can_be_seen_before() -> None:
    items(4)
    explanation = explain(Increase, {})
    assert explanation.count == 4
    assert explanation.sql.startswith("UPDATE jobs.Item SET n = ")
    assert "rows: 4" in str(explanation)
    assert explanation.plan in str(explanation)
    assert not Job.objects.exists()
    assert sum(counts()) == 0


def test_rows_that_are_added_are_changed_if_their_step_has_not_run() -> None:
    job = started()
    work(job.pk, seconds=0)
    last = Item.objects.order_by("pk").last()
    assert last is not None
    Item.objects.filter(pk=last.pk - 1).delete()
    Item.objects.create(pk=last.pk - 1)
    Item.objects.create(pk=last.pk + 1)
    finish(job)
    assert counts() == [1] * 20 + [0]


def test_the_names_in_the_ledger() -> None:
    job = started()
    assert str(job) == f"jobs.Increase ({job.pk})"
    assert str(only_lane(job)) == f"lane {only_lane(job).pk} of job {job.pk}"
    assert str(job.failed_rows.model(job=job, key="7")) == f"row 7 of job {job.pk}"
