"""The base classes of jobs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from django.db.models import QuerySet

from signal_patch.contrib.jobs import registry
from signal_patch.contrib.jobs.operations import Delete, Update

if TYPE_CHECKING:
    from collections.abc import Callable

    from signal_patch.contrib.jobs.models import Job
    from signal_patch.contrib.jobs.operations import Operation
    from signal_patch.options import Keywords


class BulkJob(ABC):
    """A bulk operation that runs in steps. Subclass `BulkUpdateJob` or `BulkDeleteJob`, not this class.

    `name` identifies the job in commands and in the ledger; the default is `app_label.ClassName`. The first
    step of a lane changes `first_step` rows; later steps are sized to take about `target_seconds`. A worker
    that is silent for `idle_seconds` inside a step loses its lane (PostgreSQL). `signal_options` are options
    of `bulk_signals()`.
    """

    name: ClassVar[str]
    target_seconds: ClassVar[float] = 1.0
    first_step: ClassVar[int] = 200
    idle_seconds: ClassVar[float] = 60.0
    signal_options: ClassVar[Keywords] = {}

    def __init_subclass__(cls, *, abstract: bool = False, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if not abstract:
            registry.register(cls)

    @abstractmethod
    def queryset(self, *args: Any, **parameters: Any) -> QuerySet[Any]:
        """Return the rows to change. The queryset must depend on the parameters only."""

    def throttle(self) -> float | None:
        """Return how many seconds to wait before the next step, or None. Called again after the wait."""
        return None

    @abstractmethod
    def operation(self, parameters: dict[str, Any]) -> Operation:
        """Build the operation anew and return it; TypeError if the parameters do not fit."""

    @classmethod
    def start(
        cls,
        *,
        runners: int = 1,
        on_error: str = "stop",
        engine: str | None = None,
        started_by: str = "",
        **parameters: Any,
    ) -> Job:
        """Write the job into the ledger and, after the commit, ask the engine for this many runners.

        The parameters must be JSON. `on_error` says what happens when a row fails: the job stops ("stop"), or
        the row is recorded and skipped ("skip"). `engine` is one of "processes", "celery" and "tasks", or the
        path of an `Engine` class; the setting `SIGNAL_PATCH_JOBS_ENGINE` is the default. With "processes" the
        job waits for `manage.py bulk_jobs run ID`.

        Returns the job. Raises TypeError if the parameters do not fit or are not JSON; ValueError, with the
        reasons, if the job cannot be done in steps; ImproperlyConfigured if the engine cannot be used.

            RaisePrices.start(country="fr", runners=8)
        """
        # Not at the top: this module is imported before the models are loaded.
        from signal_patch.contrib.jobs.control import start

        return start(
            cls, parameters, runners=runners, on_error=on_error, engine=engine, started_by=started_by
        )


class BulkUpdateJob(BulkJob, abstract=True):
    """An `update()` that runs in steps.

    class RaisePrices(BulkUpdateJob):
        def queryset(self, *, country):
            return Product.objects.filter(country=country)

        def values(self, *, country):
            return {"price": F("price") * Decimal("1.1")}
    """

    @abstractmethod
    def values(self, *args: Any, **parameters: Any) -> dict[str, Any]:
        """Return the arguments of `update()`. They must depend on the parameters only."""

    def operation(self, parameters: dict[str, Any]) -> Operation:
        rows = _rows(self, parameters)
        return Update(rows, _called(self, self.values, parameters), self.signal_options)


class BulkDeleteJob(BulkJob, abstract=True):
    """A `delete()` that runs in steps.

    PROTECT and RESTRICT raise their errors in the step that meets them, after earlier steps have committed.

        class ForgetVisits(BulkDeleteJob):
            def queryset(self, *, before):
                return Visit.objects.filter(day__lt=before)
    """

    def operation(self, parameters: dict[str, Any]) -> Operation:
        return Delete(_rows(self, parameters), self.signal_options)


def _rows(job: BulkJob, parameters: dict[str, Any]) -> QuerySet[Any]:
    rows = _called(job, job.queryset, parameters)
    if not isinstance(rows, QuerySet):
        raise TypeError(f"{job.name}: queryset() must return a queryset, not {type(rows).__name__}")
    return rows


def _called(job: BulkJob, method: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    signature = inspect.signature(method)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise TypeError(
            f"{job.name}: {error} of {method.__name__}{signature}; given are "
            f"{sorted(parameters) or 'none'} (bulk_jobs takes them as --param NAME=VALUE)"
        ) from None
    return method(**parameters)
