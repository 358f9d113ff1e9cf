"""The state: which models are on, with which options, in this process and in this context.

Rules never change, so that whoever reads them needs no lock; the process's are replaced, under `lock`.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from threading import RLock
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from weakref import ref

from django.apps import apps

from signal_patch.specs import Spec, covers, is_never_signalled, is_permanent, resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
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
    """The answer of rules that do not cover a model: neither on nor off."""

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
        "open_scopes",
        "overridden",
        "pending",
        "removal_due",
        "rules",
    )

    def __init__(self) -> None:
        self.rules = NOTHING
        # Of all threads and tasks.
        self.open_scopes: set[Reference] = set()
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


process: Final = Process()
lock: Final = RLock()


class OpenScope:
    """A scope that was entered is open until it is left, or until this object is gone.

    Only the `with` statement refers to it, so that it is gone with the statement. No variable of a function
    may: somebody may keep the traceback of an exception, which keeps the variables of all functions in it.
    """

    __slots__ = ("__weakref__",)


class Reference(ref[OpenScope]):
    """A weak reference to an open scope, found in a set by its own identity, also when its object is gone."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


# The scopes of this context, the innermost first. A context may remember one for longer than it is open.
_entered: Final[ContextVar[tuple[tuple[Reference, Rules], ...]]] = ContextVar(
    "signal_patch_scopes", default=()
)


def options_for(model: type[Model], operation: str, default: Options | None = None) -> Options | None:
    """Return the options under which this operation on the model's rows sends signals, or None.

    The innermost open scope that covers the model wins; otherwise the process-wide setting applies. `default`
    holds if no scope covers the model and the process is not on.
    """
    for reference, rules in _entered.get():
        decision = rules.decision(model) if reference in process.open_scopes else UNDECIDED
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


def reference_to(scope: OpenScope) -> Reference:
    """Return the reference by which an open scope is known."""
    # The callback is C code: an exception in a Python callback of a reference would be lost.
    return Reference(scope, process.open_scopes.discard)


def enter(reference: Reference, rules: Rules) -> None:
    """Open a scope in this context."""
    process.open_scopes.add(reference)
    _entered.set(((reference, rules), *_open()))


def leave(reference: Reference) -> None:
    """Close a scope.

    Never `ContextVar.reset()`: an async generator may be finalised in another task, where its token is not
    valid.
    """
    process.open_scopes.discard(reference)
    _entered.set(tuple(_open()))


def innermost(rules: Rules, default: Reference) -> Reference:
    """Return the innermost open scope of this context with these rules, or the default."""
    return next((reference for reference, entered in _open() if entered is rules), default)


def _open() -> list[tuple[Reference, Rules]]:
    return [entry for entry in _entered.get() if entry[0] in process.open_scopes]


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


def _in_effect() -> list[Rules]:
    return [*(rules for _, rules in _open()), process.rules]


def _permitted(decision: Decision, operation: str) -> Options | None:
    if decision is None or decision is UNDECIDED or operation not in decision.operations:
        return None
    return decision
