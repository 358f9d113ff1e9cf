"""The classes that a job is written as."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from . import registry
from .operations import Delete, Update

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet

    from signal_patch.options import Keywords

    from .models import Job
    from .operations import Operation


class BulkJob(ABC):
    """
    A bulk operation that is done in steps. Subclass `BulkUpdateJob` or `BulkDeleteJob`, not this class.

    `name` is what commands and the ledger call it: `app_label.ClassName`, unless the body says otherwise.
    The first step of a lane changes `first_step` rows, later ones as many as take `target_seconds`. A worker
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
        """Return the rows that are to be changed. It must depend on nothing but the parameters."""

    def throttle(self) -> float | None:
        """Return how many seconds to wait before the next step, or None; asked again after the wait."""
        return None

    @abstractmethod
    def operation(self, parameters: dict[str, Any]) -> Operation:
        """Return what is to be done, built anew; TypeError if the parameters are not those it takes."""

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
        """
        Write the job into the ledger, and ask the engine for so many runners once that has committed.

        The parameters must be JSON. `on_error` says what happens when a row fails: the job stops, or the row
        is recorded and skipped ("skip"). `engine` is one of "processes", "celery" and "tasks", or the path of
        an `Engine` class; the setting `SIGNAL_PATCH_JOBS_ENGINE` is the default. ValueError, with the
        reasons, for what cannot be done in steps.

            RaisePrices.start(country="fr", runners=8)
        """
        # Not at the top: this module is imported before the models are loaded.
        from .control import start

        return start(
            cls, parameters, runners=runners, on_error=on_error, engine=engine, started_by=started_by
        )


class BulkUpdateJob(BulkJob, abstract=True):
    """
    An `update()` that is done in steps.

        class RaisePrices(BulkUpdateJob):
            def queryset(self, *, country):
                return Product.objects.filter(country=country)

            def values(self, *, country):
                return {"price": F("price") * Decimal("1.1")}
    """

    @abstractmethod
    def values(self, *args: Any, **parameters: Any) -> dict[str, Any]:
        """Return what `update()` is given. It must depend on nothing but the parameters."""

    def operation(self, parameters: dict[str, Any]) -> Operation:
        rows = _called(self, self.queryset, parameters)
        return Update(rows, _called(self, self.values, parameters), self.signal_options)


class BulkDeleteJob(BulkJob, abstract=True):
    """
    A `delete()` that is done in steps.

    PROTECT and RESTRICT are found in the step in which they occur, when the steps before it have committed.

        class ForgetVisits(BulkDeleteJob):
            def queryset(self, *, before):
                return Visit.objects.filter(day__lt=before)
    """

    def operation(self, parameters: dict[str, Any]) -> Operation:
        return Delete(_called(self, self.queryset, parameters), self.signal_options)


def _called(job: BulkJob, method: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    signature = inspect.signature(method)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise TypeError(
            f"{job.name}: {error} of {method.__name__}{signature}; given are {sorted(parameters) or 'none'}"
        ) from None
    return method(**parameters)
