"""Which query chooses the rows of a bulk operation.

The caller's queryset determines the rows. But it may give a row twice (a join to many), give no instances
(`values()`), or read tables whose rows must not be locked. So a query that is derived from it chooses the
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections
from django.db.models import Q
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import OrderBy
from django.db.models.sql import Query

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows.keys import is_composite
from signal_patch.dispatch.rows.querysets import (
    all_rows,
    copied,
    current,
    locked,
    order_by_key,
    yielding_instances,
)

if TYPE_CHECKING:
    from django.db.models import QuerySet


class Choice:
    """The query that chooses the rows of one operation, each row once.

    `lock` says whether the rows will be locked, `computes` whether expressions will be selected with them.
    `locked_tables` are the names that `select_for_update(of=…)` then needs. It is empty if all tables of the
    query are the model's own. `can_name_tables` says whether the database knows `of`.
    """

    def __init__(self, using: str, *, lock: bool, computes: bool) -> None:
        self.using = using
        self.lock = lock
        self.computes = computes
        self.can_name_tables: bool = connections[using].features.has_select_for_update_of
        self.locked_tables: tuple[str, ...] = ()

    def rows(self, queryset: QuerySet[Any]) -> Any:
        """Return a queryset of whole instances of the rows, in order.

        Returns None if the order depends on other columns than the model's own. Only the caller's queryset,
        which may give a row twice, can produce that order.
        """
        if self._is_direct(queryset):
            return _direct(queryset, self.using)
        if orders_by_own_columns(queryset.query):
            return chosen(queryset, self.using)
        return None

    def with_lock(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return a queryset that only selects keys, and locks its rows if they are to be locked.

        In other tables than the model's own, a lock needs a column of theirs in the SELECT.
        """
        return locked(rows, self.locked_tables[:1]) if self.lock else rows

    def _is_direct(self, queryset: QuerySet[Any]) -> bool:
        """Return whether the queryset's own query can load each row once, and lock no other rows."""
        query = queryset.query
        if query.group_by is not None or query.extra_tables or query.extra_order_by:
            return False
        if any(_is_computed_over_rows(annotation) for annotation in query.annotations.values()):
            return False
        if not orders_by_own_columns(query):
            # The compiler adds the joins that the ordering needs.
            query = query.clone()
            query.get_compiler(self.using).pre_sql_setup()
        foreign = foreign_joins(query)
        if foreign and self.computes:
            # Raw SQL in an expression may name a column that a joined table also has.
            return False
        if not all(_is_to_one(join) for join in foreign):
            return False
        return not (foreign and self.lock) or self._can_lock_own_tables(query)

    def _can_lock_own_tables(self, query: Query) -> bool:
        opts = query.get_meta()
        # Django 6.1 fails on `of` with a values_list() of a composite key.
        if is_composite(opts.model) or not self.can_name_tables:
            return False
        self.locked_tables = own_tables(opts)
        return True


def _is_computed_over_rows(annotation: Any) -> bool:
    return bool(
        getattr(annotation, "contains_over_clause", False) or getattr(annotation, "set_returning", False)
    )


def foreign_joins(query: Any) -> list[Any]:
    """Return the joins of a query to other tables than those of the model and its parents.

    (Query.alias_map and alias_refcount, Options.all_parents, Django 5.2 to 6.1.)
    """
    model: Any = query.get_meta().concrete_model
    links = {link for owner in (model, *model._meta.all_parents) for link in owner._meta.parents.values()}
    return [
        join
        for alias, join in query.alias_map.items()
        if query.alias_refcount[alias]
        and join.parent_alias
        and getattr(join, "join_field", None) not in links
    ]


def _is_to_one(join: Any) -> bool:
    """Return whether a join gives each row once. The joins of other libraries may have no field."""
    field = getattr(join, "join_field", None)
    return bool(getattr(field, "many_to_one", False) or getattr(field, "one_to_one", False))


def orders_by_key(query: Query) -> bool:
    """Return whether a query orders by ascending key, which is also the default order."""
    if query.extra_order_by or not query.order_by:
        return not query.extra_order_by
    pk = query.get_meta().pk
    return query.standard_ordering and query.order_by[0] in ("pk", pk.name, pk.attname)


def orders_by_own_columns(query: Query) -> bool:
    """Return whether a query orders by the model's own columns, or not at all."""
    return not query.extra_order_by and all(
        isinstance(term, str) and _is_own_column(query, term.removeprefix("-")) for term in query.order_by
    )


def _is_own_column(query: Query, name: str) -> bool:
    if name == "pk":
        return True
    if LOOKUP_SEP in name or name in query.annotations:
        return False
    try:
        found = query.get_meta().get_field(name)
    except FieldDoesNotExist:
        return False
    # The name of a relation means the ordering of the related model.
    return found.concrete and (not found.is_relation or name == found.attname)


def own_tables(opts: Any) -> tuple[str, ...]:
    """Return the names of the tables of a model and its parents for `select_for_update(of=…)`."""
    return ("self", *_parent_paths(opts))


def _parent_paths(opts: Any) -> list[str]:
    paths: list[str] = []
    for parent, link in opts.concrete_model._meta.parents.items():
        paths.append(link.name)
        paths += [f"{link.name}{LOOKUP_SEP}{path}" for path in _parent_paths(parent._meta)]
    return paths


def as_ordered(queryset: QuerySet[Any], using: str) -> Any:
    """Return the queryset in the caller's order, in which a row may come twice."""
    ordered = _on(using, queryset)
    if not foreign_joins(ordered.query):
        # Django's UPDATE of a single table ignores `distinct(*fields)` in 5.2 and 6.0. Django 6.1 refuses it.
        ordered.query.distinct_fields = ()
    if not ordered.query.distinct_fields:
        # The caller of this function drops repeated keys. In MariaDB a distinct composite key is ambiguous in
        # ORDER BY.
        ordered.query.distinct = False
    return ordered


def _on(using: str, queryset: Any) -> Any:
    clone = copied(queryset)
    clone._db = using
    clone._prefetch_related_lookups = ()
    clone.query.order_by = _inlined(clone.query)
    # This library locks the rows. If the caller's own lock is not allowed, Django's statement has refused it.
    clone.query.select_for_update = False
    return clone


def _inlined(query: Any) -> tuple[Any, ...]:
    """Return an ordering in which annotations that are an OrderBy replace their names.

    An UPDATE accepts such names; a SELECT would produce `DESC ASC`.
    """
    ordering = []
    for term in query.order_by:
        annotation = query.annotations.get(term.removeprefix("-")) if isinstance(term, str) else None
        # For "-name", Django's update() has already reversed the annotation when it ran on the empty
        # queryset.
        ordering.append(annotation if isinstance(annotation, OrderBy) else term)
    return tuple(ordering)


def _direct(queryset: QuerySet[Any], using: str) -> Any:
    """Return a queryset with the same conditions that selects whole instances.

    (It sets the attributes of sql.Query that hold what is selected, Django 5.2 to 6.1.)
    """
    clone = yielding_instances(_on(using, queryset), using)
    query = clone.query
    query.clear_deferred_loading()
    query.clear_select_fields()
    query.selected = None
    query.default_cols = True
    query.select_related = False
    query.set_annotation_mask(())
    query.set_extra_mask(())
    # A single table with joins to one gives no row twice.
    query.distinct = False
    query.distinct_fields = ()
    if not has_explicit_order(query):
        order_by_key(query)
    return clone


def has_explicit_order(query: Query) -> bool:
    """Return whether a query has an order of its own, apart from `Meta.ordering`."""
    return bool(query.order_by or query.extra_order_by)


def chosen(queryset: QuerySet[Any], using: str) -> Any:
    """Return a queryset of the rows whose keys the queryset selects: each row once, without other tables.

    The subquery selects the keys as the compiler of an UPDATE does (Django 5.2 to 6.1), because `values()`
    fails for a composite key with annotations.
    """
    keys = _on(using, queryset).query
    keys.clear_ordering(force=True)
    keys.clear_select_clause()
    keys.clear_select_fields()
    keys.selected = None
    keys.add_fields([keys.get_meta().pk.name])
    outer = all_rows_alike(queryset, using)
    outer.query.add_q(Q(pk__in=keys))
    if queryset.query.order_by and orders_by_own_columns(queryset.query):
        outer.query.order_by = queryset.query.order_by
        outer.query.standard_ordering = queryset.query.standard_ordering
    else:
        order_by_key(outer.query)
    return outer


def chosen_by_committed(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Make the subqueries in a queryset's condition read committed rows, as the query itself does."""
    backend = backends.of(connections[queryset.db])
    queryset.query.where = backend.with_committed_subqueries(queryset.query.where)
    return current(queryset)


def all_rows_alike(queryset: QuerySet[Any], using: str) -> Any:
    """Return `all_rows()` with a query that keeps what its own class adds, such as django-cte's WITH."""
    clone = all_rows(queryset, using)
    if type(queryset.query) is not Query:
        query: Any = queryset.query.chain()
        added = {name: value for name, value in vars(query).items() if not hasattr(Query, name)}
        query.__dict__ = {**added, **vars(Query(query.model))}
        clone.query = query
    return clone
