"""Explains what a bulk operation would do, without running it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from django.db import connections
from django.db.models import Model, QuerySet
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable
from django.db.models.signals import post_init, pre_init

from signal_patch import scopes
from signal_patch.dispatch.rows import loading, querysets, ranges
from signal_patch.dispatch.signals import in_flight, sending
from signal_patch.dispatch.values.plan import may_read_itself, plan_values
from signal_patch.options import Options, changed
from signal_patch.signals import listeners
from signal_patch.specs import is_never_signalled

if TYPE_CHECKING:
    from collections.abc import Iterator

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
            yield "options", ", ".join(options) or "as by default"
        for name, paths in self.receivers.items():
            yield name, ", ".join(paths)
        if self.sends:
            yield "batches", f"{self.batches}{', each committed' if self.commits_batches else ''}"
            yield "statements", "" if self.statements is None else f"at most {self.statements}"
            yield "locks", "the rows, in the order of their keys" if self.locks_rows else "nothing beforehand"
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
    raises for the queryset or the values, and ValueError for the other operations, which take instances.

        print(explain(Book.objects.filter(status="draft"), status="sold"))
    """
    if operation not in get_args(Explained):
        valid = ", ".join(map(repr, get_args(Explained)))
        raise ValueError(f"explain() knows the operations {valid}, not {operation!r}")
    queryset = queryset.all()
    decided_by, options = _decision(queryset, operation)
    using = querysets.database_for_write(queryset)
    facts: dict[str, Any] = {}
    if operation == "update":
        # On an empty queryset, Django checks the arguments and executes nothing.
        with in_flight.silence(queryset.model):
            querysets.none(queryset).update(**values)
        if options is not None:
            facts = _facts_of_update(queryset, values, using, options)
    count = _count(queryset, using)
    size = _size(queryset, using, operation, options)
    batches = -(-count // size) if size else min(count, 1)
    per_batch, once = facts.pop("per_batch", None), facts.pop("once", 0)
    commits = options is not None and not options.atomic
    if commits:
        # A statement reads the keys of each batch.
        choosing = batches
        facts["warnings"] = [*_refusals(queryset, operation, values), *facts.get("warnings", [])]
    else:
        # With several batches, a statement reads the keys of all rows. If the rows are to be locked and the
        # caller orders them, the first batch is also loaded twice.
        choosing = batches > 1 and 1 + bool(queryset.query.order_by and facts.get("locks_rows"))
    return Explanation(
        model=queryset.model,
        operation=operation,
        decided_by=decided_by,
        options=options,
        rows=count,
        batches=batches,
        statements=None if per_batch is None else batches * per_batch + once + choosing,
        receivers=_receivers(queryset, operation),
        commits_batches=commits,
        **facts,
    )


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
    chosen = QuerySet.values(QuerySet.order_by(queryset), "pk")
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
) -> dict[str, Any]:
    shown = "pre_save" in _receivers(queryset, "update")
    plan = plan_values(queryset, values, using, connections[using], pre_save_heard=shown)
    again = [
        *plan.refresh_fields,
        *(column for column in queryset.model._meta.concrete_fields if column.generated),
    ]
    # Django looks up the keys of the parents' rows, and writes each parent's table in a separate statement.
    parents = len(queryset.model._meta.get_parent_list())
    # A lookup of the keys, a statement for each table, and the rollback.
    trying = 3 + parents if may_read_itself(plan, queryset, connections[using]) else 0
    return {
        # One loads the batch, one writes it, and one reads what only the database knows.
        "per_batch": 2 + (1 + parents if parents else 0) + bool(again),
        # One puts the rows in the caller's order, and one computes values that read other rows.
        "once": int(bool(queryset.query.order_by)) + bool(plan.precomputed) + trying,
        "locks_rows": options.lock and connections[using].features.has_select_for_update,
        "slow_loading": _slow_loading(queryset),
        "precomputed": [column.name for column in plan.precomputed_fields.values()],
        "computed": [column.name for _, column, _ in plan.previewed],
        "read_again": [column.name for column in again],
        "warnings": _warnings(),
    }


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
