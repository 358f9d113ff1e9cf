"""What is locked when and in which order, and what is read of locked rows (contract, section 1.3)."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from tests.startup import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# SQLite: a transaction that has read can't begin to write while another one writes.


def _start(path: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.contending", str(path), str(rounds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the lock is SQLite's")
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_operations_of_several_processes_wait_for_each_other(journal: str, tmp_path: Path) -> None:
    path, rounds = tmp_path / "db.sqlite3", 3
    database = sqlite3.connect(path)
    assert database.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    database.close()
    with _start(path, 0) as maker:
        assert maker.wait() == 0
    with ExitStack() as stack:
        writers = [stack.enter_context(_start(path, rounds)) for _ in range(4)]
        assert [_said(writer) for writer in writers] == ["ready\n"] * 4
        for writer in writers:
            _say(writer, "go\n")
        found: list[dict[str, Any]] = [json.loads(_said(writer)) for writer in writers]
    assert [report["failed"] for report in found] == [[]] * 4
    assert [report["unlocked"] for report in found] == [[]] * 4
    # Three operations add one to each.
    assert max(report["counts"] for report in found) == [4 * rounds * 3] * 4
