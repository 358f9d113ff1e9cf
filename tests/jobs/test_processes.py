"""`bulk_jobs run --processes`: real processes on an SQLite file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

PREPARE = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from tests.jobs.models import Item
Item.objects.bulk_create([Item() for _ in range(300)])
"""

ITEMS = "SELECT n, count(*) FROM jobs_item GROUP BY n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with some rows."""
    file = tmp_path / "jobs.sqlite3"
    run(file, "-c", PREPARE)
    return file


def run(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.jobs.file_settings",
        "JOBS_FILE": str(file),
    }
    command = [sys.executable, "-W", "error::DeprecationWarning", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def queried(file: Path, sql: str) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(sql).fetchall()


def test_several_processes_change_each_row_once(file: Path) -> None:
    ran = run(file, "-m", "django", "bulk_jobs", "run", "jobs.Increase", "--processes", "2")
    assert ran.returncode == 0, ran.stderr
    assert "done, 100.0%, 300 rows" in ran.stdout
    assert queried(file, ITEMS) == [(1, 300)]


def test_a_process_that_is_killed_is_replaced(file: Path) -> None:
    ran = run(file, "-m", "django", "bulk_jobs", "run", "jobs.DieOnce", "--processes", "2")
    assert ran.returncode == 0, ran.stderr
    assert queried(file, ITEMS) == [(1, 300)]
    assert queried(file, "SELECT count(*) > 0, 0 FROM jobs_box") == [(1, 0)]


def test_a_process_that_ends_with_an_error_is_reported(file: Path) -> None:
    ran = run(file, "-m", "django", "bulk_jobs", "run", "jobs.Broken", "--processes", "2")
    assert ran.returncode == 1
    assert "ZeroDivisionError" in ran.stderr
    assert "ended with an error" in ran.stderr
    assert queried(file, ITEMS) == [(0, 300)]


def test_an_interrupted_run_says_how_to_go_on(file: Path) -> None:
    ran = run(file, "-m", "django", "bulk_jobs", "run", "jobs.Interrupted")
    assert ran.returncode == 1
    assert "bulk_jobs run 1" in ran.stderr
    assert queried(file, ITEMS) == [(0, 300)]


def test_processes_end_with_the_one_that_started_them(file: Path) -> None:
    # `subprocess` waits for all that hold the pipes.
    ran = run(file, "-m", "django", "bulk_jobs", "run", "jobs.Orphan", "--processes", "2")
    assert ran.returncode == -signal.SIGKILL
    assert queried(file, ITEMS) == [(0, 300)]
