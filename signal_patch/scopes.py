"""The state: which models are on, with which options, in this process and in this context.

Rules never change, so that whoever reads them needs no lock; the process's are replaced, under `lock`.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from threading import Lock, RLock
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from weakref import ReferenceType, ref

from django.apps import apps

from signal_patch.blocks import is_running
from signal_patch.specs import Spec, covers, is_never_signalled, is_permanent, resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from django.db.models import Model

    from signal_patch.callers import Site
    from signal_patch.options import Options


class Origin(NamedTuple):
    """Who turned the switch: a call such as `enable()`, and from which line, or the setting."""

    name: str
    site: Site | None = None


SETTING: Final = Origin("the setting SIGNAL_PATCH")


class Undecided(Enum):
    """The answer of rules that do not speak of a model: neither on nor off."""

    UNDECIDED = "undecided"


UNDECIDED: Final = Undecided.UNDECIDED

# Of the name of an operation, its queryset, Django's method and its arguments.
Observe: TypeAlias = "Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]"

# None is off.
Decision: TypeAlias = "Options | Literal[Undecided.UNDECIDED] | None"


class Rules:
    """Models and what holds for them, in order: the last entry that covers a model decides.

    Immutable, but for what it remembers of its own decisions.
    """

    __slots__ = ("_decisions", "entries", "origins")

    def __init__(self, entries: Mapping[Spec, Options | None], origins: Mapping[Spec, Origin]) -> None:
        self.entries = dict(entries)
        # Who made each entry.
        self.origins = dict(origins)
        self._decisions: dict[Spec, Decision] = {}

    def turned(self, specs: Iterable[Spec], options: Options | None, origin: Origin) -> Rules:
        """Return rules in which these specs have the last word; what they cover whole has no say any more."""
        entries, origins = self.entries, {**self.origins, **dict.fromkeys(specs, origin)}
        for spec in specs:
            entries = {earlier: said for earlier, said in entries.items() if not covers(spec, earlier)}
            entries[spec] = options
        return Rules(entries, {spec: origins[spec] for spec in entries})

    def resolved(self) -> Rules:
        """Return the same rules, with classes for the labels of models."""
        rules = NOTHING
        for spec, options in self.entries.items():
            rules = rules.turned([resolved(spec)], options, self.origins[spec])
        return rules

    def without(self, origin: Origin) -> Rules:
        """Return the rules that others have made."""
        entries = {spec: said for spec, said in self.entries.items() if self.origins[spec] != origin}
        return Rules(entries, {spec: self.origins[spec] for spec in entries})

    def deciding(self, target: Spec) -> Spec | None:
        """Return the spec of the entry that decides on a model, if one does."""
        return next((spec for spec in reversed(self.entries) if covers(spec, target)), None)

    def on(self) -> list[Spec]:
        return [spec for spec, options in self.entries.items() if options is not None]

    def options(self) -> list[Options]:
        return [options for options in self.entries.values() if options is not None]

    def decision(self, target: Spec) -> Decision:
        """Return what these rules say of a model, of an app, or of everything."""
        if not self.entries:
            return UNDECIDED
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
        spec = self.deciding(target)
        return UNDECIDED if spec is None else self.entries[spec]


NOTHING: Final = Rules({}, {})


class Process:
    """What the whole process shares. Write under `lock`."""

    __slots__ = (
        "holds_inserts",
        "marks_rows",
        "observe",
        "opened",
        "overridden",
        "pending",
        "removal_due",
        "rules",
    )

    def __init__(self) -> None:
        self.rules = NOTHING
        # Scopes of all threads and tasks, until their contexts forget them.
        self.opened: set[ReferenceType[Opened]] = set()
        # The last open scope takes the patches off.
        self.removal_due = False
        # Labels given before the models were loaded, to be checked when they are.
        self.pending: set[str] = set()
        # What held before each `override_settings()` of the setting that is open, to be put back.
        self.overridden: list[Rules] = []
        # What runs bulk operations that send nothing, while somebody observes them.
        self.observe: Observe | None = None
        # A mixin is in use: rows in flight are marked whether or not the switch is on.
        self.marks_rows = False
        # And with `batch_inserts`.
        self.holds_inserts = False

    @property
    def open_scopes(self) -> int:
        """The number of scopes that are open in any thread or task."""
        # Looked up, not counted up and down: an exception might come between a scope and its count.
        scopes = (opened() for opened in list(self.opened))
        return sum(scope is not None and scope.is_open() for scope in scopes)


process: Final = Process()
lock: Final = RLock()


class Opened:
    """The rules of a scope, which hold as long as it is open: a context may remember it for longer.

    It is open until it is left or, where an exception kept that from happening, until its block ends: the
    lock is let go of, or is gone.
    """

    __slots__ = ("__weakref__", "_block", "rules")

    def __init__(self, rules: Rules, block: ReferenceType[Lock]) -> None:
        self.rules = rules
        self._block = block

    def is_open(self) -> bool:
        return self.rules is not NOTHING and is_running(self._block)

    def close(self) -> None:
        self.rules = NOTHING

    def is_of(self, block: ReferenceType[Lock]) -> bool:
        return self._block is block

    def decision(self, target: Spec) -> Decision:
        return self.rules.decision(target) if self.is_open() else UNDECIDED


# The open scopes, the innermost first.
_open: Final[ContextVar[tuple[Opened, ...]]] = ContextVar("signal_patch_scopes", default=())


def options_for(model: type[Model], operation: str, default: Options | None = None) -> Options | None:
    """Return the options under which this operation on the model's rows sends signals, or None.

    The innermost open scope that speaks of the model decides, else the process; `default` holds if no scope
    speaks and the process is not on.
    """
    for opened in _open.get():
        decision = opened.decision(model)
        if decision is not UNDECIDED:
            return _permitted(decision, operation)
    decision = process.rules.decision(model)
    if decision is UNDECIDED and default is None:
        # What most calls come to: it is to cost next to nothing.
        return None
    options = _permitted(decision, operation)
    if options is None and default is not None and not is_never_signalled(model):
        return _permitted(default, operation)
    return options


def is_on(target: Spec, operation: str | None = None) -> bool:
    """Say whether a model, an app as such, or everything as such is on in this context, mixins aside."""
    decisions = (rules.decision(target) for rules in _in_effect())
    decision = next((said for said in decisions if said is not UNDECIDED), None)
    if operation is None:
        return decision is not None
    return _permitted(decision, operation) is not None


def is_silenced(model: type[Model]) -> bool:
    """Say whether an open scope says of a model that it is off, as `no_bulk_signals()` does."""
    decisions = (rules.decision(model) for rules in _in_effect() if rules is not process.rules)
    return next((said for said in decisions if said is not UNDECIDED), UNDECIDED) is None


def mixin_options(model: type[Model]) -> dict[str, Options]:
    """Return the options of those of a model's managers whose querysets have the mixin, by their names.

    Manager._queryset_class, Django 5.2 to 6.1.
    """
    found: dict[str, Options] = {}
    for manager in model._meta.managers if process.marks_rows else ():
        queryset_class = getattr(manager, "_queryset_class", None)
        options = getattr(queryset_class, "signal_options", None)
        if options is not None:
            found[manager.name] = options
    return found


def is_on_by_mixin(model: type[Model], operation: str | None = None) -> bool:
    """Say whether bulk operations of a manager of the model send signals in this context."""
    return any(
        options_for(model, name, default) is not None
        for default in mixin_options(model).values()
        for name in ([operation] if operation else sorted(default.operations))
    )


def is_anything_on(operation: str | None = None) -> bool:
    """Say whether any model is on in this context, mixins aside."""
    return any(is_on(spec, operation) for rules in _in_effect() for spec in rules.on())


def enter(opened: Opened) -> None:
    """Open a scope in this context."""
    # Taken out by C code: an exception in a Python callback of a reference would be lost.
    process.opened.add(ref(opened, process.opened.discard))
    _open.set((opened, *_opened()))


def leave(*blocks: ReferenceType[Lock]) -> None:
    """Close the innermost scope of this context that the first of these locks keeps open that keeps one open.

    An async generator may be finalised in another task, where there is none.
    """
    kept = (opened for block in blocks for opened in _opened() if opened.is_of(block))
    opened = next(kept, None)
    if opened is not None:
        opened.close()


def forget_closed() -> None:
    """Drop what is no longer open from this context.

    Never `ContextVar.reset()`: an async generator may be finalised in another task, where its token is
    not valid.
    """
    _open.set(tuple(_opened()))


def _opened() -> Iterator[Opened]:
    return (opened for opened in _open.get() if opened.is_open())


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
    yield from (opened.rules for opened in _opened())
    yield process.rules


def _permitted(decision: Decision, operation: str) -> Options | None:
    if decision is None or decision is UNDECIDED or operation not in decision.operations:
        return None
    return decision
