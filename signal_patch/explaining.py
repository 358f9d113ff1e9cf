"""What a bulk operation would do, without doing it."""

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
from signal_patch.dispatch.rows import loading, querysets
from signal_patch.dispatch.signals import in_flight, sending
from signal_patch.dispatch.values.plan import plan_values
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
    """What an operation would do; `str()` makes it readable."""

    model: type[Model]
    operation: Explained
    # Which scope or setting decides, with its line.
    decided_by: str
    # None, if nothing is sent by this library.
    options: Options | None
    rows: int
    batches: int
    # At most, without those of receivers, and of a write for what they change on instances. None of a delete,
    # which is Django's own.
    statements: int | None
    # In the order in which they are called, by the names of the signals.
    receivers: dict[str, list[str]]
    locks_rows: bool = False
    # Why Django itself makes the instances, which takes longer; empty, if this library does.
    slow_loading: list[str] = field(default_factory=list)
    # The fields whose values are computed for all rows before the first write, as they read other rows; for
    # the rows of each batch; and that are read again after the write.
    precomputed: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)
    read_again: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def sends(self) -> bool:
        """Whether signals are sent. Those of a delete Django sends, whatever the switch says."""
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
            yield "batches", str(self.batches)
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
    """Say what an `update(**values)`, or a `delete()`, of a queryset would do here and now.

    It changes nothing and sends nothing, and runs one statement, which counts the rows. Raises what Django
    raises for the queryset or the values; ValueError for another operation, whose rows are the caller's own
    instances.

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
        # With no row to touch, Django refuses what it refuses, and executes nothing.
        with in_flight.silence(queryset.model):
            querysets.none(queryset).update(**values)
        if options is not None:
            facts = _facts_of_update(queryset, values, using, options)
    count = _count(queryset, using)
    size = _size(queryset, using, operation, options)
    batches = -(-count // size) if size else min(count, 1)
    per_batch, once = facts.pop("per_batch", None), facts.pop("once", 0)
    # More than a batch is chosen by its keys; to lock them in their order, the first load is in vain.
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
        **facts,
    )


def _decision(queryset: QuerySet[Any], operation: str) -> tuple[str, Options | None]:
    model = queryset.model
    if is_never_signalled(model):
        return "Django, which sends no signals of this model's rows", None
    mixin = getattr(queryset, "signal_options", None)
    for rules in scopes._in_effect():
        spec = rules.deciding(model)
        # A mixin stays on when the process is off.
        if spec is not None and not (rules is scopes.process.rules and mixin and rules.entries[spec] is None):
            name, site = rules.origins[spec]
            return f"{name}, {site}" if site else name, scopes.options_for(model, operation, mixin)
    if mixin is not None:
        queryset_class: Any = type(queryset)
        where = f"{queryset_class.__qualname__}, {queryset_class.signal_site}"
        return f"the mixin of {where}", scopes.options_for(model, operation, mixin)
    return "nothing, so that it is off", None


def _count(queryset: QuerySet[Any], using: str) -> int:
    chosen = QuerySet.values(QuerySet.order_by(queryset), "pk")
    all_rows: QuerySet[Any] = querysets.all_rows(queryset, using)
    return QuerySet.filter(all_rows, pk__in=chosen).count()


def _size(queryset: QuerySet[Any], using: str, operation: str, options: Options | None) -> int | None:
    if options is None:
        return None
    if operation == "delete":
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
    # Django looks up the keys of parents, whose tables it writes in statements of their own.
    parents = len(queryset.model._meta.get_parent_list())
    return {
        # To load it, to write it, and to read again what only the row knows.
        "per_batch": 2 + (1 + parents if parents else 0) + bool(again),
        # To have the rows in the order of the caller.
        "once": int(bool(queryset.query.order_by)) + bool(plan.precomputed),
        "locks_rows": options.lock and connections[using].features.has_select_for_update,
        "slow_loading": _slow_loading(queryset),
        "precomputed": [column.name for column in plan.precomputed_fields.values()],
        "computed": [column.name for _, column, _ in plan.previewed],
        "read_again": [column.name for column in again],
        "warnings": _warnings(),
    }


def _slow_loading(queryset: Any) -> list[str]:
    """Return why the instances are not made the fast way, `loading.is_plain()`."""
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
    """Return what is known of other libraries that makes signals costly."""
    sentry = sys.modules.get("sentry_sdk")
    integration = sentry.get_client().get_integration("django") if sentry else None
    if getattr(integration, "signals_spans", False):
        return ["Sentry makes a span of each call of a receiver: DjangoIntegration(signals_spans=False)"]
    return []
