"""Insert rows that receivers save one by one together, at the end of the round.

Such a row is *held*: Django treats it as inserted. Before anything could notice that it is missing, it is
inserted together with all other held rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError, connections, transaction
from django.db.models import Model
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_save
from django.db.models.sql import InsertQuery
from django.db.models.sql.compiler import SQLInsertCompiler

from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.writing import made_keys
from signal_patch.specs import covers

if TYPE_CHECKING:
    from django.db.models import Field

    from signal_patch.specs import Spec

    ModelField = Field[Any, Any]
    Place = tuple[type[Model], bool]
    # Values by the names of the attributes that hold them.
    Row = dict[str, Any]

# After this many INSERTs of a single row in succession, rows of that model are no longer held.
LOSSES: Final = 3

_MUTABLE = (list, dict, set, bytearray)
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
        self.savepoints = _savepoints(self.connection)
        self.tables: dict[type[Model], Table | None] = {}
        # By model and by whether the keys are known. `inserts` has only those with rows, in their order.
        self.known: dict[Place, Insert] = {}
        self.inserts: dict[Place, Insert] = {}
        self.is_writing = False

    def take(self, instance: Any, using: str, fields: list[ModelField], returning: list[Any]) -> bool:
        """Hold the row of an instance, or return False if it can't be held."""
        model = type(instance)
        if model not in self.tables:
            self.tables[model] = self._table(model)
        table = self.tables[model]
        if table is None or not table.is_worth_while or not fields or post_save.has_listeners(model):
            return False
        key = table.key
        # By identity, because comparing fields is slow.
        if any(field is key for field in fields):
            key = None
        if not (
            self._is_here(using)
            # Django 5.2 asks for the key to be returned even if it is known.
            and all(field is table.key for field in returning)
            and (instance._is_pk_set() if key is None else self._may_wait_for(key))
        ):
            return False
        self._hold(instance, fields, key, table)
        return True

    def _table(self, model: Any) -> Table | None:
        """Return the table of a model, or None if its rows are in several tables or must not be held."""
        concrete = model._meta.concrete_model
        if concrete._meta.parents or not any(covers(spec, model) for spec in self.models):
            return None
        return Table(concrete)

    def _is_here(self, using: str) -> bool:
        return (
            using == self.using
            # Another thread has a connection of its own.
            and get_ident() == self.thread
            and _savepoints(self.connection) == self.savepoints
            and not self.connection.needs_rollback
            and not self.is_writing
        )

    def _may_wait_for(self, key: ModelField) -> bool:
        """Return whether the keys of a multi-row INSERT can be known and reading one can be intercepted."""
        attribute = type(vars(key.model).get(key.attname))
        return made_keys.are_told(self.connection) and attribute in (DeferredAttribute, HeldKey)

    def _hold(self, instance: Any, fields: list[ModelField], key: ModelField | None, table: Table) -> None:
        place = table.model, key is None
        insert = self.known.get(place)
        if insert is None:
            insert = self.known[place] = Insert(table, fields, key, self.connection)
        # A field may execute statements here, and watch() may insert the held rows before them.
        row = insert.row_of(instance)
        if not self._may_join(place, table):
            self.write()
        insert.add(instance, row)
        self.inserts[place] = insert
        if key is not None:
            HeldKey.put_on(key)
            _waiting[id(instance)] = self
        if any(map(_is_expression, row.values())):
            self.write()

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

    def __init__(self, model: Any) -> None:
        self.model = model
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

    @property
    def is_worth_while(self) -> bool:
        """Whether rows are still inserted together, instead of one at a time."""
        return self.losses < LOSSES


class Insert:
    """One INSERT of rows of one model, with the values that they had when they were saved."""

    def __init__(
        self, table: Table, fields: list[ModelField], key: ModelField | None, connection: Any
    ) -> None:
        self.table = table
        self.fields = fields
        self.key: Any = key
        self.connection = connection
        returns_keys = key is not None and connection.features.can_return_rows_from_bulk_insert
        self.returning = [key] if returns_keys else None
        compiler = self._compiler([])
        self.prepare = compiler.prepare_value
        # The field prepares plain values, unless the backend overrides prepare_value().
        is_djangos = type(compiler).prepare_value is SQLInsertCompiler.prepare_value
        self.columns = [
            (field, field.attname, field.pre_save, field.get_db_prep_save if is_djangos else None)
            for field in fields
        ]
        self.instances: list[Model] = []
        self.rows: list[Row] = []

    def row_of(self, instance: Model) -> Row:
        """Return the values of an instance as they are saved.

        SQLInsertCompiler's pre_save_val() and prepare_value(), Django 5.2 to 6.1. An invalid
        value raises its error in save().
        """
        row: Row = {}
        for field, name, pre_save, prepare in self.columns:
            value = pre_save(instance, add=True)
            if prepare is None or hasattr(value, "resolve_expression"):
                prepared = self.prepare(field, value)
            else:
                prepared = prepare(value, self.connection)
            if isinstance(value, _MUTABLE) and type(prepared) is not str:
                prepared = _as_text(prepared) or self.prepare(field, deepcopy(value))
            row[name] = prepared
        return row

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


def _as_text(prepared: Any) -> Any:
    """Return psycopg's JSON wrapper with the serialized text instead of the value (Django 5.2 to 6.1)."""
    return hasattr(prepared, "dumps") and type(prepared)(prepared.dumps(prepared.obj), dumps=str)


def _is_expression(value: Any) -> bool:
    return hasattr(value, "as_sql")


def _value_of(field: ModelField, row: Row) -> Any:
    return row[field.attname]


def _as_it_is(field: ModelField, value: Any) -> Any:  # noqa: ARG001  # as SQLInsertCompiler.prepare_value()
    return value


def _savepoints(connection: Any) -> list[str]:
    """Return the open savepoints, without the unnamed entries that `atomic(savepoint=False)` adds."""
    return [name for name in connection.savepoint_ids if name is not None]


def _concrete(model: Any) -> Any:
    return model._meta.concrete_model


# Like the other patches, HeldKey is installed at first use and stays, dormant, until all patches are removed.


class HeldKey(DeferredAttribute):
    """The attribute of a key that the database makes; using it inserts the held row first."""

    _lock: Final = RLock()
    _on: Final[dict[type[Model], tuple[str, DeferredAttribute]]] = {}

    @classmethod
    def put_on(cls, key: ModelField) -> None:
        model = key.model
        if model not in cls._on:
            with cls._lock:
                cls._on[model] = key.attname, vars(model)[key.attname]
                setattr(model, key.attname, cls(key))

    @classmethod
    def take_off(cls) -> None:
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


def insert(wrapped: Callable[..., Any], instance: Model, args: Any, keywords: Any) -> Any:
    """Hold the row that Model.save() inserts, or insert it (Model._do_insert, Django 5.2 to 6.1)."""
    _, using, fields, returning, raw = _arguments(*args, **keywords)
    if not raw:
        for round_ in in_flight.open_rounds():
            if round_.held is not None and round_.held.take(instance, using, fields, returning):
                return []
    return wrapped(instance, *args, **keywords)


def _arguments(manager: Any, using: Any, fields: Any, returning_fields: Any, raw: Any) -> tuple[Any, ...]:
    return manager, using, fields, returning_fields, raw


def reduce(wrapped: Callable[..., Any], instance: Model, args: Any, keywords: Any) -> Any:
    """Insert an instance's held row before the instance is pickled or copied."""
    write_before_use(instance)
    return wrapped(instance, *args, **keywords)


PLACES: Final = ((Model, "_do_insert", insert), (Model, "__reduce__", reduce))
