"""Explains what a bulk operation would do, without running it."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import isclass, unwrap
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from django.db import connections
from django.db.models import Model, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable
from django.db.models.signals import post_init, pre_init

from signal_patch import scopes
from signal_patch.dispatch import backends
from signal_patch.dispatch.rows import loading, querysets, ranges, related
from signal_patch.dispatch.signals import in_flight, sending
from signal_patch.dispatch.values.plan import Planner, may_be_refused, may_read_itself
from signal_patch.options import Options, changed
from signal_patch.signals import listeners
from signal_patch.specs import is_never_signalled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Explained: TypeAlias = Literal["update", "delete"]

_SIGNALS: dict[str, tuple[str, str]] = {
    "update": ("pre_save", "post_save"),
    "delete": ("pre_delete", "post_delete"),
}


@dataclass(frozen=True)
class Explanation:
    """What an operation would do; `str()` gives a readable text."""

    model: type[Model]
    operation: Explained
    # The scope or setting that decides, with its line of code.
    decided_by: str
    # None if this library sends nothing.
    options: Options | None
    rows: int
    batches: int
    # The maximum, without the statements of receivers and without those that save receivers' changes. None
    # for a delete, whose statements are Django's own.
    statements: int | None
    # By signal name, in the order in which they are called.
    receivers: dict[str, list[str]]
    # Whether each batch is a transaction (`atomic=False`).
    commits_batches: bool = False
    locks_rows: bool = False
    # Why Django itself makes the instances, which is slower; empty if this library makes them.
    slow_loading: list[str] = field(default_factory=list)
    # The fields whose values read other rows, and are therefore computed for all rows before the first write.
    precomputed: list[str] = field(default_factory=list)
    # The fields whose values are computed when a batch is loaded.
    computed: list[str] = field(default_factory=list)
    # The fields that are read again after the write.
    read_again: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def sends(self) -> bool:
        """Whether signals are sent. Django sends those of a delete, whatever the switch says."""
        return bool(self.receivers) and (self.options is not None or self.operation == "delete")

    def __str__(self) -> str:
        name = f"{self.model._meta.label}.{self.operation}() of {self.rows} rows"
        lines = [f"{name} {'sends signals' if self.sends else 'sends no signals'}"]
        lines.extend(f"  {title:<13}{text}" for title, text in self._facts() if text)
        return "\n".join(lines)

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "decided by", self.decided_by
        if self.options is not None:
            options = [f"{name}={value}" for name, value in changed(self.options).items()]
            yield "options", ", ".join(options) or "defaults"
        for name, paths in self.receivers.items():
            yield name, ", ".join(paths)
        if self.sends:
            yield "batches", f"{self.batches}{', each committed' if self.commits_batches else ''}"
            yield "statements", "" if self.statements is None else f"at most {self.statements}"
            yield "locks", "the rows, in the order of their keys" if self.locks_rows else "no rows beforehand"
            yield "slow loading", ", ".join(self.slow_loading)
            yield "precomputed", ", ".join(self.precomputed)
            yield "computed", ", ".join(self.computed)
            yield "read again", ", ".join(self.read_again)
        for warning in self.warnings:
            yield "warning", warning


def explain(
    queryset: QuerySet[Any] | BaseManager[Any], operation: Explained = "update", **values: Any
) -> Explanation:
    """Return what `update(**values)` or `delete()` of a queryset would do here and now.

    It changes nothing and sends nothing. It runs one statement, which counts the rows. Raises what Django
    raises for the queryset or the values, TypeError for anything but a queryset or a manager and for values
    of a delete, and ValueError for the other operations, which take instances.

        print(explain(Book.objects.filter(status="draft"), status="sold"))
    """
    if operation not in get_args(Explained):
        valid = ", ".join(map(repr, get_args(Explained)))
        raise ValueError(f"explain() knows the operations {valid}, not {operation!r}")
    if not isinstance(queryset, QuerySet | BaseManager):
        raise TypeError(f"explain() takes a queryset or a manager; {_instead(queryset)}")
    if operation == "delete" and values:
        raise TypeError(f"a delete takes no values, but these are given: {', '.join(values)}")
    queryset = queryset.all()
    decided_by, options = _decision(queryset, operation)
    using = querysets.database_for_write(queryset)
    facts: dict[str, Any] = {}
    if operation == "delete":
        _refuse_delete(queryset)
    else:
        # On an empty queryset, Django checks the arguments and executes nothing.
        with in_flight.silence(queryset.model):
            querysets.empty(queryset).update(**values)
    count = _count(queryset, using)
    if operation == "update" and not values:
        why = ["without values, update() executes nothing"]
        return Explanation(queryset.model, operation, decided_by, options, count, 0, 0, {}, warnings=why)
    size = _size(queryset, using, operation, options)
    batches = -(-count // size) if size else min(count, 1)
    commits = options is not None and not options.atomic
    statements = None
    if operation == "update" and options is not None:
        facts, costs = _facts_of_update(queryset, values, using, options)
        statements = costs.in_all(batches, commits=commits)
    if commits:
        facts["warnings"] = [*_refusals(queryset, operation, values), *facts.get("warnings", [])]
    return Explanation(
        model=queryset.model,
        operation=operation,
        decided_by=decided_by,
        options=options,
        rows=count,
        batches=batches,
        statements=statements,
        receivers=_receivers(queryset, operation),
        commits_batches=commits,
        **facts,
    )


def _instead(given: object) -> str:
    if not (isclass(given) and issubclass(given, Model)):
        return f"{type(given).__qualname__} is neither"
    manager = getattr(given, "_default_manager", None)
    return f"give one, such as {given.__qualname__}.{manager.name if manager else 'objects'}.all()"


class _AcceptedError(Exception):
    """Django would delete the rows now."""


def _refuse_delete(queryset: QuerySet[Any]) -> None:
    """Raise what Django's `delete()` raises for a queryset.

    It copies the queryset when it has checked everything (QuerySet._chain, Django 5.2 to 6.1), which ends it
    here, before it opens a transaction.
    """

    def accept() -> None:
        raise _AcceptedError

    checked = querysets.copied(queryset)
    # Set on this copy alone, which nobody else has.
    checked.__dict__["_chain"] = accept
    with suppress(_AcceptedError):
        unwrap(QuerySet.delete)(checked)


@dataclass(frozen=True)
class _Costs:
    """The statements of an update.

    `loads` are those that load related objects, and `trying` those that try the UPDATE on one row; without
    rows there are none of them. `again` says whether the first batch is loaded twice if there are several.
    """

    per_batch: int
    loads: int
    trying: int
    once: int
    beginning: int
    again: bool

    def in_all(self, batches: int, *, commits: bool) -> int:
        """Return the maximum."""
        with_rows = batches * self.loads + self.trying * (batches if commits else min(batches, 1))
        # Without rows, there is still a statement that finds none, and one that changes none.
        batches = max(batches, 1)
        if commits:
            # A statement reads the keys of each batch.
            return with_rows + batches * (self.per_batch + self.once + self.beginning + 1)
        # With several batches, a statement reads the keys of all rows.
        several = 1 + (1 + self.loads) * self.again if batches > 1 else 0
        return with_rows + batches * self.per_batch + self.once + self.beginning + several


def _refusals(queryset: QuerySet[Any], operation: str, values: dict[str, Any]) -> list[str]:
    """Return why an operation with `atomic=False` will be refused."""
    reasons = [*ranges.refusals(queryset)]
    if operation == "update":
        reasons += ranges.refusals_of_values(queryset, values)
    return [f"refused with atomic=False: {reason}" for reason in reasons]


def _decision(queryset: QuerySet[Any], operation: str) -> tuple[str, Options | None]:
    model = queryset.model
    if is_never_signalled(model):
        return "Django, which sends no signals for this model", None
    mixin = getattr(queryset, "signal_options", None)
    for rules in scopes.in_effect():
        spec = rules.deciding(model)
        # A mixin stays on when the process is off.
        if spec is not None and not (rules is scopes.process.rules and mixin and rules.entries[spec] is None):
            name, site = rules.origins[spec]
            return f"{name}, {site}" if site else name, scopes.options_for(model, operation, mixin)
    if mixin is not None:
        queryset_class: Any = type(queryset)
        where = f"{queryset_class.__qualname__}, {queryset_class.signal_site}"
        return f"the mixin of {where}", scopes.options_for(model, operation, mixin)
    return "nothing, so it is off", None


def _count(queryset: QuerySet[Any], using: str) -> int:
    unordered = QuerySet.order_by(querysets.copied(queryset))
    # Nothing is to be locked, and outside a transaction nothing can be.
    unordered.query.select_for_update = False
    chosen = QuerySet.values(unordered, "pk")
    all_rows: QuerySet[Any] = querysets.all_rows(queryset, using)
    return QuerySet.filter(all_rows, pk__in=chosen).count()


def _size(queryset: QuerySet[Any], using: str, operation: str, options: Options | None) -> int | None:
    if options is None:
        return None
    if operation == "delete" and (options.atomic or options.delete_batch_size is not None):
        return options.delete_batch_size
    return min(options.batch_size, querysets.largest_batch(using, queryset.model))


def _receivers(queryset: QuerySet[Any], operation: str) -> dict[str, list[str]]:
    if is_never_signalled(queryset.model):
        return {}
    found: dict[str, list[str]] = {}
    for sender in sending.senders(queryset):
        for name, heard in listeners(sender, _SIGNALS[operation]).items():
            known = found.setdefault(name, [])
            known += [path for path in map(str, heard) if path not in known]
    return found


def _facts_of_update(
    queryset: QuerySet[Any], values: dict[str, Any], using: str, options: Options
) -> tuple[dict[str, Any], _Costs]:
    connection = connections[using]
    shown = "pre_save" in _receivers(queryset, "update")
    plan = Planner(queryset, values, using, pre_save_heard=shown).plan()
    again = [
        *plan.refresh_fields,
        *(column for column in queryset.model._meta.concrete_fields if column.generated),
    ]
    # Django looks up the keys of the parents' rows, and writes each parent's table in a separate statement.
    parents = len(queryset.model._meta.get_parent_list())
    ordered, locks = bool(queryset.query.order_by), options.lock and connection.features.has_select_for_update
    may_join = not plan.precomputed and (not locks or connection.features.has_select_for_update_of)
    # A statement with a condition that no row meets shows what the database refuses.
    refused = may_be_refused(plan, queryset, values, connection)
    costs = _Costs(
        # One loads the batch, one writes it, and one reads what only the database knows.
        per_batch=2 + (1 + parents if parents else 0) + bool(again),
        loads=_statements_for_related(queryset, using, options, may_join=may_join),
        # A lookup of the keys, a statement for each table, and the rollback.
        trying=3 + parents if may_read_itself(plan, queryset, connection) else 0,
        # One puts the rows in the caller's order, and one computes values that read other rows.
        once=ordered + bool(plan.precomputed) + refused,
        beginning=int(backends.of(connection).begins_with_statement(connection)),
        # If the rows are to be locked and the caller orders them, the first batch is loaded twice.
        again=ordered and locks,
    )
    facts = {
        "locks_rows": locks,
        "slow_loading": _slow_loading(queryset),
        "precomputed": [column.name for column in plan.precomputed_fields.values()],
        "computed": [column.name for _, column, _ in plan.previewed],
        "read_again": [column.name for column in again],
        "warnings": _warnings(),
    }
    return facts, costs


def _statements_for_related(queryset: QuerySet[Any], using: str, options: Options, *, may_join: bool) -> int:
    """Return how many statements load the related objects of a batch: one for each step of a lookup.

    Where joins may not load those of `select_related()`, statements do. A generic foreign key counts as one
    model.
    """
    found = related.of(queryset, using)
    joined = may_join and not related.has_raw_sql(queryset.query)
    steps, selected = {*_steps([*found.lookups, *options.prefetch])}, {*_steps(found.paths)}
    return len(steps - selected if joined else steps | selected)


def _steps(lookups: Iterable[Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for lookup in lookups:
        # A Prefetch has its path, and perhaps a queryset with lookups of its own (Django 5.2 to 6.1).
        path = (*before, *getattr(lookup, "prefetch_through", lookup).split(LOOKUP_SEP))
        yield from (path[:length] for length in range(len(before) + 1, len(path) + 1))
        yield from _steps(getattr(getattr(lookup, "queryset", None), "_prefetch_related_lookups", ()), path)


def _slow_loading(queryset: Any) -> list[str]:
    """Return why `loading.is_plain()` rules out the fast way of making instances."""
    if loading.is_plain(queryset):
        return []
    model = queryset.model
    heard = [
        name
        for name, signal in (("pre_init", pre_init), ("post_init", post_init))
        if signal.has_listeners(model)
    ]
    overridden = [
        f"{name}() of {cls.__qualname__}"
        for cls in model.__mro__[: model.__mro__.index(Model)]
        for name in ("__init__", "__new__", "__setattr__", "from_db")
        if name in vars(cls)
    ]
    reasons = [
        *(f"receivers of {name}" for name in heard),
        *overridden,
        *(["select_related()"] if queryset.query.select_related else []),
        *(["the queryset's own instances"] if queryset._iterable_class is not ModelIterable else []),
    ]
    return reasons or ["a fetch mode, known related objects, extra() or a field's own attribute"]


def _warnings() -> list[str]:
    """Return warnings about other libraries that make signals slow."""
    sentry = sys.modules.get("sentry_sdk")
    integration = sentry.get_client().get_integration("django") if sentry else None
    if getattr(integration, "signals_spans", False):
        return ["Sentry records each call of a receiver; to avoid it: DjangoIntegration(signals_spans=False)"]
    return []
