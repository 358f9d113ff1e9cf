"""The state: which models are on, with which options, in this process and in this context.

Rules are immutable, so reading them needs no lock. The rules of the process are replaced, under `lock`.
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
    """What turned the switch: a call, such as `enable()`, with its line of code; or the setting."""

    name: str
    site: Site | None = None


SETTING: Final = Origin("the setting SIGNAL_PATCH")


class Undecided(Enum):
    """The answer of rules that do not cover a model: neither on nor off."""

    UNDECIDED = "undecided"


UNDECIDED: Final = Undecided.UNDECIDED

# It is called with the operation's name, its queryset, Django's method and the arguments.
Observe: TypeAlias = "Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]"

# None means off.
Decision: TypeAlias = "Options | Literal[Undecided.UNDECIDED] | None"


class Rules:
    """Models with their options, in order: the last entry that covers a model decides.

    Immutable, except for a cache of its decisions.
    """

    __slots__ = ("_decisions", "entries", "origins")

    def __init__(self, entries: Mapping[Spec, Options | None], origins: Mapping[Spec, Origin]) -> None:
        self.entries = dict(entries)
        # Who made each entry.
        self.origins = dict(origins)
        self._decisions: dict[Spec, Decision] = {}

    def turned(self, specs: Iterable[Spec], options: Options | None, origin: Origin) -> Rules:
        """Return rules in which these specs decide last; entries that they cover completely are dropped."""
        entries, origins = self.entries, {**self.origins, **dict.fromkeys(specs, origin)}
        for spec in specs:
            entries = {earlier: given for earlier, given in entries.items() if not covers(spec, earlier)}
            entries[spec] = options
        return Rules(entries, {spec: origins[spec] for spec in entries})

    def resolved(self) -> Rules:
        """Return the same rules, with model classes in place of their labels."""
        rules = NOTHING
        for spec, options in self.entries.items():
            rules = rules.turned([resolved(spec)], options, self.origins[spec])
        return rules

    def without(self, origin: Origin) -> Rules:
        """Return the rules without the entries of this origin."""
        entries = {spec: options for spec, options in self.entries.items() if self.origins[spec] != origin}
        return Rules(entries, {spec: self.origins[spec] for spec in entries})

    def deciding(self, target: Spec) -> Spec | None:
        """Return the spec of the entry that decides for a model, or None."""
        return next((spec for spec in reversed(self.entries) if covers(spec, target)), None)

    def on(self) -> list[Spec]:
        return [spec for spec, options in self.entries.items() if options is not None]

    def options(self) -> list[Options]:
        return [options for options in self.entries.values() if options is not None]

    def decision(self, target: Spec) -> Decision:
        """Return what these rules decide for a model, an app or every model."""
        if not self.entries:
            return UNDECIDED
        try:
            return self._decisions[target]
        except KeyError:
            return self._decide(target)

    def _decide(self, target: Spec) -> Decision:
        decision = self._uncached_decision(target)
        # Caching other classes, such as those of migrations, would keep them alive.
        if is_permanent(target):
            self._decisions[target] = decision
        return decision

    def _uncached_decision(self, target: Spec) -> Decision:
        if is_never_signalled(target):
            return None
        spec = self.deciding(target)
        return UNDECIDED if spec is None else self.entries[spec]


NOTHING: Final = Rules({}, {})


class Process:
    """State that the whole process shares. Change it under `lock` only."""

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
        # The open scopes of all threads and tasks.
        self.open_scopes: set[Reference] = set()
        # Whether the patches are to be removed when the last open scope is left.
        self.removal_due = False
        # Labels that were given before the models were loaded, and are checked when they are.
        self.pending: set[str] = set()
        # The rules before each override_settings(SIGNAL_PATCH=…) that is active; they are restored after it.
        self.overridden: list[Rules] = []
        # Runs the bulk operations that send no signals, while somebody observes them.
        self.observe: Observe | None = None
        # Whether a queryset class has the mixin: then rows in flight are marked even if the switch is off.
        self.marks_rows = False
        # Whether such a class uses `batch_inserts`.
        self.holds_inserts = False


process: Final = Process()
lock: Final = RLock()


class OpenScope:
    """An entered scope. It is open until it is left, or until this object is deleted.

    Only the `with` statement refers to this object, so that it is deleted with the statement. No local
    variable may refer to it: if somebody keeps the traceback of an exception, it keeps the local variables of
    all its functions.
    """

    __slots__ = ("__weakref__",)


class Reference(ref[OpenScope]):
    """A weak reference to an open scope. A set finds it by its own identity, even if the scope is deleted."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


# The scopes of this context, innermost first. Scopes that have been left may still be among them.
_entered: Final[ContextVar[tuple[tuple[Reference, Rules], ...]]] = ContextVar(
    "signal_patch_scopes", default=()
)


def options_for(model: type[Model], operation: str, default: Options | None = None) -> Options | None:
    """Return the options under which this operation on the model's rows sends signals, or None.

    The innermost open scope that covers the model wins; otherwise the process-wide setting applies. `default`
    is used if no scope covers the model and the process-wide setting does not turn it on.
    """
    for reference, rules in _entered.get():
        decision = rules.decision(model) if reference in process.open_scopes else UNDECIDED
        if decision is not UNDECIDED:
            return _permitted(decision, operation)
    decision = process.rules.decision(model)
    if decision is UNDECIDED and default is None:
        # Most calls end here, so this must be fast.
        return None
    options = _permitted(decision, operation)
    if options is None and default is not None and not is_never_signalled(model):
        return _permitted(default, operation)
    return options


def is_on(target: Spec, operation: str | None = None) -> bool:
    """Return whether a model, an app or every model is on in this context, apart from mixins."""
    decisions = (rules.decision(target) for rules in in_effect())
    decision = next((found for found in decisions if found is not UNDECIDED), None)
    if operation is None:
        return decision is not None
    return _permitted(decision, operation) is not None


def is_silenced(model: type[Model]) -> bool:
    """Return whether an open scope turns the model off, as `no_bulk_signals()` does."""
    decisions = (rules.decision(model) for rules in in_effect() if rules is not process.rules)
    return next((found for found in decisions if found is not UNDECIDED), UNDECIDED) is None


def mixin_options(model: type[Model]) -> dict[str, Options]:
    """Return, by manager name, the options of a model's managers whose querysets have the mixin.

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
    """Return whether the mixin makes a manager of the model send signals in this context."""
    return any(
        options_for(model, name, default) is not None
        for default in mixin_options(model).values()
        for name in ([operation] if operation else sorted(default.operations))
    )


def is_anything_on(operation: str | None = None) -> bool:
    """Return whether any model is on in this context, apart from mixins."""
    return any(is_on(spec, operation) for rules in in_effect() for spec in rules.on())


def reference_to(scope: OpenScope) -> Reference:
    """Return a weak reference to an open scope. It closes the scope when the object is deleted."""
    # The callback is C code, because an exception in a Python callback would be lost.
    return Reference(scope, process.open_scopes.discard)


def enter(reference: Reference, rules: Rules) -> None:
    """Open a scope in this context."""
    process.open_scopes.add(reference)
    _entered.set(((reference, rules), *_open()))


def leave(reference: Reference) -> None:
    """Close a scope.

    It does not call `ContextVar.reset()`: an async generator may be finalized in another task, where its
    token is not valid.
    """
    process.open_scopes.discard(reference)
    _entered.set(tuple(_open()))


def innermost(rules: Rules, default: Reference) -> Reference:
    """Return the innermost open scope of this context with these rules, or the default."""
    return next((reference for reference, entered in _open() if entered is rules), default)


def _open() -> list[tuple[Reference, Rules]]:
    return [entry for entry in _entered.get() if entry[0] in process.open_scopes]


def resolve_pending() -> None:
    """Check the labels that were given before the models were loaded; raise LookupError for a wrong one."""
    with lock:
        pending, process.pending = process.pending, set()
        for label in sorted(pending):
            resolved(label)
        process.rules = process.rules.resolved()


def await_models(specs: Iterable[Spec]) -> bool:
    """Remember the labels among these until the models are loaded; return whether any are waiting."""
    if not apps.models_ready:
        process.pending.update(spec for spec in specs if isinstance(spec, str))
    return bool(process.pending)


def in_effect() -> list[Rules]:
    """Return the rules of the open scopes of this context, innermost first, and then those of the process."""
    return [*(rules for _, rules in _open()), process.rules]


def _permitted(decision: Decision, operation: str) -> Options | None:
    if decision is None or decision is UNDECIDED or operation not in decision.operations:
        return None
    return decision
