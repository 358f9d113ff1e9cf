"""Which row made a step fail, and what happens to the job."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection as connection
from django.db.models.signals import post_save, pre_save

from signal_patch.contrib.jobs import control, failures
from signal_patch.contrib.jobs.models import FailedRow, Job
from signal_patch.contrib.jobs.steps import Step
from signal_patch.contrib.jobs.working import work
from tests.jobs.bulk_jobs import Increase, RemoveBoxes
from tests.jobs.models import Box, Item
from tests.jobs.rows import audits, counts, finish, items, only_lane, write_audit
from tests.recording import Receivers

pytestmark = pytest.mark.django_db


class Reject:
    """A receiver that refuses some rows."""

    def __init__(self, *keys: int) -> None:
        self.keys = keys

    def __call__(self, instance: Item, **_: Any) -> None:
        if instance.pk in self.keys:
            raise RuntimeError(f"no to {instance.pk}")


def steps_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(Increase, "first_step", size)


@pytest.mark.parametrize("position", range(7))
def test_the_job_stops_at_the_row_that_fails(
    position: int, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = items(7)
    steps_of(monkeypatch, 7)
    bad = rows[position].pk
    receivers.connect(post_save, write_audit, Item)
    receivers.connect(post_save, Reject(bad), Item)

    job = Increase.start()
    finish(job)

    assert job.status == Job.Status.FAILED
    assert job.error == f"Row {bad}: RuntimeError: no to {bad}"
    failed = FailedRow.objects.get()
    assert (failed.key, failed.error, failed.skipped) == (str(bad), f"RuntimeError: no to {bad}", False)
    assert failed.traceback.startswith("Traceback")
    assert 'raise RuntimeError(f"no to' in failed.traceback
    assert counts() == [1] * position + [0] * (7 - position)
    assert audits() == [(row.pk, 1) for row in rows[:position]]


def test_it_goes_on_from_there_when_it_is_resumed(receivers: Receivers) -> None:
    rows = items(7)
    reject = Reject(rows[4].pk)
    receivers.connect(pre_save, reject, Item)
    job = Increase.start()
    finish(job)

    reject.keys = ()
    control.resume(job.pk)
    finish(job)

    assert (job.status, job.error) == (Job.Status.DONE, "")
    assert counts() == [1] * 7


def test_rows_that_fail_are_skipped_if_that_was_chosen(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = items(9)
    steps_of(monkeypatch, 5)
    bad = [rows[i].pk for i in (0, 3, 4, 8)]
    receivers.connect(post_save, write_audit, Item)
    receivers.connect(post_save, Reject(*bad), Item)

    job = Increase.start(on_error="skip")
    finish(job)

    assert job.status == Job.Status.DONE
    assert counts() == [int(row.pk not in bad) for row in rows]
    assert audits() == [(row.pk, 1) for row in rows if row.pk not in bad]
    failed = FailedRow.objects.order_by("pk")
    assert [(row.key, row.skipped) for row in failed] == [(str(key), True) for key in bad]


def test_steps_are_smaller_after_a_row_that_failed(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = items(20)
    steps_of(monkeypatch, 8)
    receivers.connect(post_save, Reject(rows[2].pk), Item)
    job = Increase.start(on_error="skip")

    work(job.pk, seconds=0)

    assert only_lane(job).step_size == 4


def test_an_error_that_does_not_come_again_is_forgotten(receivers: Receivers) -> None:
    items(3)
    errors = iter([RuntimeError("once")])

    def fail_once(**_: Any) -> None:
        for error in errors:
            raise error

    receivers.connect(post_save, fail_once, Item)
    job = Increase.start()
    finish(job)
    assert job.status == Job.Status.DONE
    assert counts() == [1] * 3
    assert not FailedRow.objects.exists()


def test_a_row_that_somebody_deletes_meanwhile_is_not_recorded(receivers: Receivers) -> None:
    (row,) = items(1)
    job = Increase.start()

    def refuse(**_: Any) -> None:
        raise RuntimeError("it goes")

    receivers.connect(pre_save, refuse, Item)
    lane = only_lane(job)
    step = Step(Increase(), job.pk, lane.pk, "default", "test")
    with pytest.raises(RuntimeError) as caught:
        step.run()
    row.delete()
    failures.narrow_down(step, caught.value)
    assert not FailedRow.objects.exists()


def test_a_lane_that_another_worker_has_moved_is_left_to_it(receivers: Receivers) -> None:
    rows = items(4)
    reject = Reject(rows[1].pk)
    receivers.connect(pre_save, reject, Item)
    job = Increase.start()
    lane = only_lane(job)
    step = Step(Increase(), job.pk, lane.pk, "default", "test")
    with pytest.raises(RuntimeError) as caught:
        step.run()

    reject.keys = ()
    work(job.pk, seconds=0)
    reject.keys = (rows[1].pk,)
    failures.narrow_down(step, caught.value)

    assert not FailedRow.objects.exists()
    assert counts() == [1, 1, 1, 0]


def test_trouble_that_passes_is_not_taken_for_the_row(receivers: Receivers) -> None:
    items(4)
    errors = iter([RuntimeError("first"), OperationalError("database is locked")])

    def fail(**_: Any) -> None:
        for error in errors:
            raise error

    receivers.connect(post_save, fail, Item)
    job = Increase.start()
    finish(job)
    assert job.status == Job.Status.DONE
    assert counts() == [1] * 4


def test_an_error_before_any_row_stops_the_job_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    items(3)
    job = Increase.start()

    def broken(self: Any, **_: Any) -> Any:
        raise ZeroDivisionError("in values()")

    monkeypatch.setattr(Increase, "values", broken)
    with pytest.raises(ZeroDivisionError):
        work(job.pk, seconds=0)
    job.refresh_from_db()
    assert (job.status, job.error) == (Job.Status.FAILED, "ZeroDivisionError: in values()")
    assert not FailedRow.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'mysql'", reason="InnoDB checks foreign keys at once")
def test_a_row_that_fails_at_the_commit_is_found_too(receivers: Receivers) -> None:
    rows = items(5)

    def refer_to_nothing(instance: Item, **_: Any) -> None:
        if instance.pk == rows[3].pk:
            Item.objects.filter(pk=rows[3].pk).update(box_id=999)

    receivers.connect(post_save, refer_to_nothing, Item)
    job = Increase.start(on_error="skip")
    finish(job)
    assert job.status == Job.Status.DONE
    assert [row.key for row in FailedRow.objects.all()] == [str(rows[3].pk)]
    assert counts() == [1, 1, 1, 0, 1]


def test_a_delete_finds_what_is_protected_in_its_step(receivers: Receivers) -> None:
    boxes = [Box.objects.create() for _ in range(7)]
    items(1, box=boxes[4])
    job = RemoveBoxes.start()
    finish(job)
    assert job.status == Job.Status.FAILED
    assert job.error.startswith(f"Row {boxes[4].pk}: django.db.models.deletion.ProtectedError")
    assert list(Box.objects.order_by("pk")) == boxes[4:]

    Item.objects.all().delete()
    control.resume(job.pk)
    finish(job)
    assert job.status == Job.Status.DONE
    assert not Box.objects.exists()
    assert only_lane(job).rows == 7
