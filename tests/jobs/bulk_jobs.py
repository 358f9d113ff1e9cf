"""Jobs as in a project: they are found because the module is named `bulk_jobs`."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any, cast

from django.db.models import F, QuerySet

from signal_patch.contrib.jobs import BulkDeleteJob, BulkUpdateJob
from tests.jobs.kills.dying import die_once
from tests.jobs.models import Box, Country, Item, Pallet, Parcel, Reading


class Increase(BulkUpdateJob):
    """Changes rows in a way that shows how often each was changed."""

    first_step = 3

    def queryset(self, *, colour: str = "red") -> QuerySet[Item]:
        return Item.objects.filter(colour=colour)

    def values(self, *, colour: str = "red") -> dict[str, Any]:
        return {"n": F("n") + 1}


class Retire(BulkUpdateJob):
    """Makes rows stop matching its own filter."""

    def queryset(self) -> QuerySet[Item]:
        return Item.objects.filter(active=True)

    def values(self) -> dict[str, Any]:
        return {"active": False, "n": F("n") + 1}


class CountCountries(BulkUpdateJob):
    first_step = 2

    def queryset(self) -> QuerySet[Country]:
        return Country.objects.all()

    def values(self) -> dict[str, Any]:
        return {"n": F("n") + 1}


class CountParcels(CountCountries):
    def queryset(self) -> QuerySet[Any]:
        return Parcel.objects.all()


class CountReadings(CountCountries):
    def queryset(self) -> QuerySet[Any]:
        return Reading.objects.all()


class CountPallets(CountCountries):
    def queryset(self) -> QuerySet[Any]:
        return Pallet.objects.all()


class RemoveBoxes(BulkDeleteJob):
    first_step = 2

    def queryset(self) -> QuerySet[Box]:
        return Box.objects.all()


class DieOnce(Increase):
    """Kills the process that first works on it."""

    def throttle(self) -> float | None:
        die_once()
        return None


class Broken(Increase):
    """Cannot be worked on."""

    def throttle(self) -> float | None:
        raise ZeroDivisionError


class Interrupted(Increase):
    """Acts as if somebody pressed Ctrl-C during its work."""

    def throttle(self) -> float | None:
        # Whoever runs the tests in the background of a shell has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
        return None


class Orphan(Increase):
    """Kills the process that has started this one, then waits for longer than a process works at a time."""

    def throttle(self) -> float | None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        # Never kill another process: one may have adopted this process meanwhile.
        os.kill(cast("int", parent.pid) if parent.is_alive() else os.getpid(), signal.SIGKILL)
        return 3.0
