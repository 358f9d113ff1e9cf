"""Writes a batch with Django's statement, including values of single rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import QuerySet, Value
from django.db.models.sql import Query

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows import querysets, selection
from signal_patch.dispatch.rows.keys import is_part, refuse_shared
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns, json_null
from signal_patch.dispatch.values.expressions import columns_of
from signal_patch.dispatch.values.per_row import PerRow
from signal_patch.dispatch.values.plan import Plan
from signal_patch.dispatch.values.tracking import Changes

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.dispatch.rows.selection import Batch

    ModelField = Field[Any, Any]

# The time for a CASE with a branch for each row grows with the square of the branches, and each statement has
# a fixed cost. With some hundred rows, neither matters.
BRANCHES = 400


class Writer:
    """Writes a batch as planned, with what receivers changed, by the key of the row.

    `queryset` covers all rows, and is of the class that `original`, Django's own `update()`, expects.
    """

    def __init__(
        self,
        batch: Batch,
        plan: Plan,
        changes: dict[Any, Changes],
        queryset: QuerySet[Any],
        original: Callable[..., int],
    ) -> None:
        self.batch = batch
        self.plan = plan
        self.changes = changes
        self.queryset = queryset
        self.original = original
        self.model = queryset.model
        self.connection = connections[queryset.db]
        self.columns = set(self.model._meta.concrete_fields)
        # In these fields each row gets what its instance holds. If receivers have changed rows, that includes
        # fields whose expressions would read what a receiver has put into another column.
        self.fixed = [*plan.precomputed_fields.values()] if changes else plan.written_as_held
        self.nulls: set[tuple[ModelField, Any]] = set()

    def write(self) -> int:
        """Write the batch, and return the number of rows matched."""
        keys = self.batch.keys
        if self.changes or self.fixed:
            matched = self._write_own_values()
        else:
            matched = self._update(keys, self.plan.statement)
        if matched > len(keys):
            # Other rows may share these keys. If not, an overridden `update()` has counted rows of its own.
            moves = any(map(self._is_key, self.plan.names))
            refuse_shared_keys(self.queryset, [obj.pk for obj in self.batch.instances] if moves else keys)
        return matched

    def _write_own_values(self) -> int:
        """Write the batch in statements that also write the values of single rows."""
        self.nulls = json_null.places(self.plan.precomputed_fields.values(), self.batch.precomputed)
        matched = sum(map(self._write_part, self._parts()))
        self._write_subclasses()
        return matched

    def _parts(self) -> Iterator[list[tuple[Any, Model]]]:
        """Yield the keys and instances for each statement."""
        fields = set(self.fixed).union(*self.changes.values())
        constant = self._constant(fields)
        room = querysets.largest_batch(self.queryset.db, self.model)
        branches = max(1, min(BRANCHES, room // max(1, len(fields))))
        part: list[tuple[Any, Model]] = []
        count = 0
        for key, instance in self.batch.pairs:
            own = [*self.fixed, *self.changes.get(key, ())]
            if not constant.isdisjoint(own):
                yield [(key, instance)]
                continue
            part.append((key, instance))
            count += bool(own)
            if count == branches:
                yield part
                part, count = [], 0
        if part:
            yield part

    def _constant(self, fields: set[ModelField]) -> set[ModelField]:
        """Return the fields to which only constants can be written, one row at a time."""
        return {
            field
            for field in fields & self.columns
            if not columns.takes_expressions(field, PerRow(self.model, field, {}), self.connection)
        }

    def _write_part(self, part: list[tuple[Any, Model]]) -> int:
        own: dict[ModelField, dict[Any, Any]] = defaultdict(dict)
        for key, instance in part:
            for field in self.fixed:
                own[field][self._key(field, key, instance)] = self._held(field, key, instance)
            for field, value in self.changes.get(key, {}).items():
                if field in self.columns:
                    own[field][self._key(field, key, instance)] = value
        keys = [key for key, _ in part]
        return self._update(keys, self._merged(own, len(part)))

    def _held(self, field: ModelField, key: Any, instance: Model) -> Any:
        value = getattr(instance, field.attname)
        return json_null.JsonNull() if value is None and (field, key) in self.nulls else value

    def _key(self, field: ModelField, key: Any, instance: Model) -> Any:
        """Return the key of the instance's row in the table that contains the field's column."""
        owner = columns.concrete(field.model)
        if owner is self.model._meta.concrete_model:
            return key
        return getattr(instance, owner._meta.pk.attname)

    def _merged(self, own: dict[ModelField, dict[Any, Any]], count: int) -> dict[str, Any]:
        """Return the values for a single statement that also writes the values of single rows.

        With two statements, the first one would give the caller's value to all rows, although the column may
        be unique.
        """
        opts = self.model._meta
        named = {opts.get_field(name): name for name in self.plan.names}
        values = dict(self.plan.statement)
        for field, by_key in own.items():
            name = named.get(field, field.attname)
            if len(by_key) == count and self._is_one(field, [*by_key.values()]):
                values[name] = next(iter(by_key.values()))
            else:
                otherwise = self._otherwise(field, name)
                values[name] = PerRow(columns.concrete(field.model), field, by_key, otherwise)
        # MariaDB assigns from left to right. So a CASE over the key must come before the new key, and the
        # caller's expressions must keep the caller's order.
        places = {name: place for place, name in enumerate(self.plan.names)}
        order = sorted(values, key=lambda name: (self._is_key(name), places.get(name, len(places))))
        return {name: values[name] for name in order}

    def _is_one(self, field: ModelField, values: list[Any]) -> bool:
        first = values[0]
        if all(value is first for value in values):
            return True
        if columns.is_opaque(field):
            # In JSON, 1 and True are equal but saved differently.
            values = [columns.fingerprint(field, value, self.connection) for value in values]
            first = values[0]
        return all(type(value) is type(first) and value == first for value in values)

    def _otherwise(self, field: ModelField, name: str) -> Any:
        if name not in self.plan.statement:
            return None
        value = self.plan.statement[name]
        if hasattr(value, "resolve_expression"):
            return value
        if hasattr(value, "prepare_database_save"):
            value = value.prepare_database_save(field)
        return Value(value, output_field=field)

    def _is_key(self, name: str) -> bool:
        return is_part(self.model, self.model._meta.get_field(name))

    def _write_subclasses(self) -> None:
        # A polymorphic queryset yields instances with columns that its own model lacks.
        for key, instance in self.batch.pairs:
            changes = self.changes.get(key, {})
            values = {field.attname: value for field, value in changes.items() if field not in self.columns}
            if values:
                subclass: QuerySet[Any] = QuerySet(type(instance), using=self.queryset.db)
                with in_flight.silence(type(instance)):
                    QuerySet.update(querysets.with_keys(subclass, [instance.pk]), **values)

    def _update(self, keys: list[Any], values: dict[str, Any]) -> int:
        with in_flight.silence(self.model):
            return self.original(querysets.with_keys(self.queryset, keys), **values)


def refuse_shared_keys(queryset: QuerySet[Any], keys: Sequence[Any]) -> None:
    """Raise an error if rows share one of the keys; called if a statement has matched too many rows."""
    all_rows: QuerySet[Any] = QuerySet(queryset.model, using=queryset.db)
    refuse_shared(queryset.model, querysets.keys_of(querysets.with_keys(all_rows, keys)))


def write_extras(
    queryset: QuerySet[Any],
    pairs: list[tuple[Any, Model]],
    changes: dict[Any, Changes],
    named: Collection[ModelField],
) -> None:
    """Write what receivers have changed in fields other than the named ones.

    `queryset` covers all rows, and writes the columns of its own model. An instance of a subclass may have
    more columns.
    """
    own = set(queryset.model._meta.concrete_fields)
    groups: dict[tuple[type[Model], tuple[ModelField, ...]], list[tuple[Any, Model]]] = defaultdict(list)
    for key, obj in pairs:
        extra = [field for field in changes.get(key, {}) if field not in named]
        if extra:
            model = queryset.model if own.issuperset(extra) else type(obj)
            groups[model, tuple(extra)].append((key, obj))
    for (model, fields), chosen in groups.items():
        rows = queryset if model is queryset.model else QuerySet(model, using=queryset.db)
        # Of two instances with one key, the first counts.
        first = dict(reversed(chosen))
        batch = selection.Batch(list(first), list(first.values()))
        values = {key: {field: getattr(obj, field.attname) for field in fields} for key, obj in first.items()}
        nothing_else = Plan((), frozenset(), pre_save_heard=True)
        # Django's own bulk_update() would lose the changes that a field only makes to plain values.
        Writer(batch, nothing_else, values, rows, QuerySet.update).write()


def writer_of(queryset: QuerySet[Any], using: str) -> Any:
    """Return the queryset for Django's statement, which is later narrowed to some keys."""
    writer = querysets.all_rows(queryset, using)
    if backends.of(connections[using]).orders_updates():
        writer.query.order_by = _order_of_write(queryset)
        writer.query.standard_ordering = queryset.query.standard_ordering
    return writer


def _order_of_write(queryset: Any) -> tuple[Any, ...]:
    """Return the caller's ordering for a statement that does not have the caller's annotations.

    Like Django's own `update()`, it leaves out an ordering by joined columns.
    """
    query = queryset.query
    if query.model._meta.parents:
        # Django would use the ordering of the child for an ancestor's table, where it may not work.
        return ()
    if not all(_stays_in_the_table(query, term) for term in query.order_by):
        return ()
    return tuple(_without_annotations(query, term) for term in query.order_by)


def _stays_in_the_table(query: Any, term: Any) -> bool:
    """Return whether the statement can order by a term. Django leaves out names of joined columns itself."""
    if isinstance(term, str):
        annotation = query.annotations.get(term.removeprefix("-"))
        table = query.get_meta().db_table
        read = [] if annotation is None else columns_of(annotation)
        return all(column.alias == table for column in read)
    try:
        term.resolve_expression(Query(query.model), allow_joins=False)
    except FieldError:
        return False
    return True


def _without_annotations(query: Any, term: Any) -> Any:
    name = term.removeprefix("-") if isinstance(term, str) else None
    annotation = query.annotations.get(name)
    if annotation is None:
        return term
    return annotation.desc() if term != name else annotation
