"""Which range of the key a worker takes, and how a range is divided for one more worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps

from signal_patch.contrib.jobs.keys import Scale, from_text, to_text
from signal_patch.contrib.jobs.models import Lane
from signal_patch.contrib.jobs.operations import in_key_order
from signal_patch.dispatch.rows.ranges import between

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from signal_patch.contrib.jobs.models import Job
    from signal_patch.contrib.jobs.operations import Operation

# If the middle cannot be computed, it is found by counting at most this many rows of the lane.
COUNTED_ROWS = 20_000


def range_of(operation: Operation) -> tuple[Any, Any] | None:
    """Return the lowest and the highest key of an operation's rows, or None if there are no rows."""
    keys = operation.keys()
    low = keys.first()
    high = keys.reverse().first()
    # Rows may be deleted between the two queries.
    return None if low is None or high is None else (low, high)


def plan(job: Job, operation: Operation, upto: str, *, step_size: int) -> None:
    """Write the lanes of a new job: one for each runner, as far as the range can be divided."""
    lanes = [Lane.objects.using(operation.using).create(job=job, upto=upto, step_size=step_size)]
    while len(lanes) < job.runners:
        divided = divide_largest(job, operation, lanes)
        if divided is None:
            return
        lanes.append(divided)


def divide_largest(job: Job, operation: Operation, lanes: list[Lane]) -> Lane | None:
    """Divide the largest lane that can be divided. The caller holds the locks of all of them."""
    for lane in by_size(job, lanes):
        if divided := divide(job, operation, lane):
            return divided
    return None


def by_size(job: Job, lanes: list[Lane]) -> list[Lane]:
    """Return lanes by the width of what is left of them, the widest first."""
    return sorted(lanes, key=JobScale(job).remaining, reverse=True)


def divide(job: Job, operation: Operation, lane: Lane) -> Lane | None:
    """Move the second half of a lane's remaining range to a new lane, and return the new lane.

    Returns None if too few rows remain for two steps. The caller holds the lane's lock.
    """
    if not is_divisible(operation, lane):
        return None
    model = operation.model
    rows = _rows_left(operation, lane)
    upto = from_text(model, lane.upto)
    scale = Scale(from_text(model, lane.cursor or str(job.first_key)), upto)
    key = _row_near(rows, upto, scale.middle())
    if key is None:
        key = _row_by_counting(rows, upto)
    divided = Lane.objects.using(operation.using).create(
        job=job,
        after=to_text(key),
        cursor=to_text(key),
        upto=lane.upto,
        step_size=lane.step_size,
        row_seconds=lane.row_seconds,
    )
    lane.upto = to_text(key)
    Lane.objects.using(operation.using).filter(pk=lane.pk).update(upto=lane.upto)
    return divided


def is_divisible(operation: Operation, lane: Lane) -> bool:
    """Return whether a lane has enough remaining rows for two steps."""
    enough = 2 * lane.step_size
    return bool(in_key_order(_rows_left(operation, lane))[enough - 1 : enough])


class JobScale:
    """Measures lanes along the range of a job's keys."""

    def __init__(self, job: Job) -> None:
        self._model = apps.get_model(job.model)
        self._scale = Scale(self._key(job.first_key), self._key(job.last_key))

    def remaining(self, lane: Lane) -> float:
        """Return the remaining part of a lane, as a share of the job's whole range."""
        return 0.0 if lane.done else self._width(lane.cursor, lane.upto)

    def width(self, lane: Lane) -> float:
        """Return a lane's share of the job's whole range."""
        return self._width(lane.after, lane.upto)

    def _width(self, after: str | None, upto: str) -> float:
        start = 0.0 if after is None else self._scale.share(self._key(after))
        return max(self._scale.share(self._key(upto)) - start, 0.0)

    def _key(self, text: str | None) -> Any:
        return None if text is None else from_text(self._model, text)


def _row_near(rows: QuerySet[Any], upto: Any, middle: Any) -> Any:
    """Return the last key up to the middle. The database compares, so the key is always inside the lane."""
    if middle is None:
        return None
    return in_key_order(rows.filter(pk__lte=middle, pk__lt=upto)).reverse().first()


def _row_by_counting(rows: QuerySet[Any], upto: Any) -> Any:
    keys = in_key_order(rows)
    middle = max(keys[:COUNTED_ROWS].count() // 2, 1)
    return next(iter(keys[middle - 1 : middle]), upto)


def _rows_left(operation: Operation, lane: Lane) -> QuerySet[Any]:
    """Return the table's rows between a lane's cursor and its end.

    A lane can be divided at any row, so the job's own condition, which may be slow, is left out.
    """
    model = operation.model
    after = None if lane.cursor is None else from_text(model, lane.cursor)
    everything = model._base_manager.using(operation.using).all()
    return between(everything, after, from_text(model, lane.upto))
