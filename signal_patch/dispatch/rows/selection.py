"""The rows of a bulk operation: chosen once, locked, and loaded in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet

from signal_patch.dispatch.rows import choosing, loading, related
from signal_patch.dispatch.rows.keys import getter, refuse_null, refuse_shared
from signal_patch.dispatch.rows.querysets import (
    all_rows,
    copied,
    is_djangos,
    keyed,
    keys_of,
    largest_batch,
    locked,
    locks_rows,
    order_by_key,
    parts,
    reads_snapshots,
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


@dataclass(slots=True, repr=False)
class Batch:
    """Some of the chosen rows, as instances in the order of their signals.

    `keys` are the primary keys of the instances, as their rows had them when they were loaded. `precomputed`
    holds the values of the precomputed expressions, by key. `to_signal` are the keys and instances whose
    signals are sent; it is filled once that is known.
    """

    keys: list[Any]
    instances: list[Model]
    precomputed: Precomputed = field(default_factory=dict)
    to_signal: list[tuple[Any, Model]] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[Any, Model]]:
        """The keys, each with its instance."""
        return list(zip(self.keys, self.instances, strict=True))


@dataclass(eq=False, repr=False)
class Selection:
    """The rows of one bulk update, in the order of their signals.

    The first batch is loaded with the queryset's own conditions. Only if there are more rows, the keys of all
    rows are read before anything is written, and the other batches are loaded by these keys.

    `previews` are expressions to select with each batch when it is loaded. `precomputed` are expressions to
    select for all rows when they are chosen. The fields named in `replaced` get new values before receivers
    see the instances, so their old values are not loaded if Django alone makes the instances.
    """

    queryset: QuerySet[Any]
    using: str
    options: Options
    previews: Expressions
    precomputed: Expressions
    replaced: Sequence[str]

    def __post_init__(self) -> None:
        self.size = min(self.options.batch_size, largest_batch(self.using, self.queryset.model))
        # The keys of all rows, known from the first batch on.
        self.keys: list[Any] = []
        lock = locks_rows(self.options, self.using)
        self.choice = choosing.Choice(self.using, lock=lock, computes=bool(self.precomputed))
        self.loader = _Loader(self.queryset, self.using, self.choice, self.replaced)

    def batches(self) -> Iterator[Batch]:
        """Yield the rows in batches, each row once."""
        if self.choice.lock and not choosing.orders_by_key(self.queryset.query):
            yield from self._locked_by_key()
        elif (chosen := self.choice.rows(self.queryset)) is None:
            yield from self._in_other_tables_order()
        else:
            yield from self._in_models_order(chosen)

    def _in_models_order(self, chosen: QuerySet[Any]) -> Iterator[Batch]:
        first = self._load_first(chosen)
        if len(first.keys) <= self.size:
            self.keys = first.keys
            yield first
            return
        first.keys.pop()
        first.instances.pop()
        keys, precomputed = self._all_keys(self.queryset)
        if self._start_with(keys, first.keys):
            loaded = set(first.keys)
            keys = [key for key in keys if key not in loaded]
            yield first
        # Free this batch before the next one is loaded.
        del first
        yield from self._chunks(keys, precomputed)

    def _locked_by_key(self) -> Iterator[Batch]:
        """Lock the rows in the order of their keys, and yield them in the caller's order.

        Two operations that lock the same rows in different orders can deadlock. Avoiding that takes one more
        statement.
        """
        ordered = copied(self.queryset)
        order_by_key(ordered.query)
        first = self._load_first(self.choice.rows(ordered))
        if len(first.keys) <= self.size:
            self.keys = first.keys
            self._note_all_are_locked()
            order = first.keys if len(first.keys) < 2 else self._in_callers_order(first.keys)
            yield _arranged(first, order, first.precomputed)
            return
        # These are the first rows by key, not in the caller's order. Free them before the next batch is
        # loaded.
        del first
        keys, precomputed = self._all_keys(ordered)
        yield from self._chunks(self._in_callers_order(keys), precomputed)

    def _load_first(self, chosen: QuerySet[Any]) -> Batch:
        """Load the first batch and, if there is one, one more row, which shows that batches follow."""
        return self.loader.load(chosen, self.previews, self.precomputed, limit=self.size + 1)

    def _all_keys(self, queryset: QuerySet[Any]) -> tuple[list[Any], Precomputed]:
        # Chosen again, because loading the first batch has changed a queryset that returns itself as its
        # clone.
        keys, precomputed = self._keys(self.choice.rows(queryset))
        refuse_null(self.queryset.model, keys)
        self.keys = keys
        self._note_all_are_locked()
        return keys, precomputed

    def _note_all_are_locked(self) -> None:
        # The rows need no further lock. But MySQL and MariaDB only show their current values to locking
        # reads.
        self.choice.lock = self.choice.lock and reads_snapshots(self.using)

    def _in_callers_order(self, keys: list[Any]) -> list[Any]:
        chosen = self.choice.rows(self.queryset)
        if chosen is None:
            # Read without a lock, because the order depends on other tables.
            ordered: Iterable[Any] = self._keys_in_other_tables_order()
        else:
            ordered = keys_of(self.choice.with_lock(chosen))
        missing = set(keys)
        found = [key for key in dict.fromkeys(ordered) if key in missing]
        # A random condition, or a change to another table, may leave out some rows this time.
        missing.difference_update(found)
        return [*found, *(key for key in keys if key in missing)]

    def _start_with(self, keys: list[Any], first: list[Any]) -> bool:
        """Return whether the keys of all rows start with those of the first batch.

        They may not if a condition is random, because the second query then chooses other rows.
        """
        if choosing.has_explicit_order(self.queryset.query):
            # Rows that compare equal come in any order. There may be millions of keys, so no set of all is
            # made.
            return len(set(first).intersection(keys)) == len(first)
        return keys[: len(first)] == first

    def _in_other_tables_order(self) -> Iterator[Batch]:
        keys = list(dict.fromkeys(self._keys_in_other_tables_order()))
        refuse_null(self.queryset.model, keys)
        precomputed: Precomputed = {}
        if self.precomputed:
            computed, precomputed = self._computed(keys)
            keep = set(computed)
            keys = [key for key in keys if key in keep]
        self.keys = keys
        yield from self._chunks(keys, precomputed)

    def _keys_in_other_tables_order(self) -> Iterator[Any]:
        return (key for key, *_ in keyed(choosing.as_ordered(self.queryset, self.using)))

    def _computed(self, keys: list[Any]) -> tuple[list[Any], Precomputed]:
        """Return the keys that still have a row, and the values of the precomputed expressions."""
        computed, precomputed = self._keys(choosing.chosen(self.queryset, self.using))
        if set(computed).issuperset(keys):
            return computed, precomputed
        # A random condition has chosen other rows this time, so the expressions are computed by key.
        every_row = choosing.all_rows_alike(self.queryset, self.using)
        computed, precomputed = [], {}
        for part in parts(keys, self.size):
            present, values = self._keys(with_keys(every_row, part))
            computed += present
            precomputed |= values
        return computed, precomputed

    def _keys(self, chosen: QuerySet[Any]) -> tuple[list[Any], Precomputed]:
        chosen = self.choice.with_lock(chosen)
        if not self.precomputed:
            return keys_of(chosen), {}
        annotated = self.loader.annotated(chosen, {}, self.precomputed)
        precomputed = {key: tuple(values) for key, *values in keyed(annotated, *self.precomputed)}
        return list(precomputed), precomputed

    def _chunks(self, keys: list[Any], precomputed: Precomputed) -> Iterator[Batch]:
        return (self._chunk(part, precomputed) for part in parts(keys, self.size))

    def _chunk(self, keys: Sequence[Any], precomputed: Precomputed) -> Batch:
        rows = with_keys(all_rows(self.queryset, self.using), keys)
        batch = self.loader.load(rows, self.previews, {})
        if batch.keys == keys and not precomputed:
            return batch
        return _arranged(batch, keys, precomputed)


def _arranged(batch: Batch, keys: Sequence[Any], precomputed: Precomputed) -> Batch:
    """Return a batch with its rows in the order of these keys; keys without a row are dropped."""
    loaded = dict(batch.pairs)
    present = [key for key in keys if key in loaded]
    return Batch(
        present,
        [loaded[key] for key in present],
        {key: precomputed[key] for key in present} if precomputed else {},
    )


class _Loader:
    """Loads the instances of a batch as `for obj in queryset` would, and locks their rows."""

    def __init__(
        self, queryset: QuerySet[Any], using: str, choice: choosing.Choice, replaced: Sequence[str]
    ) -> None:
        self.queryset = queryset
        self.choice = choice
        self.replaced = replaced
        self.related = related.of(queryset, using)
        self.key_of = getter(queryset.model)

    def load(
        self,
        rows: QuerySet[Any],
        previews: Expressions,
        precomputed: Expressions,
        limit: int | None = None,
    ) -> Batch:
        annotated = self.annotated(rows, previews, precomputed)
        if not is_djangos(annotated):
            self._prepare_for_its_iterable(annotated, [*previews, *precomputed])
        elif self.related.is_any:
            self.related.load_with(annotated, joined=self._may_join(annotated, precomputed))
        if self.choice.lock:
            annotated = locked(annotated, self._loaded_tables(annotated))
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

    def annotated(
        self, rows: QuerySet[Any], previews: Expressions, precomputed: Expressions
    ) -> QuerySet[Any]:
        """Return a queryset that selects expressions along with its rows."""
        annotated = QuerySet.annotate(rows, **previews, **precomputed)
        return with_committed(annotated, precomputed) if self.choice.lock else annotated

    def _prepare_for_its_iterable(self, rows: Any, aliases: list[str]) -> None:
        """Give a queryset what another library's iterable needs to make instances of subclasses.

        model-utils' InheritanceIterable takes their columns from the tables that `select_related` joins. It
        sets the annotations that `_annotated` names on the instances.
        """
        rows.query.select_related = self.queryset.query.select_related
        rows._annotated = aliases
        rows._prefetch_related_lookups = self.related.lookups

    def _may_join(self, rows: QuerySet[Any], precomputed: Expressions) -> bool:
        """Return whether joins may load the related objects of these rows.

        They may not if their tables would be locked too, or if raw SQL may name a column that they also have.
        """
        locks_no_others = self.choice.can_name_tables or not self.choice.lock
        return not precomputed and locks_no_others and not related.has_raw_sql(rows.query)

    def _loaded_tables(self, rows: QuerySet[Any]) -> tuple[str, ...]:
        if self.choice.locked_tables or not rows.query.select_related:
            return self.choice.locked_tables
        # PostgreSQL refuses to lock the nullable side of an outer join.
        return choosing.own_tables(rows.query.get_meta()) if self.choice.can_name_tables else ()

    def _unloaded(self, rows: Any) -> Sequence[str]:
        # Locking a parent's table needs one of its columns in the SELECT; a prefetch needs the foreign keys.
        needs_all = concrete(self.queryset.model)._meta.parents or rows._prefetch_related_lookups
        return () if needs_all else self.replaced
