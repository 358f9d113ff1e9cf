"""
Bulk operations as jobs: in steps that commit, by any number of processes and machines.

    # shop/bulk_jobs.py
    class RaisePrices(BulkUpdateJob):
        def queryset(self, *, country):
            return Product.objects.filter(country=country)

        def values(self, *, country):
            return {"price": F("price") * Decimal("1.1")}

    RaisePrices.start(country="fr", runners=8)

A job is written into the ledger, which lies in the database that holds the rows, and divided into *lanes*:
ranges of the primary key, each with a cursor. A *step* is one transaction that locks a lane, changes its next
rows, sends their signals and moves the cursor. Processes may be killed at any time, and messages may be lost
or come twice: what counts is what has been committed.

The guarantee: if primary keys do not change, each row of the range fixed at the start that matches when its
step runs is changed, and its effects in the same database commit, exactly once; effects outside it happen at
least once, in `on_commit` at most once; a job is atomic per step, not as a whole. Rows that come into the
range later are changed if their step has not run.
"""

from __future__ import annotations

from .definitions import BulkDeleteJob, BulkUpdateJob
from .signals import job_progressed

__all__ = ["BulkDeleteJob", "BulkUpdateJob", "job_progressed"]
