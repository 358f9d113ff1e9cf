"""Observes bulk operations that send no signals: their call sites, and the receivers that miss them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from django.db import connections
from django.db.models import QuerySet

from signal_patch import callers, scopes, switch
from signal_patch.dispatch.signals import in_flight, sending
from signal_patch.signals import Listener, listeners
from signal_patch.specs import is_never_signalled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from signal_patch.callers import Site

Action: TypeAlias = Literal["log", "raise", "collect"]

# The call site of an async method of a related manager is unknown.
UNKNOWN: Final = "an unknown line"

logger: Final = logging.getLogger("signal_patch.observe")


class MissedSignals(RuntimeError):
    """A bulk operation sent no signals, though there are receivers. `observe(action="raise")` raises it."""


@dataclass
class Missed:
    """Calls of one operation on one model, from one line of code, whose signals receivers missed."""

    model: type[Model]
    operation: str
    # The fields that the caller writes, as far as they are known.
    fields: tuple[str, ...]
    site: Site | None
    # The senders of the signals. A polymorphic model has several.
    senders: list[type[Model]]
    # By signal name.
    receivers: dict[str, list[Listener]] = field(default_factory=dict)
    calls: int = 0
    rows: int = 0

    @property
    def name(self) -> str:
        return f"{self.model.__name__}.{self.operation}({', '.join(self.fields)})"

    @property
    def counts(self) -> str:
        return ", ".join(
            f"{signal} \N{MULTIPLICATION SIGN}{len(heard)}" for signal, heard in self.receivers.items()
        )

    def __str__(self) -> str:
        paths = dict.fromkeys(str(receiver) for heard in self.receivers.values() for receiver in heard)
        return (
            f"{self.name} missed {self.counts}\n"
            f"  {self.site or UNKNOWN}    {_number(self.calls, 'call')}, {_number(self.rows, 'row')}\n"
            f"  missed: {', '.join(paths)}\n"
            f"  to send them: with bulk_signals({self.model.__name__}):   "
            "if that is intended: no_bulk_signals()"
        )


class Observation:
    """What has been observed: operations whose signals were `missed`, and those that were `suppressed`.

    An operation is suppressed if it is meant to send nothing. It is under `no_bulk_signals()`, or in a
    function that the setting QUIET names, or on a line in one of the packages, modules, classes or functions
    whose dotted paths are in `ignore`. `str()` gives a table.
    """

    def __init__(self, action: Action = "log", ignore: Iterable[str] = ()) -> None:
        self.action = action
        self.ignore = _paths(ignore)
        self._lock = Lock()
        self._missed: dict[object, Missed] = {}
        self._suppressed: dict[object, Missed] = {}

    @property
    def missed(self) -> list[Missed]:
        return _by_rows(self._missed)

    @property
    def suppressed(self) -> list[Missed]:
        return _by_rows(self._suppressed)

    def __str__(self) -> str:
        rows = [
            ("calls", "rows", "operation", "missed", "call site"),
            *(_row(missed, missed.counts) for missed in self.missed),
            *(_row(missed, "suppressed") for missed in self.suppressed),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for calls, count, *texts in rows:
            numbers = [calls.rjust(widths[0]), count.rjust(widths[1])]
            aligned = [text.ljust(width) for text, width in zip(texts, widths[2:], strict=True)]
            lines.append("  ".join([*numbers, *aligned]).rstrip())
        return "\n".join(lines)

    def note(self, found: Missed, rows: int, *, intended: bool) -> None:
        """Count a call; raise MissedSignals if that is the action and the call is not `intended`."""
        site = found.site
        intended = intended or (site is not None and any(map(site.is_within, self.ignore)))
        noted = self._suppressed if intended else self._missed
        with self._lock:
            known = noted.setdefault((site, found.model, found.operation, found.fields), found)
            known.calls += 1
            known.rows += rows
            known.receivers = known.receivers or _receivers(known.senders)
            calls = known.calls
        if intended:
            return
        if self.action == "raise":
            raise MissedSignals(str(known))
        # The first call is logged, and then those at powers of ten.
        if self.action == "log" and calls == 10 ** (len(str(calls)) - 1):
            # Formatted now, because a handler may write it later, when the numbers have changed.
            logger.warning("%s", str(known))

    def clear(self) -> None:
        """Forget what has been observed."""
        with self._lock:
            self._missed.clear()
            self._suppressed.clear()


@contextmanager
def observe(*, action: Action = "log", ignore: Iterable[str] = ()) -> Iterator[Observation]:
    """Collect the bulk operations of this thread or task that send no signals, though there are receivers.

    It sends nothing and changes nothing. Each operation is logged to `signal_patch.observe` the first time,
    and then at powers of ten. `action="raise"` raises MissedSignals instead; `action="collect"` does neither.
    `ignore` holds the dotted paths of packages, modules, classes or functions whose operations are meant to
    send nothing. Raises ValueError for another action, TypeError if `ignore` is no collection of strings.

        with observe() as observation:
            expire_old_orders()
        print(observation)

    It observes `update()`, `bulk_update()`, `bulk_create()`, and the SET_NULL, SET_DEFAULT and SET() rows of
    a delete, but not the rows that the database itself removes or changes. Operations on a model whose rows
    are in flight are not counted, because the switch sends nothing for rows in flight.
    """
    observation = Observation(_checked(action), ignore)
    begin(observation)
    try:
        yield observation
    finally:
        end(observation)


def begin(observation: Observation) -> None:
    """Observe this thread or task, until `end()` is called in it."""
    _here.set((*_here.get(), observation))
    _observers.add(observation)


def end(observation: Observation) -> None:
    """Stop observing this thread or task."""
    _observers.discard(observation)
    _here.set(tuple(other for other in _here.get() if other is not observation))


def is_begun(observation: Observation) -> bool:
    """Return whether this observation is observing this thread or task."""
    return any(other is observation for other in _here.get())


def observe_process(action: Action | None, ignore: Iterable[str] = ()) -> None:
    """Observe the whole process, or stop observing it if the action is None."""
    with scopes.lock:
        if action is not None:
            process.action, process.ignore = _checked(action), _paths(ignore)
        _observers.discard(process)
        if action is not None:
            _observers.add(process)


def report() -> str:
    """Return the report to write when the process ends."""
    if process not in _observers.open:
        return ""
    if not process.missed and not process.suppressed:
        return "\nNo signals of bulk operations were missed.\n"
    return f"\nBulk operations that sent nothing:\n{process}\n"


class _Observers:
    """The open observations. Operations are observed as long as there is one."""

    def __init__(self) -> None:
        self.open: tuple[Observation, ...] = ()

    def add(self, observation: Observation) -> None:
        with scopes.lock:
            self.open = (*self.open, observation)
            switch.set_observer(_run)

    def discard(self, observation: Observation) -> None:
        with scopes.lock:
            self.open = tuple(other for other in self.open if other is not observation)
            switch.set_observer(_run if self.open else None)


def _paths(ignore: object) -> tuple[str, ...]:
    given = None if isinstance(ignore, str) or not isinstance(ignore, Iterable) else tuple(ignore)
    if given is None or not all(isinstance(path, str) for path in given):
        raise TypeError(f"ignore must be a list of dotted paths, such as ['shop.jobs'], not {ignore!r}")
    return given


# What the setting OBSERVE collects. It stays when the setting changes.
process: Final = Observation()

_here: Final[ContextVar[tuple[Observation, ...]]] = ContextVar("signal_patch_observations", default=())
_observers: Final = _Observers()


def _run(
    operation: str,
    queryset: Any,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
) -> Any:
    """Run an operation that sends no signals, and note which receivers miss them."""
    model = queryset.model
    observations = [*_here.get(), process] if process in _observers.open else _here.get()
    senders = [] if in_flight.is_silent(model) or not observations else _senders(queryset)
    is_missed = sending.has_save_receivers(senders)
    is_intended = is_missed and (scopes.is_silenced(model) or callers.quiet.is_caller())
    # Django's bulk_update() calls update(), which is not an operation of the caller's.
    with in_flight.silence(model) if operation == "bulk_update" else nullcontext():
        result = original(queryset, *args, **keywords)
    rows = _rows(operation, result, args) if is_missed else 0
    if rows and not _is_any_in_flight(model):
        name = "update" if operation == "update_batch" else operation
        fields, site = _fields(operation, args, keywords), callers.call_site()
        for observation in observations:
            observation.note(Missed(model, name, fields, site, senders), rows, intended=is_intended)
    return result


def _is_any_in_flight(model: type[Model]) -> bool:
    # In any database, because asking a router for the right one may change its answer to Django.
    return in_flight.innermost_flight() is not None and any(
        in_flight.is_any_in_flight(using, model) for using in connections
    )


def _senders(queryset: Any) -> list[type[Model]]:
    if is_never_signalled(queryset.model):
        return []
    # For `update_batch` it is an UpdateQuery, not a queryset.
    return sending.senders(queryset) if isinstance(queryset, QuerySet) else [queryset.model]


def _receivers(senders: list[type[Model]]) -> dict[str, list[Listener]]:
    found: dict[str, dict[Listener, None]] = {}
    for sender in senders:
        for signal, heard in listeners(sender, ["pre_save", "post_save"]).items():
            found.setdefault(signal, {}).update(dict.fromkeys(heard))
    return {signal: list(heard) for signal, heard in found.items()}


def _rows(operation: str, result: Any, args: tuple[Any, ...]) -> int:
    if operation == "bulk_create":
        return len(result)
    return len(args[0]) if operation == "update_batch" else int(result)


def _fields(operation: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[str, ...]:
    if operation == "update":
        return tuple(keywords)
    if operation == "update_batch":
        return tuple(args[1])
    fields = keywords.get("fields", args[1] if len(args) > 1 else ())
    # An iterator has already been consumed.
    return tuple(fields) if operation == "bulk_update" and isinstance(fields, list | tuple) else ()


def _checked(action: Action) -> Action:
    if action not in get_args(Action):
        raise ValueError(f"action must be one of {', '.join(map(repr, get_args(Action)))}, not {action!r}")
    return action


def _by_rows(noted: dict[object, Missed]) -> list[Missed]:
    return sorted(noted.values(), key=lambda missed: missed.rows, reverse=True)


def _row(missed: Missed, what: str) -> tuple[str, str, str, str, str]:
    calls, rows = (f"{number:,}".replace(",", " ") for number in (missed.calls, missed.rows))
    return calls, rows, missed.name, what, str(missed.site or UNKNOWN)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")
