"""Kills workers while they work on a job, and counts.

    python -m tests.jobs.kills processes
    python -m tests.jobs.kills processes celery-rabbitmq celery-redis tasks --db postgres --kills 20 --rows 20000

For each engine: rows with a receiver that writes an audit row for each, workers of which one after another is
ended by `kill -9` at a random moment, and in the end each row must have been changed once and have one audit row.
"""

from __future__ import annotations
