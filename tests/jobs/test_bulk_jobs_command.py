"""`manage.py bulk_jobs`."""

from __future__ import annotations

import getpass
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.signals import post_save

from signal_patch.contrib.jobs import control
from signal_patch.contrib.jobs.models import Job
from signal_patch.contrib.jobs.working import work
from tests.jobs.bulk_jobs import Increase
from tests.jobs.engine import NOTEBOOK
from tests.jobs.models import Item
from tests.jobs.rows import counts, finish, items
from tests.recording import Receivers

pytestmark = pytest.mark.django_db


def bulk_jobs(*arguments: str) -> list[str]:
    output = StringIO()
    call_command("bulk_jobs", *arguments, stdout=output)
    return output.getvalue().splitlines()


def test_run_starts_a_job_and_works_on_it_until_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    items(4, colour="blue")
    items(2)
    (line,) = bulk_jobs("run", "jobs.Increase", "--param", "colour=blue")
    job = Job.objects.get()
    assert line == f'{job.pk}: jobs.Increase {{"colour": "blue"}} done, 100.0%, 4 rows'
    assert counts() == [1] * 4 + [0] * 2
    assert job.started_by == getpass.getuser()
    assert "jobs.Increase" in capsys.readouterr().err


def test_without_tqdm_progress_is_shown_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    items(4)
    monkeypatch.setattr(
        "signal_patch.contrib.jobs.management.commands.bulk_jobs.find_spec", lambda name: None
    )
    lines = bulk_jobs("run", "jobs.Increase")
    assert lines[0] == "100.0%, 4 rows"


def test_run_takes_a_job_from_the_ledger() -> None:
    items(4)
    job = Increase.start()
    assert "done" in bulk_jobs("run", str(job.pk))[0]
    assert counts() == [1] * 4


def test_some_steps_and_a_look_at_them() -> None:
    items(20)
    (line,) = bulk_jobs("run", "jobs.Increase", "--steps", "2")
    job = Job.objects.get()
    assert line.startswith(f"{job.pk}: jobs.Increase {{}} paused, ")
    assert sum(counts()) == 7

    assert "done" in bulk_jobs("run", str(job.pk))[0]
    assert counts() == [1] * 20


def test_all_the_steps_that_there_are() -> None:
    items(4)
    assert "done" in bulk_jobs("run", "jobs.Increase", "--steps", "9")[0]


def test_a_job_that_fails_is_an_error(receivers: Receivers) -> None:
    rows = items(4)
    refused = {rows[1].pk}

    def refuse(instance: Item, **_: Any) -> None:
        if instance.pk in refused:
            raise RuntimeError("no")

    receivers.connect(post_save, refuse, Item)
    with pytest.raises(CommandError, match=f"job .* has failed: Row {rows[1].pk}: RuntimeError: no"):
        bulk_jobs("run", "jobs.Increase")
    job = Job.objects.get()
    shown = bulk_jobs("show", str(job.pk))
    assert "failed" in shown[0]
    assert f"Row {rows[1].pk}: RuntimeError: no" in shown
    assert f"  row {rows[1].pk}: RuntimeError: no" in shown
    with pytest.raises(CommandError):
        bulk_jobs("run", str(job.pk))
    # It was tried again.
    assert Job.objects.get().failed_rows.count() == 1
    refused.clear()
    assert "done, 100.0%, 4 rows" in bulk_jobs("run", str(job.pk))[0]
    assert not Job.objects.get().failed_rows.exists()


def test_rows_that_fail_can_be_skipped(receivers: Receivers) -> None:
    rows = items(2)

    def refuse(instance: Item, **_: Any) -> None:
        if instance.pk == rows[0].pk:
            raise RuntimeError("no")

    receivers.connect(post_save, refuse, Item)
    assert "done, 100.0%, 1 rows, 1 failed" in bulk_jobs("run", "jobs.Increase", "--on-error", "skip")[0]
    assert counts() == [0, 1]
    assert "1 failed" in bulk_jobs("list")[-1]


def test_start_leaves_the_work_to_the_engine() -> None:
    items(20)
    (line,) = bulk_jobs("start", "jobs.Increase", "--runners", "2", "--engine", NOTEBOOK)
    job = Job.objects.get()
    assert line == f"{job.pk}: jobs.Increase {{}} running, 0.0%, 0 rows"
    assert (job.runners, job.engine, sum(counts())) == (2, NOTEBOOK, 0)


def test_a_job_that_waits_for_a_command_says_so() -> None:
    items(4)
    _, advice = bulk_jobs("start", "jobs.Increase")
    job = Job.objects.get()
    assert advice == f"  it waits for `manage.py bulk_jobs run {job.pk}`, which works on it"
    bulk_jobs("pause", str(job.pk))
    assert bulk_jobs("resume", str(job.pk))[1] == advice


def test_pause_resume_and_cancel() -> None:
    items(4)
    job = Increase.start()
    pk = str(job.pk)
    assert "paused" in bulk_jobs("pause", pk)[0]
    assert bulk_jobs("resume") == []
    assert "running" in bulk_jobs("resume", pk)[0]
    assert "running" in bulk_jobs("resume")[0]
    assert "cancelled" in bulk_jobs("cancel", pk)[0]


def test_list_names_the_jobs_and_what_is_in_the_ledger() -> None:
    items(4)
    job = Increase.start()
    lines = bulk_jobs("list")
    assert "jobs.Retire" in lines
    assert lines[-1] == f"{job.pk}: jobs.Increase {{}} running, 0.0%, 0 rows"


def test_show_tells_what_a_job_would_do() -> None:
    items(4, colour="7")
    shown = "\n".join(bulk_jobs("show", "jobs.Increase", "--param", 'colour="7"'))
    assert shown.startswith("UPDATE jobs.Item SET n = ")
    assert "rows: 4" in shown
    assert not Job.objects.exists()


def test_show_tells_how_far_a_job_is() -> None:
    rows = items(20)
    job = Increase.start(runners=2)
    work(job.pk, seconds=0)
    line, _, _, first, second = bulk_jobs("show", str(job.pk))
    assert "running, " in line
    assert " rows/s, " in line
    assert line.endswith(" s left")
    shown = first + second
    assert "3 rows, 1 steps, at " in shown
    assert "0 %, 0 rows, 0 steps, at " in shown
    assert len(rows) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "jobs.Nothing"), "no bulk job is called 'jobs.Nothing'; there are "),
        (("run", "999"), "there is no bulk job 999"),
        (("show", "999"), "there is no bulk job 999"),
        (("pause", "999"), "there is no bulk job 999"),
        (
            ("run", "jobs.Increase", "--param", "colour"),
            "--param takes NAME=VALUE, such as country=fr, not 'colour'",
        ),
        (("run", "jobs.Increase", "--param", "size=3"), "unexpected keyword argument 'size'"),
        (("run", "jobs.Increase", "--processes", "0"), "--processes must be at least 1, not 0"),
        (("run", "jobs.Increase", "--steps", "0"), "--steps must be at least 1, not 0"),
        (("start", "jobs.Increase", "--engine", "rabbit"), "unknown engine 'rabbit'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_started(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        bulk_jobs(*arguments)
    assert not Job.objects.exists()


def test_a_job_that_is_done_cannot_be_run_again() -> None:
    items(1)
    job = Increase.start()
    finish(job)
    with pytest.raises(CommandError, match="is done and cannot be resumed"):
        bulk_jobs("run", str(job.pk))


def test_a_job_whose_engine_waits_is_worked_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    items(4)
    waits = iter([5.0])
    slept: list[float] = []
    monkeypatch.setattr(Increase, "throttle", lambda self: next(waits, None))
    monkeypatch.setattr(time, "sleep", slept.append)
    assert "done" in bulk_jobs("run", "jobs.Increase")[0]
    assert slept == [5.0]


def test_progress_of_a_job_whose_keys_are_not_measured() -> None:
    items(1)
    job = Increase.start()
    control.pause(job.pk)
    assert "0.0%" in bulk_jobs("show", str(job.pk))[0]
