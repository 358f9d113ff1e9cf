"""The ledger: what is to be done, how far it is, and which rows failed."""

from __future__ import annotations

from datetime import timedelta

from django.db import models

# A lane that nobody has moved for so long, and nobody has locked, lies idle.
ALIVE = timedelta(minutes=1)


class Job(models.Model):
    """One run of a bulk operation."""

    class Status(models.TextChoices):
        RUNNING = "running"
        PAUSED = "paused"
        CANCELLED = "cancelled"
        # A row failed, and the job stops on errors.
        FAILED = "failed"
        # The code builds another SQL than at the start: no step runs until somebody confirms it.
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
    last_key = models.TextField(null=True)  # noqa: DJ001
    error = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    # When the engine was last asked for runners.
    sent = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"


class Lane(models.Model):
    """
    A range of the primary key that one step at a time works through, in the order of the key.

    Keys are text, so that one table serves every type of key; None stands for no lower limit. A row belongs
    to the lane if its key is beyond `after` and not beyond `upto`; it has been dealt with if its key is not
    beyond `cursor`.
    """

    job = models.ForeignKey(Job, models.CASCADE, related_name="lanes")
    after = models.TextField(null=True)  # noqa: DJ001
    upto = models.TextField()
    cursor = models.TextField(null=True)  # noqa: DJ001
    done = models.BooleanField(default=False)
    rows = models.PositiveBigIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)
    seconds = models.FloatField(default=0)
    # Rows of the next step, and the moving average that it comes from.
    step_size = models.PositiveIntegerField()
    row_seconds = models.FloatField(null=True)
    # How often the next step has been tried in vain, because of a deadlock or the like, and the last error.
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
