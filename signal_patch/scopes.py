"""The state: which models are on, with which options, in this process and in this context.

Rules never change, so that whoever reads them needs no lock; the process's are replaced, under `lock`.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from threading import RLock
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from django.apps import apps

from signal_patch.specs import Spec, covers, is_never_signalled, is_permanent, resolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.db.models import Model

    from signal_patch.options import Options


class Unsaid(Enum):
    """The answer of rules that do not speak of a model: neither on nor off."""

    UNSAID = "unsaid"


UNSAID: Final = Unsaid.UNSAID

# None is off.
Decision: TypeAlias = "Options | Literal[Unsaid.UNSAID] | None"


class Rules:
    """
    Models and what holds for them, in order: the last entry that covers a model decides.

    Immutable, but for what it remembers of its own decisions.
    """

    __slots__ = ("_decisions", "entries")

    def __init__(self, entries: Mapping[Spec, Options | None]) -> None:
        self.entries = dict(entries)
        self._decisions: dict[Spec, Decision] = {}

    def turned(self, specs: Iterable[Spec], options: Options | None) -> Rules:
        """Return rules in which these specs have the last word; what they cover whole has no say any more."""
        entries = self.entries
        for spec in specs:
            entries = {earlier: said for earlier, said in entries.items() if not covers(spec, earlier)}
            entries[spec] = options
        return Rules(entries)

    def resolved(self) -> Rules:
        """Return the same rules, with classes for the labels of models."""
        rules = NOTHING
        for spec, options in self.entries.items():
            rules = rules.turned([resolved(spec)], options)
        return rules

    def on(self) -> list[Spec]:
        return [spec for spec, options in self.entries.items() if options is not None]

    def options(self) -> list[Options]:
        return [options for options in self.entries.values() if options is not None]

    def decision(self, target: Spec) -> Decision:
        """Return what these rules say of a model, of an app, or of everything."""
        if not self.entries:
            return UNSAID
        try:
            return self._decisions[target]
        except KeyError:
            return self._decide(target)

    def _decide(self, target: Spec) -> Decision:
        decision = self._last_word(target)
        # Other classes, such as a migration's, would be kept alive by being remembered.
        if is_permanent(target):
            self._decisions[target] = decision
        return decision

    def _last_word(self, target: Spec) -> Decision:
        if is_never_signalled(target):
            return None
        return next((said for spec, said in reversed(self.entries.items()) if covers(spec, target)), UNSAID)


NOTHING: Final = Rules({})


class Process:
    """What the whole process shares. Write under `lock`."""

    __slots__ = ("holds_inserts", "marks_rows", "open_scopes", "pending", "removal_due", "rules")

    def __init__(self) -> None:
        self.rules = NOTHING
        # Scopes open in any thread or task, and whether the last of them takes the patches off.
        self.open_scopes = 0
        self.removal_due = False
        # Labels given before the models were loaded, to be checked when they are.
        self.pending: set[str] = set()
        # A mixin is in use: rows in flight are marked whether or not the switch is on.
        self.marks_rows = False
        # And with `batch_inserts`.
        self.holds_inserts = False


process: Final = Process()
lock: Final = RLock()


class Opened:
    """The rules of an open scope; nothing, once it is closed: a task started inside may outlive it."""

    __slots__ = ("rules",)

    def __init__(self, rules: Rules) -> None:
        self.rules = rules


# The open scopes, the innermost first.
_open: Final[ContextVar[tuple[Opened, ...]]] = ContextVar("signal_patch_scopes", default=())


def options_for(model: type[Model], operation: str, default: Options | None = None) -> Options | None:
    """
    Return the options under which this operation on the model's rows sends signals, or None: it sends none.

    The innermost open scope that speaks of the model decides, else the process; `default` holds if no scope
    speaks and the process is not on.
    """
    for opened in _open.get():
        decision = opened.rules.decision(model)
        if decision is not UNSAID:
            return _permitted(decision, operation)
    decision = process.rules.decision(model)
    if decision is UNSAID and default is None:
        # What most calls come to: it is to cost next to nothing.
        return None
    options = _permitted(decision, operation)
    if options is None and default is not None and not is_never_signalled(model):
        return _permitted(default, operation)
    return options


def is_on(target: Spec, operation: str | None = None) -> bool:
    """Say whether a model, an app as such, or everything as such is on in this context."""
    decisions = (rules.decision(target) for rules in _in_effect())
    decision = next((said for said in decisions if said is not UNSAID), None)
    if operation is None:
        return decision is not None
    return _permitted(decision, operation) is not None


def is_anything_on(operation: str | None = None) -> bool:
    """Say whether any model is on in this context."""
    return any(is_on(spec, operation) for rules in _in_effect() for spec in rules.on())


def enter(rules: Rules) -> None:
    """Open a scope in this context."""
    with lock:
        process.open_scopes += 1
    _open.set((Opened(rules), *_open.get()))


def leave(rules: Rules) -> None:
    """
    Close the innermost scope of these rules.

    Never `ContextVar.reset()`: an async generator may be finalised in another task, where its token is
    not valid, and neither is there anything to close.
    """
    with lock:
        process.open_scopes -= 1
    scopes = _open.get()
    for opened in scopes:
        if opened.rules is rules:
            opened.rules = NOTHING
            _open.set(tuple(other for other in scopes if other is not opened))
            return


def resolve_pending() -> None:
    """Check the labels that were given before the models were loaded: LookupError for a wrong one."""
    with lock:
        pending, process.pending = process.pending, set()
        for label in sorted(pending):
            resolved(label)
        process.rules = process.rules.resolved()


def await_models(specs: Iterable[Spec]) -> bool:
    """Remember the labels among these for `resolve_pending()`, and say whether there is need of it."""
    if not apps.models_ready:
        process.pending.update(spec for spec in specs if isinstance(spec, str))
    return bool(process.pending)


def _in_effect() -> Iterator[Rules]:
    yield from (opened.rules for opened in _open.get())
    yield process.rules


def _permitted(decision: Decision, operation: str) -> Options | None:
    if decision is None or decision is UNSAID or operation not in decision.operations:
        return None
    return decision
