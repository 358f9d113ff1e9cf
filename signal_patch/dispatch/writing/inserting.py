"""Inserts the instances of `bulk_create()` with Django's statement, and finds out which rows are new."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import FloatField, QuerySet
from django.db.models.constants import OnConflict

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.rows.querysets import copied, current, keys_of, lock, locked
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.writing import made_keys
from signal_patch.dispatch.writing.conflicts import IgnoringInsert, Upsert
from signal_patch.dispatch.writing.refresh import refresh
from signal_patch.dispatch.writing.unique_sets import conditions, flat, key_of, unique_sets

if TYPE_CHECKING:
    from django.db.models import Field

    from signal_patch.dispatch.operation import Operation
    from signal_patch.dispatch.writing.unique_sets import UniqueSet

    ModelField = Field[Any, Any]
    Row = Sequence[Any]
    # None for an instance without a row; else whether the row is new, and the row that RETURNING returned.
    Outcome = tuple[bool, Row | None] | None


class Inserter:
    """Writes the batches of one `bulk_create()`."""

    def __init__(self, operation: Operation, arguments: dict[str, Any]) -> None:
        self.queryset = operation.queryset
        self.model = operation.model
        self.using = operation.using
        self.connection = operation.connection
        self.original = operation.original
        self.lock = operation.lock
        self.arguments = arguments
        self.updates = bool(arguments.get("update_conflicts"))
        self.ignores = bool(arguments.get("ignore_conflicts"))
        self.returns_rows = self.connection.features.can_return_rows_from_bulk_insert

    def insert(self, objs: list[Any]) -> list[tuple[Any, bool]]:
        """Write the instances; return those that have a row now, each with whether the row is new."""
        return Insertion(self, self._expressions(objs)).run(objs)

    def _expressions(self, objs: list[Any]) -> list[ModelField]:
        """Return the fields for which an instance holds an expression that Django does not replace."""
        kinds = {type(value) for obj in objs for value in obj.__dict__.values()}
        if not any(hasattr(kind, "resolve_expression") for kind in kinds):
            return []
        returned = self.model._meta.db_returning_fields if self.returns_rows else []
        return [
            field
            for field in self.model._meta.concrete_fields
            if field not in returned and any(_is_expression(obj, field) for obj in objs)
        ]

    def conflicting_keys(self, obj: Any) -> list[Any]:
        """Return the keys of the rows that an upsert of the instance would update."""
        return [key for (key,) in self.rows_like([obj], self._unique_sets(), ["pk"])]

    def lock_conflicting_rows(self, objs: list[Any]) -> None:
        """Lock the rows that an upsert of the instances would update, in the order of their keys.

        The statement itself locks them in the order of the instances, so two upserts could deadlock.
        """
        if not (self.updates and self.lock) or len(objs) == 1:
            return
        parts = self._querysets_like(objs, self._unique_sets())
        if len(parts) == 1:
            keys_of(locked(parts[0], ()))
        else:
            all_rows: QuerySet[Any] = QuerySet(self.model, using=self.using)
            lock(all_rows, {key for part in parts for key in keys_of(part)})

    def _unique_sets(self) -> list[UniqueSet]:
        target = self._fields("unique_fields")
        return [target] if target else unique_sets(self.model)

    def rows_like(self, objs: list[Any], sets: Iterable[UniqueSet], names: list[str]) -> list[Row]:
        """Return these columns of the rows that are in conflict with the instances, and lock the rows."""
        found: list[Row] = []
        for part in self._querysets_like(objs, sets):
            found += (part.select_for_update() if self.lock else current(part)).values_list(*names)
        return found

    def _querysets_like(self, objs: list[Any], sets: Iterable[UniqueSet]) -> list[QuerySet[Any]]:
        """Return querysets that together have all rows in conflict with the instances, by key."""
        all_rows: QuerySet[Any] = QuerySet(self.model, using=self.using).order_by("pk")
        return [all_rows.filter(condition) for unique in sets for condition in conditions(objs, unique)]

    def refuse_target(self) -> None:
        """Raise the database's error if no unique index matches `unique_fields`.

        Django's own statement would raise it, but without a row in conflict it may not run.
        """
        target, updated = self._fields("unique_fields"), self._fields("update_fields")
        if self.updates and target and updated and not self._is_sure_of(target):
            with self.connection.cursor() as cursor:
                cursor.execute(self._empty_upsert(target, updated))

    def _empty_upsert(self, target: UniqueSet, updated: UniqueSet) -> str:
        """Return a statement that the database checks like an upsert, but does not execute."""
        ops, opts = self.connection.ops, self.model._meta
        table, key = map(ops.quote_name, (opts.db_table, fields_of(self.model)[0].column))
        names = ([field.column for field in fields] for fields in (updated, target))
        on_conflict = ops.on_conflict_suffix_sql([], OnConflict.UPDATE, *names)
        rows = ["SELECT", key, "FROM", table, "WHERE 1 = 0"]
        return " ".join(["EXPLAIN INSERT INTO", table, f"({key})", *rows, on_conflict])

    def _is_sure_of(self, target: UniqueSet) -> bool:
        # On PostgreSQL, Django's own statement always runs with a row. SQLite's tables may lack constraints
        # of the model (deferrable ones), and there the check is cheap.
        known = map(frozenset, unique_sets(self.model))
        return backends.of(self.connection).has_declared_constraints() and frozenset(target) in known

    def _fields(self, argument: str) -> UniqueSet:
        opts = self.model._meta
        names = self.arguments.get(argument) or ()
        return flat(opts.get_field(opts.pk.name if name == "pk" else name) for name in names)


class Insertion:
    """The INSERTs of one batch, which Django prepares and passes to `QuerySet._insert()`.

    `bulk_create()` calls it separately for instances with a key and for those without, in parts of the size
    that the database accepts. It expects the `db_returning_fields` of the rows in return (Django 5.2 to 6.1).
    """

    def __init__(self, inserter: Inserter, expressions: list[ModelField]) -> None:
        self.inserter = inserter
        self.connection = inserter.connection
        self.opts = inserter.model._meta
        self.using = inserter.using
        self.expressions = expressions
        # MySQL's and MariaDB's INSERT IGNORE changes values that do not fit their columns.
        adjusts = inserter.ignores and backends.of(self.connection).ignoring_changes_values()
        # Django's fields come first, because Django looks for them there. Then come the fields that the
        # instance of a new row needs, those that identify a row, and those that the instance of an updated
        # row needs.
        returned = list(self.opts.db_returning_fields)
        keys = [field for unique in unique_sets(inserter.model) for field in unique]
        self.of_new = list(dict.fromkeys([*returned, *expressions]))
        self.returning = list(dict.fromkeys([*self.of_new, *keys, *self.opts.concrete_fields]))
        self.of_ignored = self.returning if adjusts else list(dict.fromkeys([*self.of_new, *keys]))
        self.refresh_fields = self.returning if adjusts else returned
        self.outcomes: dict[int, list[Outcome]] = defaultdict(list)

    def run(self, objs: list[Any]) -> list[tuple[Any, bool]]:
        """Write the instances; return those that have a row now, each with whether the row is new."""
        writer = copied(self.inserter.queryset)
        # Set on this copy alone, which nobody else has.
        writer.__dict__["_insert"] = self._insert
        with in_flight.silence(self.inserter.model):
            self.inserter.original(writer, objs, **self.inserter.arguments)
        written = []
        for obj in objs:
            # An overridden bulk_create() may have left the instance out.
            outcomes = self.outcomes.get(id(obj))
            if outcomes and (outcome := outcomes.pop(0)):
                obj._state.adding = False
                obj._state.db = self.using
                written.append((obj, outcome[0]))
        if not self.inserter.returns_rows:
            self._refresh(written)
        return written

    def _insert(
        self,
        objs: list[Any],
        fields: list[ModelField],
        on_conflict: OnConflict | None = None,
        update_fields: list[ModelField] | None = None,
        unique_fields: list[ModelField] | None = None,
        **_: Any,
    ) -> list[Row]:
        """Stand in for `QuerySet._insert()`."""
        self.fields = fields
        if on_conflict == OnConflict.IGNORE:
            outcomes = IgnoringInsert(self).insert(objs)
        elif on_conflict == OnConflict.UPDATE:
            outcomes = Upsert(self, update_fields, unique_fields).insert(objs)
        else:
            outcomes = self.create(objs)
        # Without expressions, Django itself sets the returned fields of a new row.
        refreshes = on_conflict is not None or bool(self.expressions)
        for obj, outcome in zip(objs, outcomes, strict=True):
            self.outcomes[id(obj)].append(outcome)
            if refreshes and outcome and outcome[1] is not None:
                self._refresh_from(obj, outcome[0], outcome[1])
        if on_conflict == OnConflict.IGNORE:
            # Django would assign the rows to its instances in order, although some instances got none.
            return []
        if None in outcomes:
            # Django assigns rows to instances by position, and fails if a row is missing for an instance that
            # gets its key from the database. An instance without a row gets its own values.
            outcomes = [
                outcome or (False, self._own_row(obj))
                for obj, outcome in zip(objs, outcomes, strict=True)
                if outcome or obj._is_pk_set()
            ]
        return [outcome[1] for outcome in outcomes if outcome and outcome[1] is not None]

    def _own_row(self, obj: Any) -> Row:
        return [getattr(obj, field.attname) for field in self.opts.db_returning_fields]

    def create(self, objs: list[Any]) -> list[Outcome]:
        """Insert the instances by a plain INSERT."""
        if self.inserter.returns_rows:
            # The key shows which rows a trigger has left out.
            key = fields_of(self.inserter.model)
            rows = self.execute(objs, list(dict.fromkeys([*self.of_new, *key])))
            return [None if row is None else (True, row) for row in self.rows_by_instance(objs, rows, key)]
        key_field = self.opts.auto_field
        if key_field is None or key_field in self.fields:
            self.execute(objs, None)
        else:
            for obj, value in zip(objs, self._made_keys(objs, key_field), strict=True):
                columns.assign_if_different(obj, key_field, value)
        return [(True, None)] * len(objs)

    def _made_keys(self, objs: list[Any], key_field: ModelField) -> Sequence[Any]:
        """Insert the instances where no rows are returned, and return the keys that the database makes."""
        if len(objs) == 1 or not made_keys.are_known(self.connection):
            return [self.execute([obj], [key_field])[0][0] for obj in objs]
        self.execute(objs, None)
        return made_keys.of_last_insert(key_field, len(objs), self.connection)

    def execute(self, objs: list[Any], returning: list[ModelField] | None, **conflict: Any) -> list[Row]:
        """Run Django's own `QuerySet._insert()`, and return the rows."""
        queryset: Any = self.inserter.queryset
        found: list[Row] = queryset._insert(
            objs, fields=self.fields, returning_fields=returning, using=self.using, **conflict
        )
        return found

    def rows_by_instance(self, objs: list[Any], rows: list[Row], key: UniqueSet) -> list[Row | None]:
        """Return the row of each instance, or None if a trigger has left it out."""
        if len(rows) == len(objs):
            return list(rows)
        by_key = {self.row_key(row, key): row for row in rows}
        return [
            by_key.get(
                key_of(obj, key, self.connection) or tuple(getattr(obj, field.attname) for field in key)
            )
            for obj in objs
        ]

    def row_key(self, row: Row, unique: UniqueSet) -> tuple[Any, ...]:
        """Return the values of these columns in a row that the database has returned."""
        return tuple(row[self.returning.index(field)] for field in unique)

    def _refresh_from(self, obj: Any, created: bool, row: Row) -> None:
        for field, value in zip(self.returning, row, strict=False):
            if not created or field in self.refresh_fields or _is_expression(obj, field):
                columns.assign_if_different(obj, field, _returned(field, value))

    def _refresh(self, written: list[tuple[Any, bool]]) -> None:
        """Read the rows if the database has not returned them."""
        keys = {*fields_of(self.inserter.model)}
        refresh_fields = [
            field for field in dict.fromkeys([*self.refresh_fields, *self.expressions]) if field not in keys
        ]
        if refresh_fields:
            refresh((obj for obj, is_new in written if is_new), self.using, lambda model: refresh_fields)
        updated = (obj for obj, is_new in written if not is_new)
        refresh(updated, self.using, lambda model: list(model._meta.concrete_fields))


def _returned(field: ModelField, value: Any) -> Any:
    # SQLite stores a whole number in a REAL column as an integer. A SELECT makes it a float again; RETURNING
    # does not.
    return float(value) if type(value) is int and isinstance(field, FloatField) else value


def _is_expression(obj: Any, field: ModelField) -> bool:
    return hasattr(obj.__dict__.get(field.attname), "resolve_expression")
