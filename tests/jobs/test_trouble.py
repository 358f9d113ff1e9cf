"""Deadlocks, timeouts and lost connections: steps with temporary errors are tried again."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, DataError, OperationalError, connection, connections, transaction
from django.db.models.signals import post_save, pre_save

from signal_patch.contrib.jobs import control, databases, working
from signal_patch.contrib.jobs.models import Job, Lane
from signal_patch.contrib.jobs.working import Status, work
from tests.jobs.bulk_jobs import Increase
from tests.jobs.models import Item
from tests.jobs.rows import counts, finish, items, only_lane
from tests.recording import Receivers

if TYPE_CHECKING:
    from typing_extensions import Self

LOCKED = "database is locked"

pytestmark = pytest.mark.django_db

with_lanes_locked = pytest.mark.skipif(
    "not connection.features.has_select_for_update_skip_locked",
    reason="this database has one writer at a time",
)


SEVERING = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
    "mysql": ("SELECT connection_id()", "KILL %s"),
}


class Fail:
    """A receiver that raises these errors, one at each call, and then none."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, **_: Any) -> None:
        if self.errors:
            raise self.errors.pop()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a worker would wait."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_a_conflict_is_tried_again_after_a_pause_that_grows(
    receivers: Receivers, pauses: list[float]
) -> None:
    items(3)
    receivers.connect(post_save, Fail(*[OperationalError(LOCKED) for _ in range(5)]), Item)
    job = Increase.start()

    assert work(job.pk).status is Status.DONE

    assert counts() == [1] * 3
    assert [0.05 * 2**n <= pause <= 0.1 * 2**n for n, pause in enumerate(pauses)] == [True] * 5
    assert only_lane(job).attempts == 0


def test_without_time_for_the_pause_it_is_left_to_the_engine(
    receivers: Receivers, pauses: list[float]
) -> None:
    items(3)
    receivers.connect(post_save, Fail(OperationalError(LOCKED)), Item)
    job = Increase.start()

    outcome = work(job.pk, seconds=0)

    assert outcome.status is Status.BUSY
    assert outcome.is_left
    assert 0 < outcome.delay <= 0.1
    assert not pauses
    lane = only_lane(job)
    assert (lane.attempts, lane.error) == (1, f"django.db.utils.OperationalError: {LOCKED}")


def test_a_step_is_halved_after_a_timeout(receivers: Receivers, pauses: list[float]) -> None:
    items(3)
    receivers.connect(post_save, Fail(OperationalError(1205, "lock wait timeout")), Item)
    job = Increase.start()
    Lane.objects.update(step_size=100)

    work(job.pk, seconds=0)

    assert only_lane(job).step_size == 50


def test_trouble_that_does_not_pass_stops_the_job(receivers: Receivers, pauses: list[float]) -> None:
    items(3)
    receivers.connect(post_save, Fail(*[OperationalError(LOCKED) for _ in range(99)]), Item)
    job = Increase.start()

    assert work(job.pk).status is Status.STOPPED

    job.refresh_from_db()
    assert (job.status, job.error) == (Job.Status.FAILED, f"django.db.utils.OperationalError: {LOCKED}")
    assert len(pauses) == working.MOST_ATTEMPTS - 1
    assert max(pauses) <= 2.0


def test_trouble_behind_an_error_of_the_receivers_own_is_seen(
    receivers: Receivers, pauses: list[float]
) -> None:
    items(3)
    error = RuntimeError("could not save")
    error.__cause__ = OperationalError(LOCKED)
    receivers.connect(post_save, Fail(error), Item)
    job = Increase.start()
    assert work(job.pk).status is Status.DONE
    assert counts() == [1] * 3


@contextmanager
def failing_ledger(error: Exception) -> Iterator[None]:
    """Make writing an error into the ledger fail."""

    def execute(run: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and "attempts" in sql.split("=")[0]:
            raise error
        return run(sql, *arguments)

    with connection.execute_wrapper(execute):
        yield


@pytest.mark.django_db(transaction=True)
def test_the_ledger_may_be_in_trouble_too(receivers: Receivers, pauses: list[float]) -> None:
    items(3)
    receivers.connect(post_save, Fail(OperationalError(LOCKED)), Item)
    job = Increase.start()
    with failing_ledger(OperationalError(LOCKED)):
        assert work(job.pk, seconds=0).status is Status.BUSY
    assert only_lane(job).attempts == 0
    receivers.connect(pre_save, Fail(OperationalError(LOCKED)), Item)
    with failing_ledger(DataError("too long")), pytest.raises(DataError):
        work(job.pk, seconds=0)


def test_errors_that_do_not_pass_are_no_trouble() -> None:
    assert databases.trouble(DataError("too long")) is None
    assert databases.trouble(RuntimeError(LOCKED)) is None
    assert databases.trouble(OperationalError()) is None
    assert databases.trouble(OperationalError(1054, "unknown column")) is None


def sever() -> None:
    """Make the server end this connection."""
    ask, end = SEVERING[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(ask)
        (number,) = cursor.fetchone()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute(end, [number])
    other.close()


@pytest.mark.django_db(transaction=True)
@with_lanes_locked
def test_a_lost_connection_is_made_anew(receivers: Receivers, pauses: list[float]) -> None:
    items(3)
    whole = [True]

    def lose(**_: Any) -> None:
        if whole:
            whole.clear()
            sever()

    receivers.connect(pre_save, lose, Item)
    job = Increase.start()
    assert work(job.pk).status is Status.DONE
    assert counts() == [1] * 3
    assert len(pauses) == 1


@pytest.mark.django_db(transaction=True)
@with_lanes_locked
def test_a_connection_that_has_been_lost_before_is_made_anew() -> None:
    items(3)
    job = Increase.start()
    sever()
    assert work(job.pk) == (Status.BUSY, working.BUSY_PAUSE)
    assert work(job.pk).status is Status.DONE


@pytest.mark.django_db(transaction=True)
def test_an_error_of_the_ledger_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job._meta, "db_table", "not_there")
    with pytest.raises(DatabaseError, match="not_there"):
        work(1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only PostgreSQL ends such sessions")
def test_a_worker_that_is_silent_loses_its_session(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    items(3)
    monkeypatch.setattr(Increase, "idle_seconds", 0.5)
    silent = [True]

    def be_silent(**_: Any) -> None:
        if silent:
            silent.clear()
            # Until the server has closed the session.
            select.select([connection.connection.fileno()], [], [], 60)

    receivers.connect(pre_save, be_silent, Item)
    job = Increase.start()
    assert work(job.pk).status is Status.DONE
    assert counts() == [1] * 3
    assert pauses


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="MariaDB and SQLite count in seconds")
def test_a_statement_that_takes_too_long_is_tried_again(receivers: Receivers, pauses: list[float]) -> None:
    items(6)
    job = Increase.start()
    slow = [True]

    def be_slow(instance: Item, **_: Any) -> None:
        if slow:
            slow.clear()
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 1")
                cursor.execute("SELECT pg_sleep(60)")

    receivers.connect(pre_save, be_slow, Item)
    assert work(job.pk).status is Status.DONE
    assert counts() == [1] * 6
    assert len(pauses) == 1


class Elsewhere:
    """Another worker: it holds the lock of a lane until it is released, and may then finish the lane."""

    def __init__(self, lane: Lane, *, done: bool = False) -> None:
        self._lane = lane
        self._done = done
        self._held = threading.Event()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._held.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._thread.join(60)

    def release(self) -> None:
        self._released.set()

    def _hold(self) -> None:
        try:
            with transaction.atomic():
                Lane.objects.select_for_update().get(pk=self._lane.pk)
                self._held.set()
                assert self._released.wait(60)
                Lane.objects.filter(pk=self._lane.pk).update(done=self._done)
        finally:
            connections.close_all()


@pytest.mark.django_db(transaction=True)
@with_lanes_locked
class TestLanesOfOthers:
    def test_a_free_lane_is_taken(self) -> None:
        items(20)
        job = Increase.start(runners=3)
        Job.objects.update(runners=1)
        lanes = job.lanes.order_by("pk")
        with Elsewhere(lanes[0]):
            assert work(job.pk).status is Status.SURPLUS
        assert [lane.done for lane in lanes.all()] == [False, True, True]

    def test_a_lane_is_divided_for_a_worker_without_one(self) -> None:
        items(20)
        job = Increase.start(runners=1)
        Job.objects.update(runners=2)
        lane = only_lane(job)
        with Elsewhere(lane) as other, _on_waiting(other.release):
            assert work(job.pk, seconds=0).status is Status.MORE
        divided = job.lanes.exclude(pk=lane.pk).get()
        lane.refresh_from_db()
        assert (divided.after, divided.cursor) == (lane.upto, lane.upto)
        finish(job)
        assert counts() == [1] * 20

    def test_a_lane_that_is_too_short_is_not_divided(self, pauses: list[float]) -> None:
        items(4)
        job = Increase.start(runners=2)
        with Elsewhere(only_lane(job)):
            outcome = work(job.pk, seconds=0)
        assert outcome == (Status.BUSY, working.BUSY_PAUSE)

    def test_a_lane_that_is_done_meanwhile_is_not_divided(self) -> None:
        items(20)
        job = Increase.start(runners=1)
        Job.objects.update(runners=2)
        with Elsewhere(only_lane(job), done=True) as other, _on_waiting(other.release):
            assert work(job.pk, seconds=0).status is Status.BUSY
        assert job.lanes.get().done

    def test_as_many_workers_as_were_asked_for_are_enough(self) -> None:
        items(20)
        job = Increase.start(runners=1)
        with Elsewhere(only_lane(job)):
            outcome = work(job.pk, seconds=0)
        assert outcome.status is Status.SURPLUS
        assert not outcome.is_left

    def test_a_job_that_is_paused_gives_no_lane(self) -> None:
        items(20)
        job = Increase.start(runners=1)
        control.pause(job.pk)
        with Elsewhere(only_lane(job)):
            assert work(job.pk, seconds=0).status is Status.STOPPED


@contextmanager
def _on_waiting(call: Any) -> Iterator[None]:
    """Call before this connection waits for a lock."""

    def execute(run: Any, sql: str, *arguments: Any) -> Any:
        if "FOR UPDATE" in sql and "SKIP LOCKED" not in sql:
            call()
        return run(sql, *arguments)

    with connection.execute_wrapper(execute):
        yield
