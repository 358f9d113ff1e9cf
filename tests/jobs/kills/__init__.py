"""Kills workers while they work on a job, and counts.

    python -m tests.jobs.kills processes
    python -m tests.jobs.kills celery-redis --db postgres --kills 20 --rows 20000 --seed 7

A receiver writes an audit row for each change of a row. One worker after another is ended by `kill -9` at a
random moment; in the end each row must have been changed once and have one audit row.
"""

from __future__ import annotations
