"""The ledger: the jobs, their progress, and the rows that failed."""

from __future__ import annotations

from datetime import timedelta

from django.db import models

# A lane is idle if nobody has locked it and its last step is longer ago than this.
IDLE_AFTER = timedelta(minutes=1)


class Job(models.Model):
    """One run of a bulk operation."""

    class Status(models.TextChoices):
        RUNNING = "running"
        PAUSED = "paused"
        CANCELLED = "cancelled"
        # A row failed, and the job stops on errors.
        FAILED = "failed"
        # The SQL has changed since the start: no step runs until somebody confirms it.
        CHANGED = "changed"
        DONE = "done"

    class OnError(models.TextChoices):
        STOP = "stop"
        SKIP = "skip"

    name = models.CharField(max_length=200)
    model = models.CharField(max_length=200)
    parameters = models.JSONField(default=dict)
    sql = models.TextField()
    fingerprint = models.CharField(max_length=64)
    engine = models.CharField(max_length=200)
    runners = models.PositiveIntegerField()
    on_error = models.CharField(max_length=10, choices=OnError.choices, default=OnError.STOP)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.RUNNING)
    started_by = models.CharField(max_length=150, blank=True)
    # The lowest and the highest key at the start, as text: progress is measured between them.
    first_key = models.TextField(null=True)  # noqa: DJ001  # an empty text is a key too
    last_key = models.TextField(null=True)  # noqa: DJ001  # as above
    error = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    # When the engine was last asked for runners.
    sent = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"


class Lane(models.Model):
    """A range of the primary key, processed in key order by one step at a time.

    Keys are stored as text, so that one table serves every type of key. None means that there is no lower
    limit. A row belongs to the lane if `after < key <= upto`; it has been processed if `key <= cursor`.
    """

    job = models.ForeignKey(Job, models.CASCADE, related_name="lanes")
    after = models.TextField(null=True)  # noqa: DJ001  # as above
    upto = models.TextField()
    cursor = models.TextField(null=True)  # noqa: DJ001  # as above
    done = models.BooleanField(default=False)
    rows = models.PositiveBigIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)
    seconds = models.FloatField(default=0)
    # The number of rows of the next step, and the average time per row that it is computed from.
    step_size = models.PositiveIntegerField()
    row_seconds = models.FloatField(null=True)
    # How often the next step has failed with a temporary error, such as a deadlock, and the last error.
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    worker = models.CharField(max_length=200, blank=True)
    stepped = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"lane {self.pk} of job {self.job_id}"


class FailedRow(models.Model):
    """A row on which a receiver or the database raised an error."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="failed_rows")
    key = models.TextField()
    error = models.TextField()
    traceback = models.TextField()
    skipped = models.BooleanField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"row {self.key} of job {self.job_id}"
