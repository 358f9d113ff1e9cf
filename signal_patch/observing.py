"""Which bulk operations send nothing, by call site, and who would have heard them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
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
    from collections.abc import Callable, Iterable, Iterator

    from django.db.models import Model

    from signal_patch.callers import Site

Action: TypeAlias = Literal["log", "raise", "collect"]

# As it is for what an async method of a related manager does.
UNKNOWN: Final = "an unknown line"

logger: Final = logging.getLogger("signal_patch.observe")


class MissedSignals(RuntimeError):
    """A bulk operation sent nothing, though somebody listens: what `observe(action="raise")` raises."""


@dataclass
class Missed:
    """The calls of one operation on one model's rows, from one line, of which receivers did not hear."""

    model: type[Model]
    operation: str
    # Those that the caller writes, as far as they are known.
    fields: tuple[str, ...]
    site: Site | None
    # The classes of the rows, of which a polymorphic model has several.
    senders: list[type[Model]]
    # By the names of the signals.
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
            "if it is meant so: no_bulk_signals()"
        )


class Observation:
    """What has been observed: `missed` and, where it was meant so, `suppressed`; `str()` gives a table.

    Meant so is what happens under `no_bulk_signals()`, in a function of the setting QUIET, or on a line
    within one of the `ignore`d packages, modules, classes or functions, given by their dotted paths.
    """

    def __init__(self, action: Action = "log", ignore: Iterable[str] = ()) -> None:
        self.action = action
        self.ignore = tuple(ignore)
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

    def note(self, found: Missed, rows: int, *, meant: bool) -> None:
        """Count one call. MissedSignals, if that is the action, and it is not meant so."""
        site = found.site
        meant = meant or (site is not None and any(map(site.is_within, self.ignore)))
        noted = self._suppressed if meant else self._missed
        with self._lock:
            known = noted.setdefault((site, found.model, found.operation, found.fields), found)
            known.calls += 1
            known.rows += rows
            known.receivers = known.receivers or _receivers(known.senders)
            calls = known.calls
        if meant:
            return
        if self.action == "raise":
            raise MissedSignals(str(known))
        # The first time, and then at powers of ten.
        if self.action == "log" and calls == 10 ** (len(str(calls)) - 1):
            # As it is now: a handler may write it later.
            logger.warning("%s", str(known))

    def clear(self) -> None:
        """Forget what has been observed."""
        with self._lock:
            self._missed.clear()
            self._suppressed.clear()


@contextmanager
def observe(*, action: Action = "log", ignore: Iterable[str] = ()) -> Iterator[Observation]:
    """Collect the bulk operations of this thread or task that send nothing, though somebody listens.

    It sends nothing and changes nothing. Each is logged to `signal_patch.observe` the first time, and at
    powers of ten; with `action="raise"` it is a MissedSignals error instead, and with "collect" neither.
    `ignore` holds dotted paths of packages, modules, classes or functions in which it is meant so.

        with observe() as observation:
            expire_old_orders()
        print(observation)

    Rows of `update()`, `bulk_update()`, `bulk_create()` and of a delete's SET_NULL, SET_DEFAULT and SET()
    are observed; not those that the database itself removes or changes. Not missed, either, is what receivers
    do to rows of the model whose signals are being sent: the switch would send nothing for these.
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
    """Observe this thread or task no longer."""
    _observers.discard(observation)
    _here.set(tuple(other for other in _here.get() if other is not observation))


def is_begun(observation: Observation) -> bool:
    """Say whether it observes this thread or task."""
    return any(other is observation for other in _here.get())


def observe_process(action: Action | None, ignore: Iterable[str] = ()) -> None:
    """Observe the whole process, or with None end it."""
    with scopes.lock:
        if action is not None:
            process.action, process.ignore = _checked(action), tuple(ignore)
        _observers.discard(process)
        if action is not None:
            _observers.add(process)


def report() -> str:
    """Return what is to be written of the process when it ends."""
    if process not in _observers.open:
        return ""
    if not process.missed and not process.suppressed:
        return "\nNo bulk operation went unheard.\n"
    return f"\nBulk operations that sent nothing:\n{process}\n"


class _Observers:
    """Those that are at work; operations are observed as long as there is one."""

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


# What the setting OBSERVE collects, through all its changes.
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
    """Run an operation that sends nothing, and note who would have heard it."""
    model = queryset.model
    observations = [*_here.get(), process] if process in _observers.open else _here.get()
    senders = [] if in_flight.is_silent(model) or not observations else _senders(queryset)
    if not sending.hears_saves(senders):
        return _call(operation, queryset, original, args, keywords)
    is_meant = scopes.is_silenced(model) or callers.quiet.is_caller()
    result = _call(operation, queryset, original, args, keywords)
    rows = _rows(operation, result, args)
    if rows and not _is_any_in_flight(model):
        name = "update" if operation == "update_batch" else operation
        fields, site = _fields(operation, args, keywords), callers.call_site()
        for observation in observations:
            observation.note(Missed(model, name, fields, site, senders), rows, meant=is_meant)
    return result


def _call(
    operation: str,
    queryset: Any,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
) -> Any:
    if operation != "bulk_update":
        return original(queryset, *args, **keywords)
    # The update() inside it is not the caller's.
    with in_flight.silence(queryset.model):
        return original(queryset, *args, **keywords)


def _is_any_in_flight(model: type[Model]) -> bool:
    # In any database: a router that is asked which of them it is may answer differently the next time.
    return in_flight.innermost_flight() is not None and any(
        in_flight.is_any_in_flight(using, model) for using in connections
    )


def _senders(queryset: Any) -> list[type[Model]]:
    if is_never_signalled(queryset.model):
        return []
    # What a cascade changes by keys is no queryset.
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
    # An iterator has been used up.
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
