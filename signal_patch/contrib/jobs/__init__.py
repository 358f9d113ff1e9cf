"""Bulk operations as jobs: in steps that commit, by any number of processes and machines.

    # shop/bulk_jobs.py
    class RaisePrices(BulkUpdateJob):
        def queryset(self, *, country):
            return Product.objects.filter(country=country)

        def values(self, *, country):
            return {"price": F("price") * Decimal("1.1")}

    RaisePrices.start(country="fr", runners=8)

A job is recorded in the *ledger*, the tables of this app, which must be in the same database as the rows to
change. A *runner* is what an engine is asked for: a message in a queue, or a process. A *worker* is the
process that works on the job for it. The job is divided into *lanes*: ranges of the primary key, each with a
cursor. A *step* is one transaction that locks a lane, changes its next rows, sends their signals and moves
the cursor. Processes may be killed at any time, and messages may be lost or arrive twice: only what has been
committed counts.

The guarantee requires that primary keys do not change. The range of keys is fixed at the start. Each row in
it that matches when its step runs is changed exactly once, and its effects in the same database commit
exactly once. Effects outside the database happen at least once; in `on_commit`, at most once. A job is atomic
per step, not as a whole. Rows that are added to the range later are changed if their step has not run.
"""

from __future__ import annotations

from signal_patch.contrib.jobs.definitions import BulkDeleteJob, BulkUpdateJob
from signal_patch.contrib.jobs.signals import job_progressed

__all__ = ["BulkDeleteJob", "BulkUpdateJob", "job_progressed"]
