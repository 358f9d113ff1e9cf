"""The default engine, which needs no other package: processes that `manage.py bulk_jobs run` starts."""

from __future__ import annotations

import math
import time
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Final

from signal_patch.contrib.jobs.engines import Engine
from signal_patch.contrib.jobs.engines.child import work_until_done
from signal_patch.contrib.jobs.working import work

if TYPE_CHECKING:
    from collections.abc import Callable

# How often progress is reported.
_SECONDS: Final = 1.0


class ProcessEngine(Engine):
    """Sends nothing: the job waits in the ledger until somebody runs it."""

    starts_workers = False

    def send(self, job_id: int, delay: float = 0.0) -> None:  # noqa: ARG002  # as every engine
        return


def run_here(job_id: int, report: Callable[[], object]) -> None:
    """Work on a job in this process until it is done or stopped, and report about every second."""
    while (outcome := work(job_id, _SECONDS)).is_left:
        report()
        time.sleep(outcome.delay)
    report()


def run_steps(job_id: int, steps: int) -> None:
    """Run this many steps of a job in this process, however long they take."""
    work(job_id, math.inf, steps)


def run_in_processes(job_id: int, processes: int, report: Callable[[], object]) -> None:
    """Work on a job in this many processes until it is done or stopped, and report about every second.

    A process that is killed is replaced. RuntimeError if one ends with an error, which it has printed. The
    processes are spawned, not forked, so that they share no connection with this one.
    """
    children = [_start(job_id) for _ in range(processes)]
    try:
        while children:
            connection.wait([child.sentinel for child in children], _SECONDS)
            report()
            children = [_kept(job_id, child) for child in children if child.exitcode != 0]
    finally:
        for child in children:
            child.terminate()
            child.join()


def _start(job_id: int) -> BaseProcess:
    child = get_context("spawn").Process(target=work_until_done, args=(job_id,), daemon=True)
    child.start()
    return child


def _kept(job_id: int, child: BaseProcess) -> BaseProcess:
    if child.exitcode is None:
        return child
    if child.exitcode > 0:
        raise RuntimeError(f"a process that worked on job {job_id} ended with an error")
    return _start(job_id)
