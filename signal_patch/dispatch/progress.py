"""The progress of a bulk operation, for the `progress` option, the signal `bulk_dispatched` and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.db import connections

from signal_patch.callers import call_site
from signal_patch.options import takes_key
from signal_patch.signals import TooManyRows, bulk_dispatched, limits, logger

if TYPE_CHECKING:
    from django.db.models import Model

    from signal_patch.callers import Site
    from signal_patch.options import Progress

    T = TypeVar("T")

_current: ContextVar[Report | None] = ContextVar("signal_patch_report", default=None)


class Report:
    """The report of one bulk operation. Call it after each batch with the rows done and the total.

    Where batches are committed, also give it the primary key up to which they are.

    Seconds count from its creation. Statements are only counted if `bulk_dispatched` has receivers, and
    without the statements of receivers.
    """

    def __init__(self, operation: str, model: type[Model], using: str) -> None:
        self.operation = operation
        self.model = model
        self.using = using
        # The senders of the signals, in order.
        self.senders: dict[type[Model], None] = {}
        self.done = self.total = self.batches = self.statements = self.already_in_flight = 0
        self.seconds_in_receivers = 0.0
        self.show: Progress = _nothing
        self.has_receivers = bulk_dispatched.has_listeners(model)
        self._rows_of_batch = 0
        # How many rounds of signals are open, one inside the other.
        self.rounds = 0
        self._started = perf_counter()

    @cached_property
    def site(self) -> Site | None:
        """The line of the project's code that called the operation."""
        return call_site()

    @property
    def name(self) -> str:
        return f"{self.model._meta.label}.{self.operation}()"

    @property
    def seconds(self) -> float:
        return perf_counter() - self._started

    @property
    def needs_total(self) -> bool:
        """Whether somebody asks for the number of rows before they are all done."""
        return self.show is not _nothing or self.has_receivers or limits.max_rows is not None

    def begin(self, total: int) -> None:
        """Raise TooManyRows for more rows than the setting MAX_ROWS allows; call it before any signal."""
        if limits.max_rows is not None and total > limits.max_rows:
            raise TooManyRows(
                f"{self.name} of {total} rows, more than MAX_ROWS ({limits.max_rows}), at {self.site}: do it "
                "in parts, or without signals, under no_bulk_signals()"
            )

    def __call__(self, done: int, total: int, key: Any = None) -> None:
        self._rows_of_batch = done - self.done
        self.done, self.total = done, total
        self.batches += 1
        if key is not None and takes_key(self.show):
            self.show(done, total, key=key)
        else:
            self.show(done, total)
        if self.has_receivers and done < total:
            self._send(finished=False)

    def count_in_flight(self, rows: int) -> None:
        """Count rows for which nothing is sent, as their signals are being sent already."""
        self.already_in_flight += rows

    def end(self) -> None:
        """Report that all rows of the operation have had their signals."""
        if self.done:
            if self.has_receivers:
                self._send(finished=True)
            self._log()

    def count(self, execute: Callable[..., T], *statement: Any) -> T:
        """Count a statement; a wrapper for `connection.execute_wrapper()`."""
        self.statements += not self.rounds
        return execute(*statement)

    def _log(self) -> None:
        is_large = limits.warn_rows is not None and self.total > limits.warn_rows
        level = logging.WARNING if is_large else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "%s sent the signals of %d rows in %.2f s, called at %s",
                self.name,
                self.done,
                self.seconds,
                self.site,
            )

    def _send(self, *, finished: bool) -> None:
        # Django logs a receiver that fails. A failing metric is no reason to roll the operation back.
        bulk_dispatched.send_robust(
            sender=self.model,
            operation=self.operation,
            senders=list(self.senders),
            using=self.using,
            rows=self._rows_of_batch,
            done=self.done,
            total=self.total,
            already_in_flight=self.already_in_flight,
            batches=self.batches,
            statements=self.statements,
            seconds=self.seconds,
            # Django itself sends the signals of a delete, so the time of their receivers is not known.
            seconds_in_receivers=None if self.operation == "delete" else self.seconds_in_receivers,
            site=self.site,
            finished=finished,
        )


class PartOfReport(Report):
    """The report of one batch with `atomic=False`. The whole operation reports it, once it is committed."""

    def __init__(self, whole: Report) -> None:
        super().__init__(whole.operation, whole.model, whole.using)
        self._whole = whole
        self.senders = whole.senders

    def begin(self, total: int) -> None:
        pass

    def __call__(self, done: int, total: int, key: Any = None) -> None:
        pass

    def count_in_flight(self, rows: int) -> None:
        self._whole.count_in_flight(rows)


@contextmanager
def reporting(
    operation: str, model: type[Model], using: str, progress: Progress | bool | None = None
) -> Iterator[Report]:
    """Yield the report of an operation, to be called after each batch."""
    report = Report(operation, model, using)
    counting = connections[using].execute_wrapper(report.count) if report.has_receivers else nullcontext()
    outer = _current.get()
    with _showing(progress, model._meta.label) as report.show, counting:
        _current.set(report)
        try:
            yield report
        finally:
            _current.set(outer)
    report.end()


def current_report(operation: str, model: type[Model]) -> Report | None:
    """Return the report of an operation of this name on this model, if this context is inside one."""
    report = _current.get()
    if report is not None and report.operation == operation and report.model is model:
        return report
    return None


@contextmanager
def in_receivers() -> Iterator[None]:
    """Count the time of a block, or of a function, as that of receivers, and do not count its statements."""
    # Signals are only sent inside `reporting()`.
    report = cast("Report", _current.get())
    started = perf_counter()
    report.rounds += 1
    try:
        yield
    finally:
        report.rounds -= 1
        report.seconds_in_receivers += perf_counter() - started


def _nothing(done: int, total: int) -> None:
    pass


@contextmanager
def _showing(progress: Progress | bool | None, label: str) -> Iterator[Progress]:
    if callable(progress):
        yield progress
        return
    if not progress:
        yield _nothing
        return
    # tqdm is only installed with the extra `progress`. Without it, Options has refused True.
    from tqdm import tqdm

    with tqdm(desc=label, unit="row") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
