"""Answer receivers' reads of single rows of the batch from one query for all of them.

If receivers read a row by its key ("SELECT … WHERE id = 5") and a second such query follows, it is run for
all keys of the batch, and further queries are answered from its rows. The rows are locked, so that no other
transaction changes them. They are forgotten when a receiver runs a statement that may change them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import IntegerField, Q, UUIDField, Value
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, Lookup
from django.db.models.sql import Query
from django.db.models.sql.constants import MULTI, SINGLE
from django.db.models.sql.where import AND, WhereNode

from signal_patch.dispatch.rows.choosing import foreign_joins
from signal_patch.dispatch.rows.keys import is_composite
from signal_patch.dispatch.rows.querysets import key_condition
from signal_patch.dispatch.values.columns import target_field
from signal_patch.receivers.statements import Statements

if TYPE_CHECKING:
    from django.db.models import Model

    Row = tuple[Any, ...]
    Keys = Mapping[type[Model], Collection[Any]]

# At most this many queries that differ in more than the key are remembered.
SHAPES: Final = 16
# Reading a row ahead costs less than 1/WORTH of reading it by itself.
WORTH: Final = 10
# After more losses, a query is no longer read ahead. A loss is when reading ahead cost more than it saved.
LOSSES: Final = 1
# Batches of at most this many rows are not read ahead.
FEW: Final = 2

# What a query must not have, and what differs in queries of one shape (sql.Query, Django 5.2 to 6.1).
_NOT_PLAIN = (
    *("distinct", "select_for_update", "combinator", "extra", "extra_tables", "extra_order_by", "group_by"),
    *("select_related", "explain_info", "_filtered_relations", "low_mark", "subquery"),
)
_NOT_COMPARED = ("where", "base_table", "_annotation_select_cache", "_extra_select_cache")
# The attributes of a compiler that the iterables of querysets use (SQLCompiler, Django 5.2 to 6.1).
_COMPILED = ("select", "klass_info", "annotation_col_map", "col_count")
_MUTABLE = (list, dict, set, bytearray)
_PLAIN = (
    *(type(None), bool, int, float, Decimal, str, bytes, UUID),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
)


class Read(NamedTuple):
    """A query by key: the key, the position of its condition, and the other conditions."""

    key: Any
    place: int
    others: list[Any]


class Shape:
    """A query by key without its key, and the rows that it finds, by key, once they have been read."""

    def __init__(self, query: Any, read: Read) -> None:
        self.query = query.clone()
        self.place = read.place
        self.others = read.others
        self.traits = _traits(self.query)
        # Whether it reads only one table. Only the compiler knows, so this is set when the query is compiled.
        self.is_usable = True
        self.rows: dict[Any, Row] | None = None
        # Whether all values in the rows are immutable.
        self.is_unchanging = False
        self.compiled: dict[str, Any] = {}
        self.answered = self.losses = 0

    def fits(self, query: Any, read: Read, traits: dict[str, Any]) -> bool:
        return (
            query.model is self.query.model
            and read.place == self.place
            and read.others == self.others
            and traits == self.traits
        )

    def may_read(self) -> bool:
        return self.is_usable and self.losses <= LOSSES

    def drop(self) -> None:
        """Forget the rows, and note whether reading them was worthwhile."""
        if self.rows is not None:
            self.losses += self.answered * WORTH < len(self.rows)
        self.rows = None
        self.answered = 0


class BatchReads:
    """The reads of one operation's receivers, on the connection that the operation writes to."""

    def __init__(self, using: str) -> None:
        self.connection: Any = connections[using]
        self.statements = Statements(self.connection)
        self.shapes: list[Shape] = []
        # The keys of the rows in flight, by concrete model.
        self.in_flight: Keys = {}
        # The same keys as conditions hold them, once a receiver reads a row.
        self.keys: dict[Any, set[Any]] = {}

    @contextmanager
    def answering(self, keys: Keys) -> Iterator[None]:
        """Answer reads of the rows with these keys within the block."""
        self.in_flight = {
            model: own for model, own in keys.items() if len(own) > FEW and not is_composite(model)
        }
        if not self.in_flight:
            yield
            return
        ops, wrappers = self.connection.ops, self.connection.execute_wrappers
        before = vars(ops).get("compiler")
        ops.compiler = self._compilers(ops.compiler)
        wrappers.append(self.watch)
        try:
            yield
        finally:
            # Not pop(): a receiver may have added a wrapper without removing it.
            wrappers.remove(self.watch)
            if before is None:
                del ops.compiler
            else:
                ops.compiler = before
            self._drop()
            self.keys.clear()

    def _drop(self) -> None:
        for shape in self.shapes:
            shape.drop()
        self.statements.plain_tables.clear()

    def watch(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Forget what was read before a statement that may change it."""
        has_read = any(shape.rows is not None for shape in self.shapes)
        if has_read and not self.statements.is_harmless(sql, self._tables()):
            self._drop()
        try:
            return execute(sql, params, many, context)
        except BaseException:
            self._drop()
            raise

    def _tables(self) -> set[str]:
        return {model._meta.db_table for model in self.in_flight}

    def _compilers(self, original: Callable[[str], Any]) -> Callable[[str], Any]:
        """Return `connection.ops.compiler()` with a compiler that tries answer() first (5.2 to 6.1)."""
        base, reads = original("SQLCompiler"), self

        class Answering(base):  # type: ignore[misc,valid-type]  # each backend has its own
            def execute_sql(self, result_type: Any = MULTI, *args: Any, **keywords: Any) -> Any:
                rows = reads.answer(self, base) if result_type in (MULTI, SINGLE) else None
                if rows is None:
                    return super().execute_sql(result_type, *args, **keywords)
                return [rows] if result_type == MULTI else next(iter(rows), None)

        return lambda name: Answering if name == "SQLCompiler" else original(name)

    def answer(self, compiler: Any, base: Any) -> list[Row] | None:
        """Return the rows that a query finds, or None if it must be run."""
        query = compiler.query
        # Django validates constraints by queries without a model.
        model = query.model and query.model._meta.concrete_model
        read = _parsed(query) if model in self.in_flight and not self.connection.needs_rollback else None
        if read is None or read.key not in (keys := self._keys_of(model)):
            return None
        shape = self._seen(query, read)
        if shape is None or not self._has_read(shape, keys, base):
            return None
        rows: Any = shape.rows
        row = rows.get(read.key)
        if row is None and not _is_compared_exactly(query.model):
            return None
        shape.answered += 1
        vars(compiler).update(shape.compiled)
        if row is None:
            return []
        return [row if shape.is_unchanging else tuple(map(_unshared, row))]

    def _keys_of(self, model: Any) -> set[Any]:
        if model not in self.keys:
            self.keys[model] = set(_prepared(model._meta.pk, self.in_flight[model]))
        return self.keys[model]

    def _seen(self, query: Any, read: Read) -> Shape | None:
        """Return the shape of a query, or None if this is the first such query."""
        traits = _traits(query)
        for shape in self.shapes:
            if shape.fits(query, read, traits):
                return shape
        if len(self.shapes) < SHAPES:
            self.shapes.append(Shape(query, read))
        return None

    def _has_read(self, shape: Shape, keys: set[Any], base: Any) -> bool:
        if shape.rows is None and shape.may_read():
            _read(shape, keys, base, self.connection)
        return shape.rows is not None


def _read(shape: Shape, keys: Iterable[Any], base: Any, connection: Any) -> None:
    """Run the query for all the keys."""
    query = shape.query.clone()
    query.clear_limits()
    lookup = query.where.children.pop(shape.place)
    query.add_q(Q(key_condition(query.model, list(keys), connection)))

    class Keyed(base):  # type: ignore[misc]  # each backend has its own
        """Selects the key as the last column (SQLCompiler, Django 5.2 to 6.1)."""

        # Keeps execute_sql() from cutting the key off.
        has_extra_select = property(lambda self: False, lambda self, value: None)

        def get_extra_select(self, *args: Any) -> list[Any]:
            return [*super().get_extra_select(*args), (lookup.lhs, self.compile(lookup.lhs), None)]

        def get_from_clause(self) -> Any:
            # All joins have been added by now, such as those for the ordering or for a parent's columns.
            shape.is_usable = not foreign_joins(self.query)
            return super().get_from_clause()

    compiler = Keyed(query, connection, connection.alias)
    rows = list(chain.from_iterable(compiler.execute_sql(MULTI)))
    if not shape.is_usable:
        return
    found: Iterable[Any] = ((row[-1],) for row in rows)
    if converters := compiler.get_converters([lookup.lhs]):
        found = compiler.apply_converters(found, converters)
    prepared = query.model._meta.pk.get_prep_value
    shape.rows = {prepared(key): row[:-1] for (key,), row in zip(found, rows, strict=True)}
    shape.is_unchanging = not any(isinstance(value, _MUTABLE) for row in rows for value in row)
    converters = compiler.get_converters([expression for expression, *_ in compiler.select])
    shape.compiled = {name: getattr(compiler, name) for name in _COMPILED}
    # Looking up the converters for each read takes longer than converting the row. (SQLCompiler.results_iter,
    # Django 5.2 to 6.1.)
    shape.compiled["get_converters"] = lambda _: converters


def _prepared(pk: Any, keys: Iterable[Any]) -> Iterator[Any]:
    for key in keys:
        # Until a receiver gives an instance its key, bulk_create() may have a placeholder, which no row has.
        with suppress(TypeError, ValueError, ValidationError):
            yield pk.get_prep_value(key)


def _parsed(query: Any) -> Read | None:
    """Return the parts of a plain query of one table by its key, or None for any other query."""
    where = query.where
    if type(query) is not Query or where.connector != AND or where.negated or not _is_of_one_table(query):
        return None
    if any(getattr(query, name, None) for name in _NOT_PLAIN):
        return None
    if any(type(annotation) is not Value for annotation in query.annotations.values()):
        return None
    places = [place for place, child in enumerate(where.children) if _is_key(child, query.get_meta().pk)]
    if len(places) != 1:
        return None
    others = [_condition(child) for place, child in enumerate(where.children) if place != places[0]]
    return None if None in others else Read(where.children[places[0]].rhs, places[0], others)


def _is_of_one_table(query: Any) -> bool:
    return [alias for alias, count in query.alias_refcount.items() if count] == [query.get_meta().db_table]


def _is_key(child: Any, pk: Any) -> bool:
    return (
        isinstance(child, Exact)
        and _is_djangos(child)
        and child.lhs.target is pk
        and child.rhs.__hash__ is not None
    )


def _condition(child: Any) -> Any:
    """Return a condition in a comparable form, or None if it does not just compare columns with values."""
    if isinstance(child, WhereNode):
        parts = [_condition(part) for part in child.children]
        return None if None in parts else (child.connector, child.negated, parts)
    value = _typed(child.rhs) if isinstance(child, Lookup) and _is_djangos(child) else None
    return None if value is None else (type(child), child.lhs.target, value)


def _is_djangos(lookup: Any) -> bool:
    """Return whether one of Django's own lookups compares a column with a value."""
    return (
        type(lookup).__module__.startswith("django.db.models.")
        and type(lookup.lhs) is Col
        and lookup.rhs_is_direct_value()
        and not lookup.bilateral_transforms
    )


def _typed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        parts = [_typed(part) for part in value]
        return None if None in parts else parts
    # True == 1 in Python, but a column may distinguish them.
    return (type(value), value) if type(value) in _PLAIN else None


def _traits(query: Any) -> dict[str, Any]:
    traits = dict(vars(query))
    for name in _NOT_COMPARED:
        traits.pop(name, None)
    return traits


def _is_compared_exactly(model: Any) -> bool:
    """Return whether keys that differ in Python also differ in the database; text keys may not."""
    return isinstance(target_field(model._meta.pk), (IntegerField, UUIDField))


def _unshared(value: Any) -> Any:
    return deepcopy(value) if isinstance(value, _MUTABLE) else value
