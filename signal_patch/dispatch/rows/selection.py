"""Which rows: chosen once, locked, and loaded in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections
from django.db.models import Q, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import OrderBy
from django.db.models.sql import Query

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows import loading, related
from signal_patch.dispatch.rows.keys import getter, is_composite, refuse_null, refuse_shared
from signal_patch.dispatch.rows.querysets import (
    _locked,
    _reads_snapshots,
    _whole,
    all_rows,
    copied,
    current,
    is_djangos,
    keyed,
    keys_of,
    largest_batch,
    order_by_key,
    with_committed,
    with_keys,
)
from signal_patch.dispatch.values.columns import concrete

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.expressions import BaseExpression

    from signal_patch.options import Options


Expressions = dict[str, "BaseExpression"]

Precomputed = dict[Any, tuple[Any, ...]]


@dataclass(slots=True)
class Batch:
    """Some of the chosen rows, as instances in the order of their signals.

    `keys` are the primary keys as the rows had them when they were loaded, one for each
    instance. `precomputed` holds, by such a key, what the precomputed expressions gave.
    """

    keys: list[Any]
    instances: list[Model]
    precomputed: dict[Any, tuple[Any, ...]] = field(default_factory=dict)


def _alike(query: Any) -> Any:
    """Return a query over all rows that keeps what its own class adds to Django's: django-cte's WITH."""
    if type(query) is Query:
        return Query(query.model)
    clone = query.chain()
    added = {name: value for name, value in vars(clone).items() if not hasattr(Query, name)}
    clone.__dict__ = {**added, **vars(Query(query.model))}
    return clone


def _all_rows_alike(queryset: Any, using: str) -> Any:
    clone = all_rows(queryset, using)
    clone.query = _alike(queryset.query)
    return clone


class Selection:
    """The rows of one bulk update, in the order of their signals.

    The first batch is loaded by the queryset's own conditions. Only if there are more rows
    are the keys of all of them chosen, before anything is written; the other batches are
    loaded by these keys. `previews` are expressions to select along with each batch when it
    is loaded, `precomputed` ones for all rows when they are chosen. The fields named in `replaced`
    get new values before anybody sees the instances: where nobody has a hand in the loading, the
    old ones are not loaded. `total` is known from the first batch on.
    """

    def __init__(
        self,
        queryset: QuerySet[Any],
        using: str,
        options: Options,
        previews: Expressions,
        precomputed: Expressions,
        replaced: Sequence[str],
    ) -> None:
        self.queryset = queryset
        self.using = using
        self.previews = previews
        self.precomputed = precomputed
        self.replaced = replaced
        self.lock = options.lock and connections[using].features.has_select_for_update
        self.size = min(options.batch_size, largest_batch(using, queryset.model))
        self.total = 0
        # Of all rows, from the first batch on.
        self.keys: list[Any] = []
        self.key_of = getter(queryset.model)
        self.tables: tuple[str, ...] = ()
        self.related = related.of(queryset, using)

    def batches(self) -> Iterator[Batch]:
        """Yield the rows in batches, each row once."""
        if self.lock and not _orders_by_key(self.queryset.query):
            yield from self._locked_by_key()
            return
        chosen = self._chosen(self.queryset)
        if chosen is None:
            yield from self._in_foreign_order()
        else:
            yield from self._in_own_order(chosen)

    def _in_own_order(self, chosen: QuerySet[Any]) -> Iterator[Batch]:
        first = self._load(chosen, self.precomputed, limit=self.size + 1)
        if len(first.keys) <= self.size:
            self.keys, self.total = first.keys, len(first.keys)
            yield first
            return
        # The one row too many tells that there are more.
        first.keys.pop()
        first.instances.pop()
        # Anew: a queryset that is its own clone is no longer what it was.
        keys, precomputed = self._keys(self._chosen(self.queryset))
        refuse_null(self.queryset.model, keys)
        self.keys, self.total = keys, len(keys)
        self._note_all_are_locked()
        if self._begin_with(keys, first.keys):
            loaded = set(first.keys)
            keys = [key for key in keys if key not in loaded]
            yield first
        # One batch is alive at a time.
        del first
        yield from self._chunks(keys, precomputed)

    def _locked_by_key(self) -> Iterator[Batch]:
        """Lock the rows in the order of their keys, so as not to wait for one who does so, too, and waits
        for us; and yield them in the caller's order, which takes a statement more.
        """
        chosen = self._chosen(_by_key(self.queryset))
        first = self._load(chosen, self.precomputed, limit=self.size + 1)
        if len(first.keys) <= self.size:
            self.keys, self.total = first.keys, len(first.keys)
            self._note_all_are_locked()
            order = first.keys if self.total < 2 else self._in_callers_order(first.keys)
            yield _arranged(first, order, first.precomputed)
            return
        # These are but the first by their keys; one batch is alive at a time.
        del first
        # Anew: a queryset that is its own clone is no longer what it was.
        keys, precomputed = self._keys(self._chosen(_by_key(self.queryset)))
        refuse_null(self.queryset.model, keys)
        self.keys, self.total = keys, len(keys)
        self._note_all_are_locked()
        yield from self._chunks(self._in_callers_order(keys), precomputed)

    def _note_all_are_locked(self) -> None:
        # Where what is locked may be read as it was before, each reading is to be of the same kind.
        self.lock = self.lock and _reads_snapshots(self.using)

    def _in_callers_order(self, keys: list[Any]) -> list[Any]:
        chosen = self._chosen(self.queryset)
        if chosen is None:
            # The order of other tables, which are not to be locked.
            ordered: Iterable[Any] = (key for key, *_ in keyed(self._ordered()))
        else:
            ordered = keys_of(_locked(chosen, ()) if self.lock else chosen)
        held = set(keys)
        found = [key for key in dict.fromkeys(ordered) if key in held]
        # Where chance has a say in the filter, or other tables have changed, not all are found again.
        held.difference_update(found)
        return [*found, *(key for key in keys if key in held)]

    def _begin_with(self, keys: list[Any], first: list[Any]) -> bool:
        """Return whether the rows chosen are the ones that were loaded first, and others after them.

        Where chance has a say in the filter, the second query chooses other rows than the first.
        """
        if _explicit_order(self.queryset):
            # Rows that are equal in the caller's order come in any. No set of keys: there may be millions.
            return len(set(first).intersection(keys)) == len(first)
        return keys[: len(first)] == first

    def _in_foreign_order(self) -> Iterator[Batch]:
        keys = list(dict.fromkeys(key for key, *_ in keyed(self._ordered())))
        refuse_null(self.queryset.model, keys)
        precomputed: Precomputed = {}
        if self.precomputed:
            held, precomputed = self._held(keys)
            keep = set(held)
            keys = [key for key in keys if key in keep]
        self.keys, self.total = keys, len(keys)
        yield from self._chunks(keys, precomputed)

    def _ordered(self) -> Any:
        """Return the queryset as its own ordering has it, in which a row may come twice."""
        ordered = _on(self.using, self.queryset)
        if not _foreign_joins(ordered.query):
            # As Django's statement over a single table does (5.2 and 6.0; 6.1 refuses them).
            ordered.query.distinct_fields = ()
        if not ordered.query.distinct_fields:
            # MariaDB finds a distinct composite key ambiguous in an ORDER BY; no key counts twice.
            ordered.query.distinct = False
        return ordered

    def _held(self, keys: list[Any]) -> tuple[list[Any], Precomputed]:
        """Return the keys of the chosen rows and what the precomputed expressions give."""
        held, precomputed = self._keys(_nested(self.queryset, self.using))
        if set(held).issuperset(keys):
            return held, precomputed
        # Where chance has a say in the filter, that has chosen other rows: then by their keys.
        everyone = _all_rows_alike(self.queryset, self.using)
        held, precomputed = [], {}
        for part in self._parts(keys):
            there, given = self._keys(with_keys(everyone, part))
            held += there
            precomputed |= given
        return held, precomputed

    def _parts(self, keys: list[Any]) -> Iterator[list[Any]]:
        return (keys[start : start + self.size] for start in range(0, len(keys), self.size))

    def _chunks(self, keys: list[Any], precomputed: Precomputed) -> Iterator[Batch]:
        return (self._chunk(part, precomputed) for part in self._parts(keys))

    def _chunk(self, keys: list[Any], precomputed: Precomputed) -> Batch:
        batch = self._load(with_keys(all_rows(self.queryset, self.using), keys), {})
        if batch.keys == keys and not precomputed:
            return batch
        return _arranged(batch, keys, precomputed)

    def _load(self, rows: QuerySet[Any], precomputed: Expressions, limit: int | None = None) -> Batch:
        annotated = self._annotated(rows, precomputed, self.previews)
        if not is_djangos(annotated):
            self._leave_to_its_iterable(annotated, [*self.previews, *precomputed])
        elif self.related.is_any:
            self.related.load_with(annotated, joined=self._may_join(annotated, precomputed))
        if self.lock:
            annotated = _locked(annotated, self._loaded_tables(annotated))
        if loading.is_plain(annotated):
            annotated._iterable_class = loading.PlainIterable
            annotated = QuerySet.defer(annotated, *self._unloaded(annotated))
        instances = list(annotated[:limit])
        keys = list(map(self.key_of, instances))
        refuse_shared(self.queryset.model, keys)
        values = {
            key: tuple(instance.__dict__.pop(alias) for alias in precomputed)
            for key, instance in zip(keys, instances, strict=True)
            if precomputed
        }
        return Batch(keys, instances, values)

    def _annotated(
        self, rows: QuerySet[Any], precomputed: Expressions, previews: Expressions
    ) -> QuerySet[Any]:
        annotated = QuerySet.annotate(rows, **previews, **precomputed)
        return with_committed(annotated, precomputed) if self.lock else annotated

    def _leave_to_its_iterable(self, rows: Any, aliases: list[str]) -> None:
        """Have what an iterable that is not Django's needs to make instances of subclasses.

        model-utils' InheritanceIterable takes their columns from the tables that `select_related` joins, and
        sets on them what `_annotated` names.
        """
        rows.query.select_related = self.queryset.query.select_related
        rows._annotated = aliases
        rows._prefetch_related_lookups = self.related.lookups

    def _may_join(self, rows: QuerySet[Any], precomputed: Expressions) -> bool:
        """Return whether the tables of related objects may be joined to these rows.

        Not where they would be locked too, nor where raw SQL may name a column that they have as well.
        """
        names_tables = connections[self.using].features.has_select_for_update_of
        return not precomputed and (names_tables or not self.lock) and not related.has_raw_sql(rows.query)

    def _loaded_tables(self, rows: QuerySet[Any]) -> tuple[str, ...]:
        if self.tables or not rows.query.select_related:
            return self.tables
        # PostgreSQL does not lock the outer side of a join.
        names_tables = connections[self.using].features.has_select_for_update_of
        return _own_tables(rows.query.get_meta()) if names_tables else ()

    def _unloaded(self, rows: Any) -> Sequence[str]:
        # A lock of an ancestor's table needs one of its columns in the SELECT; a prefetch, the foreign keys.
        is_read = concrete(self.queryset.model)._meta.parents or rows._prefetch_related_lookups
        return () if is_read else self.replaced

    def _keys(self, chosen: QuerySet[Any]) -> tuple[list[Any], Precomputed]:
        if self.lock:
            chosen = _locked(chosen, self.tables[:1])
        if not self.precomputed:
            return keys_of(chosen), {}
        annotated = self._annotated(chosen, self.precomputed, {})
        precomputed = {key: tuple(values) for key, *values in keyed(annotated, *self.precomputed)}
        return list(precomputed), precomputed

    def _chosen(self, queryset: QuerySet[Any]) -> Any:
        """Return whole instances of the rows that a queryset chooses, or None if only the queryset
        itself can tell their order.
        """
        if self._is_direct(queryset):
            return _direct(queryset, self.using)
        if _orders_by_own_columns(queryset):
            return _nested(queryset, self.using)
        return None

    def _is_direct(self, queryset: QuerySet[Any]) -> bool:
        """Return whether the queryset's own query can load the rows, once each, and lock
        them alone.
        """
        query = queryset.query
        if query.group_by is not None or query.extra_tables or query.extra_order_by:
            return False
        if any(_is_computed_over_rows(annotation) for annotation in query.annotations.values()):
            return False
        if not _orders_by_own_columns(queryset):
            # Only the compiler knows the joins of the ordering.
            query = query.clone()
            query.get_compiler(self.using).pre_sql_setup()
        foreign = _foreign_joins(query)
        if foreign and self.precomputed:
            # Raw SQL may name a column that a joined table has too.
            return False
        if not all(_is_to_one(join) for join in foreign):
            return False
        return not (foreign and self.lock) or self._can_lock_alone(query)

    def _can_lock_alone(self, query: Query) -> bool:
        opts = query.get_meta()
        # Django 6.1 fails on `of` with a list of keys that are composite.
        if is_composite(opts.model) or not connections[self.using].features.has_select_for_update_of:
            return False
        self.tables = _own_tables(opts)
        return True


def _arranged(batch: Batch, keys: list[Any], precomputed: Precomputed) -> Batch:
    """Return the rows of a batch in the order of these keys; one that is not there is left out."""
    loaded = dict(zip(batch.keys, batch.instances, strict=True))
    present = [key for key in keys if key in loaded]
    return Batch(
        present,
        [loaded[key] for key in present],
        {key: precomputed[key] for key in present} if precomputed else {},
    )


def _is_computed_over_rows(annotation: Any) -> bool:
    return bool(
        getattr(annotation, "contains_over_clause", False) or getattr(annotation, "set_returning", False)
    )


def _foreign_joins(query: Any) -> list[Any]:
    """Return the joins of a query to tables that are not part of the model's own rows.

    Query.alias_map and alias_refcount, Django 5.2 to 6.1.
    """
    links = _parent_links(query.get_meta())
    return [
        join
        for alias, join in query.alias_map.items()
        if query.alias_refcount[alias]
        and join.parent_alias
        and getattr(join, "join_field", None) not in links
    ]


def _is_to_one(join: Any) -> bool:
    """Return whether a join gives each row once; of one that follows no relation, nobody knows."""
    field = getattr(join, "join_field", None)
    return bool(getattr(field, "many_to_one", False) or getattr(field, "one_to_one", False))


def _explicit_order(queryset: QuerySet[Any]) -> bool:
    return bool(queryset.query.order_by or queryset.query.extra_order_by)


def _orders_by_key(query: Query) -> bool:
    """Return whether a query's rows come in the order of their key, as they do where none is given."""
    if query.extra_order_by or not query.order_by:
        return not query.extra_order_by
    pk = query.get_meta().pk
    return query.standard_ordering and query.order_by[0] in ("pk", pk.name, pk.attname)


def _orders_by_own_columns(queryset: QuerySet[Any]) -> bool:
    query = queryset.query
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
    # Ordering by a relation's name is ordering by the related model's own ordering.
    return found.concrete and (not found.is_relation or name == found.attname)


def _on(using: str, queryset: Any) -> Any:
    clone = copied(queryset)
    clone._db = using
    clone._prefetch_related_lookups = ()
    clone.query.order_by = _inlined(clone.query)
    # The locks are ours; where Django heeds the caller's, it is for its own statement to refuse them.
    clone.query.select_for_update = False
    return clone


def _inlined(query: Any) -> tuple[Any, ...]:
    """Return an ordering in which annotations that are orderings themselves stand for their names.

    The statement of an update() takes these by name; a SELECT would say DESC ASC.
    """
    return tuple(_inlined_term(query, term) for term in query.order_by)


def _inlined_term(query: Any, term: Any) -> Any:
    name = term.removeprefix("-") if isinstance(term, str) else None
    annotation = query.annotations.get(name)
    # For "-name" Django's own update(), which has run over no row, has turned the annotation itself round.
    return annotation if isinstance(annotation, OrderBy) else term


def _direct(queryset: QuerySet[Any], using: str) -> Any:
    """Return the queryset with the same conditions and whole instances.

    The parts of sql.Query that hold what is selected, Django 5.2 to 6.1.
    """
    clone = _whole(_on(using, queryset), using)
    query = clone.query
    query.clear_deferred_loading()
    query.clear_select_fields()
    query.selected = None
    query.default_cols = True
    query.select_related = False
    query.set_annotation_mask(())
    query.set_extra_mask(())
    # One table and to-one joins give no row twice.
    query.distinct = False
    query.distinct_fields = ()
    if not _explicit_order(queryset):
        order_by_key(query)
    return clone


def _by_key(queryset: Any) -> Any:
    clone = copied(queryset)
    order_by_key(clone.query)
    return clone


def _nested(queryset: QuerySet[Any], using: str) -> Any:
    """Return the rows whose key is among those that the queryset selects.

    The keys are selected as the compiler of an UPDATE does it (Django 5.2 to 6.1): `values()` stumbles
    over a composite key beside annotations.
    """
    keys = _on(using, queryset).query
    keys.clear_ordering(force=True)
    keys.clear_select_clause()
    keys.clear_select_fields()
    keys.selected = None
    keys.add_fields([keys.get_meta().pk.name])
    outer = _all_rows_alike(queryset, using)
    outer.query.add_q(Q(pk__in=keys))
    if queryset.query.order_by and _orders_by_own_columns(queryset):
        outer.query.order_by = queryset.query.order_by
        outer.query.standard_ordering = queryset.query.standard_ordering
    else:
        order_by_key(outer.query)
    return outer


def chosen_keys(queryset: QuerySet[Any], using: str) -> list[Any]:
    """Return the keys of the rows that a queryset selects, each once."""
    return keys_of(chosen(queryset, using))


def chosen(queryset: QuerySet[Any], using: str) -> Any:
    """Return the rows that a queryset selects, each once, in a query that reads their own table only."""
    return _nested(queryset, using)


def chosen_by_committed(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Have the subqueries in a queryset's condition read what is committed, too."""
    if not _reads_snapshots(queryset.db):
        return queryset
    backend = backends.of(connections[queryset.db])
    queryset.query.where = backend.with_committed_subqueries(queryset.query.where)
    return current(queryset)


def _parent_links(opts: Any) -> set[Any]:
    links: set[Any] = set()
    for parent, link in opts.concrete_model._meta.parents.items():
        links |= {link, *_parent_links(parent._meta)}
    return links


def _own_tables(opts: Any) -> tuple[str, ...]:
    return ("self", *_parent_paths(opts))


def _parent_paths(opts: Any) -> list[str]:
    """Return what `select_for_update(of=…)` calls the tables of a row's ancestors."""
    paths: list[str] = []
    for parent, link in opts.concrete_model._meta.parents.items():
        paths.append(link.name)
        paths += [f"{link.name}{LOOKUP_SEP}{path}" for path in _parent_paths(parent._meta)]
    return paths
