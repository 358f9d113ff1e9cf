"""A scheduler that learns from receivers that its tasks have changed."""

from __future__ import annotations

from collections.abc import Iterator

from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

from signal_patch import bulk_signals
from tests.packages.comparing import Claim


def run() -> Iterator[Claim]:
    every = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    PeriodicTask.objects.create(name="a", task="a", interval=every)
    before = PeriodicTasks.last_change()
    PeriodicTask.objects.update(enabled=False)
    yield Claim(
        "off: the scheduler does not see that an update() disables tasks", PeriodicTasks.last_change(), before
    )
    with bulk_signals(PeriodicTask):
        PeriodicTask.objects.update(enabled=True)
    yield Claim("on: it does", PeriodicTasks.last_change() > before, True)
