"""The workers of each engine: how they are started, and which processes can be killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

COMMANDS = {
    "processes": ["-m", "django", "bulk_jobs", "run", "{job}", "--processes", "{count}"],
    "celery": [
        *("-m", "celery", "-A", "tests.jobs.kills.celery_app", "worker", "--pool", "solo", "-c", "1"),
        *("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "-n", "{name}@kills"),
    ],
    "tasks": ["-m", "django", "db_worker", "--interval", "0.1", "--no-startup-delay"],
}

BROKERS = {
    "celery-rabbitmq": "amqp://guest:guest@127.0.0.1:5672//",
    "celery-redis": "redis://127.0.0.1:6379/9",
}


class Workers:
    """The workers of an engine: killed, they are started again."""

    def __init__(self, engine: str, job_id: int, count: int, choice: random.Random) -> None:
        self._engine = engine.partition("-")[0]
        self._environment = {**os.environ, "JOBS_BROKER": BROKERS.get(engine, "")}
        self._job_id = job_id
        self._count = count
        self._choice = choice
        self._started = 0
        # The engine "processes" needs only one command: that starts the processes.
        self._running = [self._start() for _ in range(1 if engine == "processes" else count)]

    def kill_one(self) -> bool:
        """Kill one of the working processes, if there is one."""
        victims = [pid for worker in self._running if worker.poll() is None for pid in _family(worker.pid)]
        if not victims:
            return False
        try:
            os.kill(self._choice.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def replace_the_dead(self) -> None:
        self._running = [self._start() if worker.poll() is not None else worker for worker in self._running]

    def end(self) -> None:
        for worker in self._running:
            for pid in _family(worker.pid):
                os.kill(pid, signal.SIGKILL)
            worker.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        words = {"job": self._job_id, "name": f"w{self._started}", "count": self._count}
        command = [word.format(**words) for word in COMMANDS[self._engine]]
        return subprocess.Popen(
            [sys.executable, *command],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=None if "JOBS_VERBOSE" in os.environ else subprocess.DEVNULL,
        )


def _family(pid: int) -> list[int]:
    """Return a process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [pid, *map(int, children.split())]
