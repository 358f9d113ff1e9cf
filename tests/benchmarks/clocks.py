"""Clocks: one for wall-clock time, and one for processor time, which a busy machine does not disturb."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, process_time

from django.db import connection

from .racing import Clock


def clock(chosen: str) -> Clock:
    """Return a clock in seconds.

    "cpu" counts the processor's time of this process and of PostgreSQL's process for this
    connection, where Linux shows it. It does not see MariaDB's, nor waiting of any kind.
    """
    if chosen == "wall":
        return perf_counter
    server = _server_process()
    if server is None:
        return process_time
    return lambda: process_time() + _seconds_of(server)


def _server_process() -> Path | None:
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    file = Path(f"/proc/{pid}/schedstat")
    return file if file.exists() else None


def _seconds_of(server: Path) -> float:
    # Its first number is nanoseconds on a processor (Linux, Documentation/scheduler/sched-stats).
    return int(server.read_text(encoding="ascii").split()[0]) / 1e9
