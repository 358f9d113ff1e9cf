"""Copies of the caller's querysets, and querysets over all rows of a model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections
from django.db.models import Q, QuerySet, Value
from django.db.models.lookups import Exact
from django.db.models.query import ModelIterable
from django.db.models.sql import Query

from signal_patch.dispatch import backends
from signal_patch.dispatch.backends.base import are_numbers
from signal_patch.dispatch.rows.keys import fields_of, is_composite, of_parts
from signal_patch.dispatch.values import columns

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.options import Options

T = TypeVar("T")

# With fewer keys, an IN list costs nothing worth mentioning, and reads better in a log.
FEW = 50
# Used where the database sets no limit. A statement with this many keys has some hundred kilobytes.
LOCKED_AT_ONCE = 10_000
# A batch is selected with one extra row, and LIMIT accepts no number above sys.maxsize.
UNLIMITED = sys.maxsize - 1


def database_for_write(queryset: Any) -> str:
    """Return the alias of the database to which Django's own `update()` would write.

    (QuerySet._for_write, Django 5.2 to 6.1.)
    """
    queryset._for_write = True
    return str(queryset.db)


def copied(queryset: Any) -> Any:
    """Return a copy of a queryset that can be changed without changing the original.

    Some querysets return themselves when they are cloned: cacheops' `inplace()`, and Django's own after
    `_disable_cloning()`. cacheops also replaces `QuerySet._clone` for all classes. So a queryset that returns
    itself is copied attribute by attribute (QuerySet._chain, _query, _result_cache, _prefetch_done, Django
    5.2 to 6.1). Its copy returns itself, too, and must be copied again before a second use.
    """
    clone = queryset._chain()
    if clone is not queryset and clone.query is not queryset.query:
        return clone
    clone = object.__new__(type(queryset))
    # The property `query` applies a related manager's deferred filter.
    query = queryset.query.chain()
    vars(clone).update(vars(queryset), _query=query, _result_cache=None, _prefetch_done=False)
    return clone


def empty(queryset: Any) -> Any:
    """Return a queryset of the same class and query that matches no row."""
    clone = copied(queryset)
    clone.query.set_empty()
    return clone


def matching_nothing(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return a queryset that matches no row.

    Django does not know that, so it sends the statement, and the database refuses what it refuses.
    """
    return QuerySet.filter(copied(queryset), Exact(Value(1), Value(0)))


def all_rows(queryset: Any, using: str) -> Any:
    """Return a queryset of the same class and hints over all rows of the model.

    Sets private attributes, because a subclass may override the public methods (QuerySet._fields, _db,
    _iterable_class and _prefetch_related_lookups, Django 5.2 to 6.1).
    """
    clone = copied(queryset)
    clone.query = Query(queryset.model)
    return yielding_instances(clone, using)


def yielding_instances(clone: Any, using: str) -> Any:
    """Make a queryset yield instances, also after `values()`."""
    clone._fields = None
    clone._db = using
    clone._prefetch_related_lookups = ()
    if not issubclass(clone._iterable_class, ModelIterable):
        own = type(clone)(model=clone.model)._iterable_class
        clone._iterable_class = own if issubclass(own, ModelIterable) else ModelIterable
    return clone


def is_djangos(queryset: Any) -> bool:
    """Return whether Django itself makes the instances of a queryset.

    (QuerySet._iterable_class, Django 5.2 to 6.1.)
    """
    return bool(queryset._iterable_class.__module__.startswith("django."))


def with_keys(queryset: QuerySet[Any], keys: Sequence[Any]) -> Any:
    """Narrow a queryset to exactly the rows with the given primary keys."""
    clone = copied(queryset)
    clone.query.add_q(Q(key_condition(queryset.model, keys, connections[queryset.db])))
    return clone


def key_condition(model: type[Model], keys: Sequence[Any], connection: Any) -> Any:
    """Return a condition that matches exactly the rows that `pk__in=keys` finds.

    Thousands of parameters make up most of the cost of a statement. So the keys are passed as one or two
    parameters where that matches the same rows.
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
    # In a column of integers, consecutive integers are the same set as the range between their ends.
    return (
        are_numbers(columns.target_field(pk), keys)
        and max(keys) - min(keys) == len(keys) - 1
        and len(set(keys)) == len(keys)
    )


def largest_batch(using: str, model: type[Model]) -> int:
    """Return how many rows one statement can name by their keys.

    The keys get half of the parameters that the database takes in one statement, the values the other half.
    """
    connection = connections[using]
    limit = backends.of(connection).max_parameters(connection)
    if limit is None:
        return UNLIMITED
    return max(1, limit // 2 // len(fields_of(model)))


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield a sequence in parts of this size; the last one may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))


def keys_of(queryset: QuerySet[Any]) -> list[Any]:
    """Return the primary keys of a queryset's rows."""
    if is_composite(queryset.model):
        return [key for key, *_ in keyed(queryset)]
    keys = QuerySet.values_list(queryset, "pk", flat=True)
    # In chunks, because a million rows as tuples take twice the memory of their keys.
    return list(QuerySet.iterator(keys))


def keyed(queryset: QuerySet[Any], *names: str) -> Iterable[Any]:
    """Return a queryset's rows as tuples: the primary key, then the values of these names."""
    parts = [field.attname for field in fields_of(queryset.model)]
    if len(parts) == 1:
        return QuerySet.values_list(queryset, "pk", *names)
    # values_list("pk", …) of a composite key fails beside annotations (Django 5.2 to 6.1).
    found = QuerySet.values_list(queryset, *parts, *names)
    return ((of_parts(row[: len(parts)]), *row[len(parts) :]) for row in found)


def lock(queryset: QuerySet[Any], keys: Iterable[Any]) -> None:
    """Lock the rows with the given keys, in the order of the keys."""
    ordered = in_order(keys)
    size = min(LOCKED_AT_ONCE, largest_batch(queryset.db, queryset.model))
    for part in parts(ordered, size):
        chosen = with_keys(queryset, part)
        order_by_key(chosen.query)
        keys_of(locked(chosen))


def in_order(keys: Iterable[Any]) -> list[Any]:
    """Return keys in ascending order, or as they are if Python cannot compare them."""
    keys = list(keys)
    try:
        return sorted(keys)
    except TypeError:
        # Each statement still orders its own rows.
        return keys


def current(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Make a queryset read the current values of rows that this transaction has locked or written.

    On MySQL and MariaDB (REPEATABLE READ) a plain SELECT reads the snapshot of the transaction's first
    SELECT. It lacks changes that were committed between that SELECT and the lock. It even lacks what an
    UPDATE of our own assigned, if the row already held these values. A locking read returns the current
    values.
    """
    return locked(queryset) if reads_snapshots(queryset.db) else queryset


def with_committed(queryset: QuerySet[Any], names: Iterable[str]) -> QuerySet[Any]:
    """Make the subqueries in some annotations read committed rows, as the subqueries of an UPDATE do.

    MySQL and MariaDB read the subqueries of an UPDATE in share mode. In a SELECT … FOR UPDATE they read a
    snapshot, because the lock of the outer query does not extend to them.
    """
    backend = backends.of(connections[queryset.db])
    annotations = queryset.query.annotations
    annotations.update({name: backend.with_committed_subqueries(annotations[name]) for name in names})
    return queryset


def reads_snapshots(using: str) -> bool:
    """Return whether a plain SELECT may read older values than a locking one, as on MySQL and MariaDB."""
    return backends.of(connections[using]).reads_snapshots()


def locks_rows(options: Options, using: str) -> bool:
    """Return whether an operation locks its rows: by the option `lock`, if the database can."""
    return bool(options.lock and connections[using].features.has_select_for_update)


def locked(queryset: QuerySet[Any], tables: tuple[str, ...] = ()) -> QuerySet[Any]:
    """Return a queryset that locks its rows, in these tables or, if none is named, in all of them."""
    return QuerySet.select_for_update(queryset, of=tables)


def order_by_key(query: Query) -> None:
    """Order a query by the primary key alone."""
    query.clear_ordering(force=True)
    query.standard_ordering = True
    query.add_ordering("pk")
