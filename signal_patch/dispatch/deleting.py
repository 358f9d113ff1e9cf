"""`QuerySet.delete()` in batches, for those who ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import transaction

from signal_patch.dispatch import transactions
from signal_patch.dispatch.progress import reporting
from signal_patch.dispatch.rows import querysets, selection
from signal_patch.dispatch.rows.keys import fields_of

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from signal_patch.options import Options

    Deleted = tuple[int, dict[str, int]]


def delete_in_batches(
    queryset: QuerySet[Any], size: int, options: Options, original: Callable[..., Deleted]
) -> Deleted:
    """Delete the rows of a queryset, `size` at a time, in one transaction.

    Django collects all rows of a delete, and all that they cascade to, in memory before it deletes the
    first. In batches it holds those of one batch, at a price: RESTRICT looks at the batch only, and so
    refuses rows whose other parent comes in a later one; and the signals' `origin` is the batch's
    queryset. Hence nobody gets it unasked.

    `original` is Django's own `delete()`, unbound; it sends the signals. Returns the sum of what it
    returns, and raises what it raises, with no row deleted.
    """
    # With no row to touch, Django refuses what it refuses anyway.
    nothing = original(querysets.none(queryset))
    using = querysets.database_for_write(queryset)
    by_model: Counter[str] = Counter(nothing[1])
    label = queryset.model._meta.label
    with transaction.atomic(using=using, savepoint=False), reporting(options, label) as report:
        transactions.begin_write(using, transactions.DELETE, fields_of(queryset.model)[0])
        keys = selection.chosen_keys(queryset, using)
        for start in range(0, len(keys), size):
            batch = keys[start : start + size]
            by_model.update(original(querysets.with_keys(querysets.all_rows(queryset, using), batch))[1])
            report(start + len(batch), len(keys))
    queryset._result_cache = None
    return by_model.total(), dict(by_model)
