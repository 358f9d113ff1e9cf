"""`SET_NULL`, `SET_DEFAULT` and `SET()`: the rows that these rules change go through the update operation.

Django changes these rows by `QuerySet.update()`, or by `UpdateQuery.update_batch()` if it has loaded
them (Collector.delete, Django 5.2 to 6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import QuerySet

from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import refuse_null
from signal_patch.dispatch.signals import in_flight, sending
from signal_patch.dispatch.update import update

if TYPE_CHECKING:
    from django.db.models.deletion import Collector
    from django.db.models.sql import UpdateQuery

    from signal_patch.options import Options

    MixinOptions = Callable[[QuerySet[Any]], Options | None]


def update_batch(
    query: UpdateQuery,
    keys: list[Any],
    values: dict[str, Any],
    using: str,
    options: Options,
    original: Callable[..., None],
) -> None:
    """Update the rows with these keys and send their signals.

    `original` is Django's own `UpdateQuery.update_batch()`, unbound. A cascade calls it for rows that it has
    loaded (`SET_DEFAULT`, `SET()` of a callable; Django 5.2 to 6.1).
    """
    model: Any = query.model
    # Without the filter of a manager: a receiver may have changed rows so that the filter excludes them.
    all_rows = querysets.all_rows(model._base_manager.using(using), using)
    if not sending.has_save_receivers(sending.senders(all_rows)):
        original(query, keys, values, using)
        return
    refuse_null(model, keys)
    size = min(options.batch_size, querysets.largest_batch(using, model))
    with transaction.atomic(using=using, savepoint=False):
        for part in querysets.parts(querysets.in_order(keys), size):
            chosen = querysets.with_keys(all_rows, part)
            update(chosen, values, replace(options, atomic=True), _update_by_django)


def _update_by_django(queryset: QuerySet[Any], /, **values: Any) -> int:
    # An update() that the queryset's class overrides is not called, as in update_batch().
    with in_flight.silence(queryset.model):
        return QuerySet.update(queryset, **values)


def send_signals(collector: Collector, mixin_options: MixinOptions) -> None:
    """Make the updates that a delete has collected send signals if `update()` by itself would send none.

    `mixin_options` returns the options for a queryset without the mixin whose model's default manager has
    it, or None. Django merges the querysets of one field and calls `update()` on the result; loaded rows go
    through `UpdateQuery.update_batch()` (Collector.delete, Django 5.2 to 6.1).
    """
    updates: Any = collector.field_updates
    for found in updates.values():
        loaded = [some for some in found if not _is_unloaded(some)]
        unloaded = [some for some in found if _is_unloaded(some)]
        if unloaded and (options := mixin_options(unloaded[0])):
            found[:] = [*loaded, _sending_signals(reduce(or_, unloaded), options)]


def _is_unloaded(found: Any) -> bool:
    return isinstance(found, QuerySet) and found._result_cache is None


def _sending_signals(queryset: QuerySet[Any], options: Options) -> QuerySet[Any]:
    def update_with_signals(**values: Any) -> int:
        return update(queryset, values, options, _update_by_its_class)

    # Set on this queryset alone, which belongs to the collector.
    queryset.__dict__["update"] = update_with_signals
    return queryset


def _update_by_its_class(queryset: QuerySet[Any], /, **values: Any) -> int:
    with in_flight.silence(queryset.model):
        return type(queryset).update(queryset, **values)
