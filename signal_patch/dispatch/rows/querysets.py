"""Querysets of our own over the rows of a model, and copies of the caller's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import Q, QuerySet
from django.db.models.query import ModelIterable
from django.db.models.sql import Query

from signal_patch.dispatch import backends
from signal_patch.dispatch.backends.base import are_numbers
from signal_patch.dispatch.rows.keys import fields_of, is_composite, of_parts
from signal_patch.dispatch.values import columns

if TYPE_CHECKING:
    from django.db.models import Field, Model


# Below this an IN list costs nothing worth mentioning, and reads better in a log.
FEW = 50
# So many keys make a statement of some hundred kilobytes, where the database sets no limit.
LOCKED_AT_ONCE = 10_000


def database_for_write(queryset: Any) -> str:
    """Return the alias of the database that Django's own `update()` would write to."""
    queryset._for_write = True
    return str(queryset.db)


def copied(queryset: Any) -> Any:
    """Return a copy of a queryset that can be changed without a change to the queryset.

    Some querysets are their own clones: cacheops' `inplace()`, or Django's with cloning disabled. cacheops
    also replaces `QuerySet._clone` for all classes, so the copy of such a queryset is made of its attributes
    (QuerySet._chain, _query, _result_cache, _prefetch_done, Django 5.2 to 6.1). The copy is its own clone,
    too: whoever uses one twice copies it again.
    """
    clone = queryset._chain()
    if clone is not queryset and clone.query is not queryset.query:
        return clone
    clone = object.__new__(type(queryset))
    # The property `query` applies a filter that a related manager has put off.
    query = queryset.query.chain()
    vars(clone).update(vars(queryset), _query=query, _result_cache=None, _prefetch_done=False)
    return clone


def none(queryset: Any) -> Any:
    """Return a queryset of the same class and query that matches no row."""
    clone = copied(queryset)
    clone.query.set_empty()
    return clone


def all_rows(queryset: Any, using: str) -> Any:
    """Return a queryset of the same class and hints over all rows of the model.

    It goes through QuerySet's private state, because a subclass may do anything in the
    public methods.
    """
    clone = copied(queryset)
    clone.query = Query(queryset.model)
    return _whole(clone, using)


def _whole(clone: Any, using: str) -> Any:
    """Make a queryset yield whole instances, whatever `values()` made it yield."""
    clone._fields = None
    clone._db = using
    clone._prefetch_related_lookups = ()
    if not issubclass(clone._iterable_class, ModelIterable):
        own = type(clone)(model=clone.model)._iterable_class
        clone._iterable_class = own if issubclass(own, ModelIterable) else ModelIterable
    return clone


def is_djangos(queryset: Any) -> bool:
    """Return whether Django itself makes the instances of a queryset."""
    return bool(queryset._iterable_class.__module__.startswith("django."))


def with_keys(queryset: QuerySet[Any], keys: Sequence[Any]) -> Any:
    """Narrow a queryset to exactly the rows with the given primary keys."""
    clone = copied(queryset)
    clone.query.add_q(Q(_condition(queryset.model, keys, connections[queryset.db])))
    return clone


def _condition(model: type[Model], keys: Sequence[Any], connection: Any) -> Any:
    """Return the condition that holds for exactly the rows that `pk__in=keys` finds.

    Thousands of parameters are most of the price of a statement, so the keys go into two
    parameters or one wherever that is the same set.
    """
    pk: Any = model._meta.pk
    if len(keys) > 2 and columns.is_plain(pk) and not is_composite(model):
        if _are_without_gap(pk, keys):
            return Q(pk__gte=min(keys), pk__lte=max(keys))
        if len(keys) > FEW:
            lookup = backends.of(connection).key_lookup(columns.target_field(pk), keys, connection)
            if lookup is not None:
                return lookup
    return Q(pk__in=list(keys))


def _are_without_gap(pk: Field[Any, Any], keys: Sequence[Any]) -> bool:
    # Whole numbers without a gap are the same set as the range between their ends, if the column
    # has whole numbers only.
    return (
        are_numbers(columns.target_field(pk), keys)
        and max(keys) - min(keys) == len(keys) - 1
        and len(set(keys)) == len(keys)
    )


def largest_batch(using: str, model: type[Model]) -> int:
    """Return how many rows one statement can name by their keys.

    Half of the parameters that the database takes in one statement: the other half is for
    the values.
    """
    connection = connections[using]
    limit = backends.of(connection).max_parameters(connection)
    if limit is None:
        # With the one that tells that there are more, as many as a LIMIT can say.
        return sys.maxsize - 1
    return max(1, limit // 2 // len(fields_of(model)))


def keys_of(queryset: QuerySet[Any]) -> list[Any]:
    """Return the primary keys of a queryset's rows."""
    if is_composite(queryset.model):
        return [key for key, *_ in keyed(queryset)]
    keys = QuerySet.values_list(queryset, "pk", flat=True)
    # Chunk by chunk: a million rows as tuples take twice the room of their keys.
    return list(QuerySet.iterator(keys))


def keyed(queryset: QuerySet[Any], *names: str) -> Iterable[Any]:
    """Return a queryset's rows as the primary key and then the values of these names."""
    parts = [field.attname for field in fields_of(queryset.model)]
    if len(parts) == 1:
        return QuerySet.values_list(queryset, "pk", *names)
    # Django 5.2 to 6.1 lose the parts of a composite "pk" beside annotations.
    found = QuerySet.values_list(queryset, *parts, *names)
    return ((of_parts(row[: len(parts)]), *row[len(parts) :]) for row in found)


def lock(queryset: QuerySet[Any], keys: Iterable[Any]) -> None:
    """Lock the rows with the given keys, which have no order, in the order of their keys."""
    ordered = in_order(keys)
    size = min(LOCKED_AT_ONCE, largest_batch(queryset.db, queryset.model))
    for start in range(0, len(ordered), size):
        chosen = with_keys(queryset, ordered[start : start + size])
        order_by_key(chosen.query)
        keys_of(_locked(chosen, ()))


def in_order(keys: Iterable[Any]) -> list[Any]:
    """Return keys in their order."""
    keys = list(keys)
    try:
        return sorted(keys)
    except TypeError:
        # Within a statement the database puts them in order; keys of a class of its own Python may not.
        return keys


def current(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Have a queryset read rows that this transaction has locked or written as they are now.

    MySQL and MariaDB show them in a plain SELECT as they were at its first one (REPEATABLE READ), though
    others have changed them before they were locked; also once they are written, if that changed nothing.
    """
    return _locked(queryset, ()) if _reads_snapshots(queryset.db) else queryset


def with_committed(queryset: QuerySet[Any], names: Iterable[str]) -> QuerySet[Any]:
    """Have the subqueries in some annotations read what is committed, as those of an UPDATE do.

    The lock of the outer query does not extend to them.
    """
    backend = backends.of(connections[queryset.db])
    if backend.reads_snapshots():
        annotations = queryset.query.annotations
        annotations.update({name: backend.with_committed_subqueries(annotations[name]) for name in names})
    return queryset


def _reads_snapshots(using: str) -> bool:
    return backends.of(connections[using]).reads_snapshots()


def _locked(queryset: QuerySet[Any], tables: tuple[str, ...]) -> QuerySet[Any]:
    return QuerySet.select_for_update(queryset, of=tables)


def order_by_key(query: Query) -> None:
    """Order a query by the primary key alone."""
    query.clear_ordering(force=True)
    query.standard_ordering = True
    query.add_ordering("pk")
