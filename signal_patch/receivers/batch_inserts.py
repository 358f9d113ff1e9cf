"""Receivers save rows one by one; these rows are inserted together, at the end of the round.

Such a row is *held*: Django treats it as inserted. Before anything could notice that it is missing, it is
inserted together with all other held rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial
from operator import attrgetter
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError, connections, transaction
from django.db.models import Field, Model
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_save
from django.db.models.sql import InsertQuery
from django.db.models.sql.compiler import SQLInsertCompiler

from signal_patch.dispatch.rows.keys import is_composite
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.writing import made_keys
from signal_patch.specs import covers

if TYPE_CHECKING:
    from signal_patch.specs import Spec

    ModelField = Field[Any, Any]
    Place = tuple[type[Model], bool]
    # Values by the names of the attributes that hold them.
    Row = dict[str, Any]

# After this many INSERTs of a single row in succession, rows of that model are no longer held.
LOSSES: Final = 3

_DJANGOS_ATTRIBUTES = (DeferredAttribute, ForeignKeyDeferredAttribute)
_MUTABLE = (list, dict, set, bytearray)
_PRE_SAVE: Final = Field.pre_save
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE)\b", re.IGNORECASE)


@contextmanager
def holding(models: Iterable[Spec], using: str) -> Iterator[HeldRows]:
    """Hold rows of the models that the specs cover, within the block."""
    held = HeldRows(models, using)
    wrappers = held.connection.execute_wrappers
    wrappers.append(held.watch)
    try:
        yield held
        held.write()
    finally:
        held.discard()
        # Not pop(): a receiver may have added a wrapper without removing it.
        wrappers.remove(held.watch)


class HeldRows:
    """The rows that receivers have saved in a round and that are not inserted yet."""

    def __init__(self, models: Iterable[Spec], using: str) -> None:
        self.models = models
        self.using = using
        self.connection: Any = connections[using]
        self.thread = get_ident()
        self.savepoint_ids: list[Any] = [*self.connection.savepoint_ids]
        self.tables: dict[type[Model], Table | None] = {}
        # By model and by whether the keys are known. `inserts` has only those with rows, in their order.
        self.known: dict[Place, Insert] = {}
        self.inserts: dict[Place, Insert] = {}
        self.is_writing = False

    def take_early(self, instance: Any, using: str, *, force_insert: bool) -> bool:
        """Hold the row of an instance before Django prepares the INSERT, or return False.

        This saves most of the time of `Model._save_table()`. It is done if nothing but Django's own code
        would notice; other rows are left to `take()`.
        """
        table = self._table_of(instance)
        if table is None or not table.is_plain or id(instance) in _waiting:
            return False
        name = table.pk.attname
        if name not in instance.__dict__:
            return False
        key = None
        if instance.__dict__[name] is None:
            if table.key is None or table.pk.has_default():
                return False
            key = table.key
        elif not (force_insert or table.pk.has_default()):
            # Django tries an UPDATE first.
            return False
        if not self._may_hold(instance, using, key, table):
            return False
        insert = self._insert(table, key)
        row, has_expressions = insert.row_of(instance)
        if has_expressions:
            return False
        self._hold(instance, insert, row)
        return True

    def take(self, instance: Any, using: str, fields: list[ModelField], returning: list[Any]) -> bool:
        """Hold the row of an instance that Django is about to insert, or return False if it can't be held."""
        table = self._table_of(instance)
        if table is None or not fields:
            return False
        key = table.key
        # By identity, because comparing fields is slow.
        if any(field is key for field in fields):
            key = None
        if not (
            # Django 5.2 asks for the key to be returned even if it is known.
            all(field is table.key for field in returning)
            and (key is not None or instance._is_pk_set())
            and self._may_hold(instance, using, key, table)
        ):
            return False
        insert = self._insert(table, key)
        row, has_expressions = insert.row_of(instance)
        self._hold(instance, insert, row)
        if has_expressions:
            insert.has_expressions = True
            self.write()
        return True

    def _table_of(self, instance: Any) -> Table | None:
        """Return the table of an instance's model, or None if no row of it is held now."""
        model = type(instance)
        if model not in self.tables:
            self.tables[model] = self._table(model)
        table = self.tables[model]
        if table is None or not table.is_worth_while or post_save.has_listeners(model):
            return None
        return table

    def _table(self, model: Any) -> Table | None:
        """Return the table of a model, or None if its rows are in several tables or must not be held."""
        concrete = model._meta.concrete_model
        if concrete._meta.parents or not any(covers(spec, model) for spec in self.models):
            return None
        return Table(model) if _is_djangos(type(model._base_manager.all())._insert) else None

    def _may_hold(self, instance: Any, using: str, key: ModelField | None, table: Table) -> bool:
        if not self._is_here(using):
            return False
        if key is not None:
            return self._may_wait_for(key)
        # Django assigns the key that the INSERT returns: a number, also if it was given as text.
        return table.key is None or type(instance.pk) is int

    def _is_here(self, using: str) -> bool:
        return (
            using == self.using
            # Another thread has a connection of its own.
            and get_ident() == self.thread
            and self._is_in_savepoint_of_round()
            and not self.connection.needs_rollback
            and not self.is_writing
        )

    def _is_in_savepoint_of_round(self) -> bool:
        now, then = self.connection.savepoint_ids, self.savepoint_ids
        # They are mostly the same lists; _savepoints() only leaves out what is not a savepoint.
        return bool(now == then or _savepoints(now) == _savepoints(then))

    def _may_wait_for(self, key: ModelField) -> bool:
        """Return whether the keys of a multi-row INSERT can be known and reading one can be intercepted."""
        attribute = type(vars(key.model).get(key.attname))
        return attribute in (DeferredAttribute, HeldKey) and self._are_keys_known

    @cached_property
    def _are_keys_known(self) -> bool:
        return made_keys.are_known(self.connection)

    def _insert(self, table: Table, key: ModelField | None) -> Insert:
        place = table.model, key is None
        if place not in self.known:
            self.known[place] = Insert(table, key, self.connection)
        return self.known[place]

    def _hold(self, instance: Any, insert: Insert, row: Row) -> None:
        place = insert.table.model, insert.key is None
        # The row is prepared by now: a field may execute statements for it, and watch() may insert the held
        # rows before them.
        if not self._may_join(place, insert.table):
            self.write()
        insert.add(instance, row)
        self.inserts[place] = insert
        if insert.key is not None:
            HeldKey.install(insert.key)
            _waiting[id(instance)] = self

    def _may_join(self, place: Place, table: Table) -> bool:
        """Return whether a row can be inserted together with the held rows of its model.

        It cannot if rows of a model in `Table.earlier` would then be inserted after it.
        """
        if place not in self.inserts or len(self.inserts) == 1:
            return True
        places = [*self.inserts]
        return not any(other in table.earlier for other, _ in places[places.index(place) + 1 :])

    def write(self) -> None:
        """Insert the rows, in the order of their creation, in one statement for each model."""
        if self.is_writing or not self.inserts:
            return
        self.is_writing = True
        try:
            with transaction.mark_for_rollback_on_error(using=self.using):
                while self.inserts:
                    self._write(self.inserts.pop(next(iter(self.inserts))))
        finally:
            self.is_writing = False

    def _write(self, insert: Insert) -> None:
        instances = insert.instances
        try:
            keys = insert.run()
        finally:
            _forget(instances)
        for instance, key in zip(instances, keys, strict=False):  # no keys if they were known
            setattr(instance, insert.key.attname, key)

    def discard(self) -> None:
        """Forget the rows without inserting them."""
        for insert in self.inserts.values():
            _forget(insert.instances)
        self.inserts.clear()

    def watch(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Insert the rows before a statement that might find them missing."""
        if self.inserts and not self.is_writing and self._may_miss_rows(sql):
            self.write()
        return execute(sql, params, many, context)

    def _may_miss_rows(self, sql: Any) -> bool:
        if not isinstance(sql, str) or not _STATEMENT.match(sql):
            return True
        lowered = sql.lower()
        return any(name in lowered for insert in self.inserts.values() for name in insert.table.names)


# The HeldRows of each held instance without a key, by its id(): it stays alive while it is held.
_waiting: Final[dict[int, HeldRows]] = {}


class Table:
    """Facts about a model whose rows are held."""

    def __init__(self, sender: Any) -> None:
        # Possibly a proxy.
        self.sender = sender
        self.model = model = _concrete(sender)
        self.pk: Any = model._meta.pk
        # The key that the database makes, if it makes it.
        self.key: Any = model._meta.auto_field
        fields: list[Any] = model._meta.get_fields(include_hidden=True)
        referring = [field.related_model for field in fields if field.auto_created and not field.concrete]
        # The tables that have the rows or refer to them. A `db_table` may contain a schema and quotes, so
        # only the last part of the name is compared with statements.
        names = (other._meta.db_table for other in [model, *referring])
        self.names = {re.findall(r"\w+", name)[-1].lower() for name in names}
        # The models whose rows must not be inserted later: rows refer to them or take keys from the same
        # sequence.
        self.earlier = {model, *(_concrete(f.related_model) for f in model._meta.fields if f.is_relation)}
        self.losses = 0

    @cached_property
    def is_plain(self) -> bool:
        """Whether only Django's own code prepares a row and its key, for an INSERT that returns just the key.

        (Model._save_table, Field.pre_save and get_pk_value_on_save, Options.db_returning_fields, Django 5.2
        to 6.1.)
        """
        opts, pk = self.model._meta, self.pk
        return not (
            opts.order_with_respect_to
            or is_composite(self.model)
            or not self.fields(self.key)
            or any(field is not self.key for field in opts.db_returning_fields)
            or type(vars(pk.model).get(pk.attname)) not in (*_DJANGOS_ATTRIBUTES, HeldKey)
            or type(pk).get_pk_value_on_save is not Field.get_pk_value_on_save
            or not _is_djangos(self.sender._do_insert)
            # Here it is called once, and in Django 6.0 and 6.1 twice.
            or not all(_is_djangos(field.pre_save) for field in opts.local_concrete_fields)
        )

    def fields(self, key: ModelField | None) -> list[ModelField]:
        """Return the fields that are inserted, without the key that the database makes.

        (Model._save_table, Django 5.2 to 6.1.)
        """
        return [f for f in self.model._meta.local_concrete_fields if not f.generated and f is not key]

    @property
    def is_worth_while(self) -> bool:
        """Whether rows are still inserted together, instead of one at a time."""
        return self.losses < LOSSES


class Insert:
    """One INSERT of rows of one model, with the values that they had when they were saved."""

    def __init__(self, table: Table, key: ModelField | None, connection: Any) -> None:
        self.table = table
        self.fields = fields = table.fields(key)
        self.key: Any = key
        self.connection = connection
        returns_keys = key is not None and connection.features.can_return_rows_from_bulk_insert
        self.returning = [key] if returns_keys else None
        compiler = self._compiler([])
        self.prepare = compiler.prepare_value
        # The field prepares plain values, unless the backend overrides prepare_value().
        own = type(compiler)
        is_djangos = own.prepare_value is SQLInsertCompiler.prepare_value
        self.columns = [
            (field, field.attname, _saved_value_of(field), field.get_db_prep_save if is_djangos else None)
            for field in fields
        ]
        # Whether the placeholder of every value but an expression is %s (get_placeholder in Django 5.2 and
        # 6.0, get_placeholder_sql in 6.1). PostgreSQL has a placeholder for each column.
        placeholders = ("get_placeholder", "get_placeholder_sql")
        self.has_plain_placeholders = own.assemble_as_sql is SQLInsertCompiler.assemble_as_sql and not any(
            hasattr(field, name) for field in fields for name in placeholders
        )
        self.has_expressions = False
        self.instances: list[Model] = []
        self.rows: list[Row] = []

    def row_of(self, instance: Model) -> tuple[Row, bool]:
        """Return the values of an instance as they are saved, and whether any of them is an expression.

        SQLInsertCompiler's pre_save_val() and prepare_value(), Django 5.2 to 6.1. An invalid value raises its
        error in save().
        """
        row: Row = {}
        has_expressions = False
        for field, name, value_of, prepare in self.columns:
            value = value_of(instance)
            if prepare is None or hasattr(value, "resolve_expression"):
                prepared = self.prepare(field, value)
            else:
                prepared = prepare(value, self.connection)
            if isinstance(value, _MUTABLE) and type(prepared) is not str:
                prepared = _as_text(prepared) or self.prepare(field, deepcopy(value))
            if hasattr(prepared, "as_sql"):
                has_expressions = True
            row[name] = prepared
        return row, has_expressions

    def add(self, instance: Model, row: Row) -> None:
        self.instances.append(instance)
        self.rows.append(row)

    def run(self) -> list[Any]:
        """Insert the rows, and return the keys that the database has made."""
        rows = self.rows
        self.instances, self.rows = [], []
        self.table.losses = self.table.losses + 1 if len(rows) == 1 else 0
        size = len(rows)
        if size > 1:
            size = max(self.connection.ops.bulk_batch_size(self.fields, rows), 1)
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [key for part in parts for key in self._execute(part)]

    def _compiler(self, rows: Any) -> Any:
        query = InsertQuery(self.table.model)
        query.insert_values(self.fields, rows)
        return query.get_compiler(using=self.connection.alias)

    def _execute(self, rows: list[Row]) -> list[Any]:
        compiler = self._compiler(rows)
        # The values are already prepared.
        compiler.pre_save_val = _value_of
        compiler.prepare_value = _as_it_is
        if self.has_plain_placeholders and not self.has_expressions:
            compiler.assemble_as_sql = _with_plain_placeholders
        self.has_expressions = False
        try:
            found = compiler.execute_sql(self.returning)
        except DatabaseError as error:
            *others, message = error.args
            error.args = (*others, f"{self.table.model._meta.label}, inserted for receivers: {message}")
            raise
        if self.key and not self.returning:
            return made_keys.of_last_insert(self.key, len(rows), self.connection)
        return [key for key, *_ in found]


def _forget(instances: list[Model]) -> None:
    for instance in instances:
        _waiting.pop(id(instance), None)


def _saved_value_of(field: ModelField) -> Callable[[Model], Any]:
    """Return a function for `Field.pre_save()`, which only reads the attribute if nobody replaces it."""
    if type(field).pre_save is _PRE_SAVE and _is_djangos(field.pre_save):
        return attrgetter(field.attname)
    return partial(field.pre_save, add=True)


def _as_text(prepared: Any) -> Any:
    """Return psycopg's JSON wrapper with the serialized text instead of the value (Django 5.2 to 6.1)."""
    return hasattr(prepared, "dumps") and type(prepared)(prepared.dumps(prepared.obj), dumps=str)


def _value_of(field: ModelField, row: Row) -> Any:
    return row[field.attname]


def _as_it_is(field: ModelField, value: Any) -> Any:  # noqa: ARG001  # as SQLInsertCompiler.prepare_value()
    return value


def _is_djangos(method: Any) -> bool:
    """Return whether a method is Django's own, perhaps with a patch of this library around it."""
    return bool(method.__module__.startswith("django."))


def _with_plain_placeholders(fields: Any, rows: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return what SQLInsertCompiler.assemble_as_sql() returns for plain values (Django 5.2 to 6.1)."""
    params = [*rows]
    return [["%s"] * len(fields)] * len(params), params


def _savepoints(ids: Iterable[Any]) -> list[str]:
    """Return the open savepoints, without the unnamed entries that `atomic(savepoint=False)` adds."""
    return [name for name in ids if name is not None]


def _concrete(model: Any) -> Any:
    return model._meta.concrete_model


# Like the other patches, HeldKey is installed at first use and stays, dormant, until all patches are removed.


class HeldKey(DeferredAttribute):
    """The attribute of a key that the database makes; using it inserts the held row first."""

    _lock: Final = RLock()
    _on: Final[dict[type[Model], tuple[str, DeferredAttribute]]] = {}

    @classmethod
    def install(cls, key: ModelField) -> None:
        model = key.model
        if model in cls._on:
            return
        with cls._lock:
            if model not in cls._on:
                cls._on[model] = key.attname, vars(model)[key.attname]
                setattr(model, key.attname, cls(key))

    @classmethod
    def remove(cls) -> None:
        with cls._lock:
            while cls._on:
                model, (name, original) = cls._on.popitem()
                setattr(model, name, original)

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is None:
            return self
        write_before_use(instance)
        values = instance.__dict__
        name = self.field.attname
        return values[name] if name in values else super().__get__(instance, cls)

    def __set__(self, instance: Any, value: Any) -> None:
        write_before_use(instance)
        instance.__dict__[self.field.attname] = value

    def __delete__(self, instance: Any) -> None:
        write_before_use(instance)
        del instance.__dict__[self.field.attname]


def write_before_use(instance: Model) -> None:
    """Insert the held rows if the instance's row is one of them."""
    held = _waiting.get(id(instance))
    # Another thread must not use this connection.
    if held is not None and connections[held.using] is held.connection:
        held.write()


def save_table(wrapped: Callable[..., Any], instance: Any, args: Any, keywords: Any) -> Any:
    """Hold the row that is about to be inserted, or save it (Model._save_table, Django 5.2 to 6.1).

    Like Django's method, return whether an UPDATE has found the row. A held row counts as inserted.
    """
    if instance._state.adding:
        for held in _open():
            if _is_held_early(held, instance, *args, **keywords):
                return False
    return wrapped(instance, *args, **keywords)


def _is_held_early(
    held: HeldRows,
    instance: Any,
    raw: bool = False,
    cls: Any = None,
    force_insert: Any = False,
    force_update: bool = False,
    using: Any = None,
    update_fields: Any = None,
) -> bool:
    if raw or force_update or update_fields or cls is not _concrete(type(instance)):
        return False
    return held.take_early(instance, using, force_insert=bool(force_insert))


def insert(wrapped: Callable[..., Any], instance: Model, args: Any, keywords: Any) -> Any:
    """Hold the row that Model.save() inserts, or insert it (Model._do_insert, Django 5.2 to 6.1)."""
    _, using, fields, returning, raw = _arguments(*args, **keywords)
    if not raw and any(held.take(instance, using, fields, returning) for held in _open()):
        return []
    return wrapped(instance, *args, **keywords)


def _arguments(manager: Any, using: Any, fields: Any, returning_fields: Any, raw: Any) -> tuple[Any, ...]:
    return manager, using, fields, returning_fields, raw


def _open() -> list[HeldRows]:
    """Return what the open rounds hold, innermost first."""
    return [round_.held for round_ in in_flight.open_rounds() if round_.held is not None]


def reduce(wrapped: Callable[..., Any], instance: Model, args: Any, keywords: Any) -> Any:
    """Insert an instance's held row before the instance is pickled or copied."""
    write_before_use(instance)
    return wrapped(instance, *args, **keywords)


PLACES: Final = (
    (Model, "_save_table", save_table),
    (Model, "_do_insert", insert),
    (Model, "__reduce__", reduce),
)
