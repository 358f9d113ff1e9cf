"""Ranges of the primary key, and why some operations cannot be done range by range.

`atomic=False` and jobs commit each range before they read the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from signal_patch.dispatch.rows.keys import is_part
from signal_patch.dispatch.rows.querysets import copied
from signal_patch.dispatch.values.plan import value_reads_other_rows

if TYPE_CHECKING:
    from django.db.models import Field, QuerySet


def between(queryset: QuerySet[Any], after: Any, upto: Any) -> QuerySet[Any]:
    """Narrow a queryset to `after < pk <= upto`; None means no limit on that side."""
    clone: QuerySet[Any] = copied(queryset)
    if after is not None:
        clone.query.add_q(Q(pk__gt=after))
    if upto is not None:
        clone.query.add_q(Q(pk__lte=upto))
    return clone


def refusals(queryset: QuerySet[Any]) -> Iterator[str]:
    """Yield the reasons why the rows of a queryset cannot be processed range by range."""
    query = queryset.query
    if query.is_sliced:
        yield "the queryset is sliced, and a slice of each range is not a slice of the whole"
    if query.combinator:
        yield f"the queryset is a {query.combinator}(), which Django cannot narrow to a range"
    if query.distinct or query.distinct_fields:
        yield "the queryset has distinct(), which compares rows of different ranges"
    if query.order_by or query.extra_order_by:
        yield "the queryset has an explicit order, and ranges are taken in the order of the primary key"
    if query.group_by is not None:
        yield "the queryset has an aggregate, which is computed over rows of different ranges"
    if query.where.contains_over_clause:
        yield "the queryset filters by a window, which is computed over rows of different ranges"
    if query.extra_tables:
        yield "the queryset names other tables in extra(), which Django's update() does not take"


def refusals_of_values(queryset: QuerySet[Any], values: dict[str, Any]) -> Iterator[str]:
    """Yield the reasons why an `update()` with these values cannot be done range by range.

    Call it after Django has accepted the values.
    """
    for name in sorted(values):
        field: Field[Any, Any] = queryset.model._meta.get_field(name)
        if field.primary_key or is_part(queryset.model, field):
            yield f"{name!r} is the primary key: a row that moves may be visited twice, or not at all"
        elif value_reads_other_rows(values[name], queryset, field):
            yield f"the value of {name!r} reads other rows, which earlier ranges may have changed"
