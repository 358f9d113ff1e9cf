"""Whatever happens to the workers, the messages and the rows: every row once, every audit row once.

A Hypothesis state machine lets steps run and crash at any statement, messages come twice, lanes be divided,
the job be paused and resumed, and rows be inserted, deleted, and moved into and out of the job's filter. An
oracle of plain dictionaries says what the tables must hold after each of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from signal_patch import no_bulk_signals
from signal_patch.contrib.jobs import control, job_progressed, lanes
from signal_patch.contrib.jobs.models import Job, Lane
from signal_patch.contrib.jobs.working import work
from tests.jobs.bulk_jobs import Increase
from tests.jobs.models import Audit, Item
from tests.jobs.rows import write_audit

KEYS = st.integers(1, 60)
COLOURS = st.sampled_from(["red", "blue"])


class Killed(BaseException):
    """The worker dies here."""


class EveryRowOnce(RuleBasedStateMachine):
    """What the tables hold must be what the steps that have committed make of the rows as they were then."""

    def __init__(self) -> None:
        super().__init__()
        self._transaction = transaction.atomic()
        # Each example leaves no row behind.
        self._transaction._from_testcase = True  # type: ignore[attr-defined]  # as TestCase does
        self._transaction.__enter__()
        self.rows: dict[int, tuple[str, int]] = {}
        self.audits: list[int] = []
        self.covered: list[range] = []

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self._transaction.__exit__(None, None, None)

    @initialize(rows=st.dictionaries(KEYS, COLOURS, max_size=40), runners=st.integers(1, 4))
    def start(self, rows: dict[int, str], runners: int) -> None:
        for key, colour in rows.items():
            self._insert(key, colour)
        self.job = Increase.start(runners=runners)
        self.last = max((key for key, colour in rows.items() if colour == "red"), default=0)

    @rule()
    def work(self) -> None:
        with self._watched():
            work(self.job.pk, seconds=0)

    @rule(statements=st.integers(0, 25))
    def crash_at_a_statement(self, statements: int) -> None:
        left = iter(range(statements))

        def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
            # In a test, savepoints stand for transactions, which a dead worker leaves to the server.
            if "SAVEPOINT" not in sql and next(left, None) is None:
                raise Killed
            return run(sql, *arguments)

        with self._watched(), _dying(), connection.execute_wrapper(execute):
            work(self.job.pk, seconds=0)

    @rule()
    def crash_after_the_commit(self) -> None:
        def die(**_: Any) -> None:
            raise Killed

        job_progressed.connect(die)
        try:
            with self._watched(), _dying():
                work(self.job.pk, seconds=0)
        finally:
            job_progressed.disconnect(die)

    @rule()
    def deliver_a_message_twice(self) -> None:
        for _ in range(2):
            self.work()

    @rule(data=st.data())
    def divide_a_lane(self, data: st.DataObject) -> None:
        if found := list(self.job.lanes.filter(done=False).order_by("pk")):
            lanes.divide(self.job, Increase().operation({}), data.draw(st.sampled_from(found)))

    @precondition(lambda self: not self._is(Job.Status.DONE))
    @rule()
    def pause_or_resume(self) -> None:
        turn = control.pause if self._is(Job.Status.RUNNING) else control.resume
        turn(self.job.pk)

    @rule(key=KEYS, colour=COLOURS)
    def insert_or_move(self, key: int, colour: str) -> None:
        if key in self.rows:
            with no_bulk_signals():
                Item.objects.filter(pk=key).update(colour=colour)
            self.rows[key] = (colour, self.rows[key][1])
        else:
            self._insert(key, colour)

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        Item.objects.filter(pk=key).delete()
        self.rows.pop(key, None)

    @precondition(lambda self: not self._is(Job.Status.PAUSED))
    @rule()
    def finish(self) -> None:
        # Each step covers at least one key.
        for _ in range(self.last + len(self._cursors()) + 1):
            self.work()
        assert self._is(Job.Status.DONE)
        assert sorted(key for part in self.covered for key in part) == list(range(1, self.last + 1))

    @invariant()
    def the_tables_are_as_the_oracle_says(self) -> None:
        assert {
            pk: (colour, n) for pk, colour, n in Item.objects.values_list("pk", "colour", "n")
        } == self.rows
        assert sorted(Audit.objects.values_list("item", flat=True)) == sorted(self.audits)

    @invariant()
    def no_key_is_covered_twice(self) -> None:
        keys = [key for part in self.covered for key in part]
        assert len(keys) == len(set(keys))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let the oracle change the rows that the steps inside have passed."""
        before = self._cursors()
        yield
        for pk, cursor in self._cursors().items():
            part = range(before[pk] + 1, cursor + 1)
            if part:
                self.covered.append(part)
            for key in part:
                self._change(key)

    def _cursors(self) -> dict[int, int]:
        return {lane.pk: int(lane.cursor or 0) for lane in Lane.objects.filter(job=self.job)}

    def _change(self, key: int) -> None:
        colour, n = self.rows.get(key, ("", 0))
        if colour == "red":
            self.rows[key] = (colour, n + 1)
            self.audits.append(key)

    def _insert(self, key: int, colour: str) -> None:
        with no_bulk_signals():
            Item.objects.bulk_create([Item(pk=key, colour=colour)])
        self.rows[key] = (colour, 0)

    def _is(self, status: Job.Status) -> bool:
        return Job.objects.filter(pk=self.job.pk, status=status).exists()


@contextmanager
def _dying() -> Iterator[None]:
    try:
        yield
    except Killed:
        assert not connection.needs_rollback


@pytest.mark.django_db
def test_every_row_once(settings_of_this_run: Any) -> None:
    post_save.connect(write_audit, Item)
    try:
        run_state_machine_as_test(EveryRowOnce, settings=settings_of_this_run)
    finally:
        post_save.disconnect(write_audit, Item)


@pytest.fixture
def settings_of_this_run() -> Any:
    """Return the chosen profile with a tenth of its examples, each of which is many calls."""
    chosen = settings()
    return settings(
        chosen,
        max_examples=chosen.max_examples // 10,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
