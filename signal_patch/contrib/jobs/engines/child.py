"""What a process of `bulk_jobs run` does. It is imported before Django is set up."""

from __future__ import annotations

import multiprocessing
import signal
import time

import django
from django.db import close_old_connections


def work_until_done(job_id: int) -> None:
    """Work on a job until it is done or stopped, or the process that started this one is gone."""
    # Ctrl-C goes to all processes of a terminal; the parent ends its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    django.setup()
    from ..working import work

    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        outcome = work(job_id, 2.0)
        if not outcome.is_left:
            return
        close_old_connections()
        time.sleep(outcome.delay)
