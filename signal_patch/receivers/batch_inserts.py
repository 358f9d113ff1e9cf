"""Rows that receivers save one by one, inserted together at the end of the round.

Such a row is *held*: Django believes it inserted, and whatever might find out that it is not has it inserted
first, with all that were saved before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, cast

from django.db import DatabaseError, connections, transaction
from django.db.models import Model
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_save
from django.db.models.sql import InsertQuery

from signal_patch.dispatch import sending
from signal_patch.specs import covers

if TYPE_CHECKING:
    from django.db.models import Field

    from signal_patch.specs import Spec

    ModelField = Field[Any, Any]

_MUTABLE = (list, dict, set, bytearray)
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE)\b", re.IGNORECASE)


@contextmanager
def holding(models: Iterable[Spec], using: str) -> Iterator[HeldRows]:
    """Hold rows of the models, or of what the labels stand for, for the length of the block."""
    held = HeldRows(models, using)
    wrappers = held.connection.execute_wrappers
    wrappers.append(held.watch)
    try:
        yield held
        held.write()
    finally:
        # Not the last one: a receiver may have left another behind.
        wrappers.remove(held.watch)


class HeldRows:
    """The rows that receivers have saved in a round, and that are not inserted yet."""

    def __init__(self, models: Iterable[Spec], using: str) -> None:
        self.models = models
        self.using = using
        self.connection: Any = connections[using]
        self.savepoints = _savepoints(self.connection)
        self.chosen: dict[type[Model], bool] = {}
        # By model and by whether its key is known. In the order in which they are to be inserted.
        self.inserts: dict[tuple[type[Model], bool], Insert] = {}
        # Instances that the database will give a key, by id().
        self.keyless: dict[int, Model] = {}
        self.is_writing = False

    def take(self, instance: Any, using: str, fields: list[ModelField], returning: list[Any]) -> bool:
        """Hold the row of an instance, or return False if it can't be held."""
        made = instance._meta.concrete_model._meta.auto_field
        key = None if made in fields else made
        if not (
            self._is_here(using)
            and self._is_chosen(type(instance))
            and self._is_plain(instance, fields)
            # Django 5.2 has a key returned that it knows.
            and {made}.issuperset(returning)
            and (instance._is_pk_set() if key is None else self._may_wait_for(key))
        ):
            return False
        self._hold(instance, fields, key)
        return True

    def _is_here(self, using: str) -> bool:
        return (
            using == self.using
            # Of another thread, it is another one.
            and connections[using] is self.connection
            and _savepoints(self.connection) == self.savepoints
            and not self.connection.needs_rollback
            and not self.is_writing
        )

    def _is_chosen(self, model: type[Model]) -> bool:
        if model not in self.chosen:
            self.chosen[model] = any(covers(spec, model) for spec in self.models)
        return self.chosen[model] and not post_save.has_listeners(model)

    def _is_plain(self, instance: Any, fields: list[ModelField]) -> bool:
        """Return whether the row is in one table and has columns of which none is an expression."""
        return (
            bool(fields)
            and not instance._meta.concrete_model._meta.parents
            and not any(hasattr(instance.__dict__.get(f.attname), "resolve_expression") for f in fields)
        )

    def _may_wait_for(self, key: ModelField) -> bool:
        """Return whether the database tells the keys of many new rows, and whoever reads one is seen."""
        returns_keys: bool = self.connection.features.can_return_rows_from_bulk_insert
        return returns_keys and type(getattr(key.model, key.attname)) in (DeferredAttribute, HeldKey)

    def _hold(self, instance: Any, fields: list[ModelField], key: ModelField | None) -> None:
        model = instance._meta.concrete_model
        place = model, key is None
        if not self._may_join(place):
            self.write()
        if place not in self.inserts:
            self.inserts[place] = Insert(model, fields, key, self.connection)
        is_known = self.inserts[place].add(instance)
        if key is not None:
            HeldKey.put_on(key)
            self.keyless[id(instance)] = instance
        if not is_known:
            self.write()

    def _may_join(self, place: tuple[type[Model], bool]) -> bool:
        """Return whether a row, inserted with those before it, comes after all that it may refer to."""
        places = [*self.inserts]
        if place not in self.inserts:
            return True
        model = place[0]
        earlier = {
            model,
            *(_concrete(field.related_model) for field in model._meta.fields if field.is_relation),
        }
        return not any(other in earlier for other, _ in places[places.index(place) + 1 :])

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
        for instance, key in insert.run():
            del self.keyless[id(instance)]
            setattr(instance, insert.key.attname, key)

    def watch(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Insert the rows before a statement that might find them missing."""
        if self.inserts and not self.is_writing and self._may_miss_rows(sql):
            self.write()
        return execute(sql, params, many, context)

    def _may_miss_rows(self, sql: Any) -> bool:
        if not isinstance(sql, str) or not _STATEMENT.match(sql):
            return True
        lowered = sql.lower()
        return any(table in lowered for insert in self.inserts.values() for table in insert.tables)


class Insert:
    """One INSERT of rows of one model, whose values are those that they had when they were saved."""

    def __init__(
        self, model: type[Model], fields: list[ModelField], key: ModelField | None, connection: Any
    ) -> None:
        self.model = model
        self.fields = fields
        self.key: Any = key
        self.connection = connection
        self.compiler = self._compiler([])
        self.instances: list[Model] = []
        self.rows: list[Row] = []
        self.tables = _tables(model)

    def _compiler(self, rows: list[Row]) -> Any:
        query = InsertQuery(self.model)
        query.insert_values(self.fields, cast("list[Model]", rows))
        return query.get_compiler(using=self.connection.alias)

    def add(self, instance: Model) -> bool:
        """Add a row, and return whether its values are all known: none is an expression.

        SQLInsertCompiler's pre_save_val() and prepare_value(), Django 5.2 to 6.1. What is wrong with a value
        is an error of the save.
        """
        row = Row()
        for field in self.fields:
            value = self.compiler.pre_save_val(field, instance)
            prepared = self.compiler.prepare_value(field, value)
            if isinstance(value, _MUTABLE) and type(prepared) is not str:
                # What is prepared may hold the value itself, as psycopg's JSON does.
                prepared = self.compiler.prepare_value(field, deepcopy(value))
            setattr(row, field.attname, prepared)
        self.instances.append(instance)
        self.rows.append(row)
        return not any(hasattr(value, "as_sql") for value in vars(row).values())

    def run(self) -> Iterator[tuple[Model, Any]]:
        """Insert the rows, and yield the instances that the database has made a key for, with the key."""
        size = max(self.connection.ops.bulk_batch_size(self.fields, self.rows), 1)
        for start in range(0, len(self.rows), size):
            keys = self._execute(self.rows[start : start + size])
            yield from zip(self.instances[start:], keys)  # noqa: B905  # no keys where they are known

    def _execute(self, rows: list[Row]) -> Iterator[Any]:
        compiler = self._compiler(rows)
        # Prepared they are already.
        compiler.pre_save_val = _value_of
        compiler.prepare_value = _as_it_is
        try:
            found = compiler.execute_sql([self.key] if self.key else None)
        except DatabaseError as error:
            *others, message = error.args
            error.args = (*others, f"{self.model._meta.label}, inserted for receivers: {message}")
            raise
        return (key for key, *_ in found)


class Row:
    """The values of a row, by the names of the attributes that hold them."""


def _value_of(field: ModelField, row: Row) -> Any:
    return getattr(row, field.attname)


def _as_it_is(field: ModelField, value: Any) -> Any:  # noqa: ARG001  # as SQLInsertCompiler.prepare_value()
    return value


def _savepoints(connection: Any) -> list[str]:
    """Return the savepoints that are open: those of `atomic(savepoint=False)` have no name."""
    return [name for name in connection.savepoint_ids if name is not None]


def _concrete(model: Any) -> Any:
    return model._meta.concrete_model


def _tables(model: type[Model]) -> set[str]:
    """Return the tables that have rows of a model, or refer to them, as any statement would name them."""
    fields = model._meta.get_fields(include_hidden=True)
    related: list[Any] = [field.related_model for field in fields if _refers(field)]
    names = (other._meta.db_table for other in [model, *related])
    # A name may have a schema before it, and quotes in it.
    return {re.findall(r"\w+", name)[-1].lower() for name in names}


def _refers(field: Any) -> bool:
    return bool(field.auto_created and not field.concrete)


# What is patched. As the other patches, it goes on at first use and stays on, dormant, until all is off.


class HeldKey(DeferredAttribute):
    """The attribute of a key that the database makes: whoever uses it has the row inserted first."""

    _lock: Final = RLock()
    _on: Final[dict[type[Model], tuple[str, DeferredAttribute | None]]] = {}

    @classmethod
    def put_on(cls, key: ModelField) -> None:
        model = key.model
        if model not in cls._on:
            with cls._lock:
                cls._on[model] = key.attname, vars(model).get(key.attname)
                setattr(model, key.attname, cls(key))

    @classmethod
    def take_off(cls) -> None:
        with cls._lock:
            while cls._on:
                model, (name, original) = cls._on.popitem()
                if original is None:
                    delattr(model, name)
                else:
                    setattr(model, name, original)

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is not None:
            write_before_use(instance)
        return super().__get__(instance, cls)

    def __set__(self, instance: Any, value: Any) -> None:
        write_before_use(instance)
        instance.__dict__[self.field.attname] = value

    def __delete__(self, instance: Any) -> None:
        write_before_use(instance)
        del instance.__dict__[self.field.attname]


def write_before_use(instance: Model) -> None:
    """Insert what is held, if the instance's row is among it."""
    for held in _held():
        if id(instance) in held.keyless:
            held.write()


def _held() -> Iterator[HeldRows]:
    return (round_.held for round_ in sending.open_rounds() if round_.held is not None)


def insert(wrapped: Callable[..., Any], instance: Model, args: Any, keywords: Any) -> Any:
    """Hold a row that Model.save() inserts, or have it inserted (Model._do_insert, Django 5.2 to 6.1)."""
    _, using, fields, returning, raw = _arguments(*args, **keywords)
    if not raw and any(held.take(instance, using, fields, returning) for held in _held()):
        return []
    return wrapped(instance, *args, **keywords)


def _arguments(manager: Any, using: Any, fields: Any, returning_fields: Any, raw: Any) -> tuple[Any, ...]:
    return manager, using, fields, returning_fields, raw


def reduce(wrapped: Callable[..., Any], instance: Model, args: Any, keywords: Any) -> Any:
    """Have a row inserted before its instance is pickled or copied."""
    write_before_use(instance)
    return wrapped(instance, *args, **keywords)


PLACES: Final = ((Model, "_do_insert", insert), (Model, "__reduce__", reduce))
