"""How new rows get in: by Django's statement, and what became of each instance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, connections, transaction
from django.db.models import F, FloatField, IntegerField, Q, QuerySet, UUIDField, Value
from django.db.models.constants import OnConflict
from django.db.models.expressions import DatabaseDefault, ExpressionWrapper
from django.db.models.sql import InsertQuery

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.rows.querysets import copied, current
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns, files
from signal_patch.dispatch.values.expressions import UNKNOWN
from signal_patch.dispatch.writing.refresh import refresh

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.options import Options

    ModelField = Field[Any, Any]
    UniqueSet = tuple[ModelField, ...]
    Row = Sequence[Any]
    Held = dict[UniqueSet, set[tuple[Any, ...]]]
    # What became of an instance: None if its row was left out, else whether the row is a new
    # one, and the row itself where the database returns it.
    Outcome = tuple[bool, Row | None] | None

# SQLite nests one condition in the other, 1000 deep at most.
CONDITIONS = 200


class Inserter:
    """Writes the batches of one `bulk_create()`."""

    def __init__(
        self,
        queryset: QuerySet[Any],
        using: str,
        options: Options,
        original: Callable[..., list[Any]],
        arguments: dict[str, Any],
    ) -> None:
        self.queryset = queryset
        self.model = queryset.model
        self.using = using
        self.connection = connections[using]
        self.original = original
        self.arguments = arguments
        self.updates = bool(arguments.get("update_conflicts"))
        self.conflicts = self.updates or bool(arguments.get("ignore_conflicts"))
        self.returns_rows = self.connection.features.can_return_rows_from_bulk_insert
        self.lock = options.lock and self.connection.features.has_select_for_update

    def insert(self, objs: list[Any]) -> list[tuple[Any, bool]]:
        """Write the instances, and return those that have got a row, each with whether the row
        is a new one.
        """
        return _Insertion(self, self._expressions(objs)).run(objs)

    def _expressions(self, objs: list[Any]) -> list[ModelField]:
        """Return the fields for which an instance has an expression that Django leaves there."""
        kinds = {type(value) for obj in objs for value in obj.__dict__.values()}
        if not any(hasattr(kind, "resolve_expression") for kind in kinds):
            return []
        returned = self.model._meta.db_returning_fields if self.returns_rows else []
        return [
            field
            for field in self.model._meta.concrete_fields
            if field not in returned and any(_is_expression(obj, field) for obj in objs)
        ]

    def rivals(self, obj: Any) -> list[Any]:
        """Return the keys of the rows that an upsert of the instance would update."""
        target = self._fields("unique_fields")
        sets = [target] if target else unique_sets(self.model)
        return [key for (key,) in self.rows_like([obj], sets, ["pk"])]

    def refuse_target(self) -> None:
        """Raise what the database raises for an upsert if no unique index is on its target.

        Django's own statement would find out, but there may be no row for it.
        """
        target, updated = self._fields("unique_fields"), self._fields("update_fields")
        if self.updates and target and updated and not self._is_sure_of(target):
            with self.connection.cursor() as cursor:
                cursor.execute(self._empty_upsert(target, updated))

    def _empty_upsert(self, target: UniqueSet, updated: UniqueSet) -> str:
        """Return a statement that is checked as an upsert, and executes nothing."""
        ops, opts = self.connection.ops, self.model._meta
        table, key = map(ops.quote_name, (opts.db_table, fields_of(self.model)[0].column))
        columns = ([field.column for field in fields] for fields in (updated, target))
        on_conflict = ops.on_conflict_suffix_sql([], OnConflict.UPDATE, *columns)
        rows = ["SELECT", key, "FROM", table, "WHERE 1 = 0"]
        return " ".join(["EXPLAIN INSERT INTO", table, f"({key})", *rows, on_conflict])

    def _is_sure_of(self, target: UniqueSet) -> bool:
        # On PostgreSQL a row meets Django's own statement in any case. SQLite's tables lack some of
        # the constraints that a model may have (deferrable ones), and to ask it costs little.
        known = map(frozenset, unique_sets(self.model))
        return backends.of(self.connection).has_declared_constraints() and frozenset(target) in known

    def _fields(self, argument: str) -> UniqueSet:
        opts = self.model._meta
        names = self.arguments.get(argument) or ()
        return _flat(opts.get_field(opts.pk.name if name == "pk" else name) for name in names)

    def rows_like(self, objs: Iterable[Any], sets: Iterable[UniqueSet], names: list[str]) -> list[Row]:
        """Return these columns of the rows with which the instances would conflict, and lock
        them.
        """
        all_rows: QuerySet[Any] = QuerySet(self.model, using=self.using).order_by("pk")
        all_rows = all_rows.select_for_update() if self.lock else current(all_rows)
        objs = list(objs)
        found: list[Row] = []
        for unique in sets:
            for condition in _conditions(objs, unique):
                found += all_rows.filter(condition).values_list(*names)
        return found


class _Insertion:
    """The INSERTs of one batch, which Django prepares and hands to `QuerySet._insert`.

    (Django 5.2 to 6.1: bulk_create() calls it for the instances with a key and for those
    without, split as the database needs it, with `returning_fields` that it expects back.)
    """

    def __init__(self, inserter: Inserter, expressions: list[ModelField]) -> None:
        self.inserter = inserter
        self.connection = inserter.connection
        self.opts = inserter.model._meta
        self.using = inserter.using
        self.expressions = expressions
        self.backend = backends.of(self.connection)
        adjusts = inserter.conflicts and not inserter.updates and self.backend.ignoring_changes_values()
        # Django's own come first, where Django looks for them; then what is to be learnt of a
        # new row, what tells new rows apart, and what is to be learnt of a row that was there.
        returned = list(self.opts.db_returning_fields)
        keys = [field for unique in unique_sets(inserter.model) for field in unique]
        self.of_new = list(dict.fromkeys([*returned, *expressions]))
        self.returning = list(dict.fromkeys([*self.of_new, *keys, *self.opts.concrete_fields]))
        self.of_some = self.returning if adjusts else list(dict.fromkeys([*self.of_new, *keys]))
        self.refresh_fields = self.returning if adjusts else returned
        self.outcomes: dict[int, list[Outcome]] = defaultdict(list)

    def run(self, objs: list[Any]) -> list[tuple[Any, bool]]:
        writer = copied(self.inserter.queryset)
        # On this one queryset, which nobody else has.
        writer.__dict__["_insert"] = self._insert
        with in_flight.silence(self.inserter.model):
            self.inserter.original(writer, objs, **self.inserter.arguments)
        written = []
        for obj in objs:
            # An override beneath may not have handed the instance on.
            outcomes = self.outcomes.get(id(obj))
            if outcomes and (outcome := outcomes.pop(0)):
                obj._state.adding = False
                obj._state.db = self.using
                written.append((obj, outcome[0]))
        if not self.inserter.returns_rows:
            self._reread(written)
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
        self.fields = fields
        self.upsert = {
            "on_conflict": on_conflict,
            "update_fields": update_fields,
            "unique_fields": unique_fields,
        }
        # Django takes the key for a set that holds one column or, if composite, several.
        self.unique_sets = [_flat(unique_fields)] if unique_fields else unique_sets(self.inserter.model)
        # Of a new row without expressions, Django learns all that there is to learn.
        settles = on_conflict is not None or bool(self.expressions)
        outcomes = self._choose(on_conflict)(objs)
        for obj, outcome in zip(objs, outcomes, strict=True):
            self.outcomes[id(obj)].append(outcome)
            if settles and outcome and outcome[1] is not None:
                self._settle(obj, outcome[0], outcome[1])
        if on_conflict == OnConflict.IGNORE:
            # Django takes the rows of all its batches for those of its instances in their order.
            return []
        if None in outcomes:
            # Django goes by the place: a row that was left out gets the values that its instance has. It
            # refuses to go on if the database was to make the key.
            outcomes = [
                outcome or (False, self._own_row(obj))
                for obj, outcome in zip(objs, outcomes, strict=True)
                if outcome or obj._is_pk_set()
            ]
        return [outcome[1] for outcome in outcomes if outcome and outcome[1] is not None]

    def _own_row(self, obj: Any) -> Row:
        return [getattr(obj, field.attname) for field in self.opts.db_returning_fields]

    def _choose(self, on_conflict: OnConflict | None) -> Callable[[list[Any]], list[Outcome]]:
        if on_conflict == OnConflict.IGNORE:
            return self._ignore if self.inserter.returns_rows else self._ignore_each
        if on_conflict != OnConflict.UPDATE:
            return self._create
        if not self.inserter.returns_rows:
            return self._upsert_each
        marker = self.backend.inserted_marker(self.inserter.model, self.connection)
        return self._upsert if marker is None else partial(self._upsert_told, marker)

    # Instances tell what their rows hold.

    def _settle(self, obj: Any, created: bool, row: Row) -> None:
        for field, value in zip(self.returning, row, strict=False):
            if not created or field in self.refresh_fields or _is_expression(obj, field):
                columns.assign(obj, field, _returned(field, value))

    def _reread(self, written: list[tuple[Any, bool]]) -> None:
        keys = {*fields_of(self.inserter.model)}
        refresh_fields = [
            field for field in dict.fromkeys([*self.refresh_fields, *self.expressions]) if field not in keys
        ]
        created = [obj for obj, is_new in written if is_new]
        if refresh_fields and created:
            refresh(created, self.using, lambda model: refresh_fields)
        others = [obj for obj, is_new in written if not is_new]
        if others:
            refresh(others, self.using, lambda model: list(model._meta.concrete_fields))

    # No conflicts are expected.

    def _create(self, objs: list[Any]) -> list[Outcome]:
        if self.inserter.returns_rows:
            # The key tells which rows a trigger has left out.
            key = fields_of(self.inserter.model)
            rows = self._django(objs, list(dict.fromkeys([*self.of_new, *key])))
            return [None if row is None else (True, row) for row in self._rows_by_instance(objs, rows, key)]
        key = self.opts.auto_field
        if key is None or key in self.fields:
            self._django(objs, None)
        else:
            # The database tells the last key only.
            for obj in objs:
                ((value, *_),) = self._django([obj], [key])
                columns.assign(obj, key, value)
        return [(True, None)] * len(objs)

    def _rows_by_instance(self, objs: list[Any], rows: list[Row], key: UniqueSet) -> list[Row | None]:
        """Return each instance's row, or None for one that a trigger has left out."""
        if len(rows) == len(objs):
            return list(rows)
        by_key = {self._row_key(row, key): row for row in rows}
        names = [field.attname for field in key]
        return [
            by_key.get(self._key(obj, key) or tuple(getattr(obj, name) for name in names)) for obj in objs
        ]

    def _django(self, objs: list[Any], returning: list[ModelField] | None, **conflict: Any) -> list[Row]:
        queryset: Any = self.inserter.queryset
        found: list[Row] = queryset._insert(
            objs, fields=self.fields, returning_fields=returning, using=self.using, **conflict
        )
        return found

    # Rows in conflict are left out. The database returns the inserted rows, but does not say
    # whose they are. That is certain if there are as many as instances, or none, or if a
    # unique key tells all instances apart. If it is not, the statement is taken back, and
    # each half has a statement of its own; a single row is always certain.

    def _ignore(self, objs: list[Any]) -> list[Outcome]:
        savepoint: Any = self.connection.savepoint()
        outcomes = self._told(objs, self._django_ignoring(objs))
        if outcomes is None:
            self.connection.savepoint_rollback(savepoint)
            return self._halves(objs)
        self.connection.savepoint_commit(savepoint)
        return outcomes

    def _halves(self, objs: list[Any]) -> list[Outcome]:
        middle = len(objs) // 2
        return self._ignore(objs[:middle]) + self._ignore(objs[middle:])

    def _told(self, objs: list[Any], rows: list[Row]) -> list[Outcome] | None:
        if len(rows) == len(objs):
            return [(True, row) for row in rows]
        if not rows:
            return [None] * len(objs)
        for unique in unique_sets(self.inserter.model):
            keys = [self._exact_key(obj, unique) for obj in objs]
            if None in keys or len(set(keys)) < len(keys):
                continue
            by_key = dict(zip((self._row_key(row, unique) for row in rows), rows, strict=True))
            if by_key.keys() <= set(keys):
                return [(True, by_key[key]) if key in by_key else None for key in keys]
        return None

    def _exact_key(self, obj: Any, unique: UniqueSet) -> tuple[Any, ...] | None:
        key = self._key(obj, unique)
        if key is None or not self.backend.ignoring_changes_values():
            return key
        # A value that was made to fit must not pass for that of another instance.
        return key if all(self._fits(*pair) for pair in zip(unique, key, strict=True)) else None

    def _fits(self, field: Any, value: Any) -> bool:
        while field.remote_field is not None:
            field = field.target_field
        if isinstance(field, IntegerField):
            low, high = self.connection.ops.integer_field_range(field.get_internal_type())
            return bool(low <= value <= high)
        if isinstance(value, str):
            return value.isascii() and len(value) <= (field.max_length or 0)
        return isinstance(field, UUIDField)

    def _key(self, obj: Any, unique: UniqueSet) -> tuple[Any, ...] | None:
        """Return what the row of an instance would hold in these columns, if that is certain."""
        key = []
        for field in unique:
            # What an instance holds for a generated column, if anything, is of another row.
            value = None if field.generated else getattr(obj, field.attname)
            if value is None or hasattr(value, "resolve_expression") or not _is_comparable(field):
                return None
            stored = columns.predicted(field, value, self.connection)
            if stored is UNKNOWN:
                return None
            key.append(stored)
        return tuple(key)

    def _row_key(self, row: Row, unique: UniqueSet) -> tuple[Any, ...]:
        return tuple(row[self.returning.index(field)] for field in unique)

    def _django_ignoring(self, objs: list[Any]) -> list[Row]:
        # SQLInsertCompiler, Django 5.2 to 6.1. Its execute_sql() does not reckon with a row
        # that is not returned before Django 6.1.
        compiler = self._ignoring_compiler(objs)
        compiler.returning_fields = self.of_some
        with self.connection.cursor() as cursor:
            for statement in compiler.as_sql():
                cursor.execute(*statement)
            rows = cursor.fetchall()
        table = self.opts.db_table
        converters = compiler.get_converters([field.get_col(table) for field in self.of_some])
        return list(compiler.apply_converters(rows, converters)) if converters else list(rows)

    def _ignoring_compiler(self, objs: list[Any]) -> Any:
        query = InsertQuery(self.inserter.model, on_conflict=OnConflict.IGNORE)
        query.insert_values(self.fields, objs)
        return query.get_compiler(using=self.using)

    def _ignore_each(self, objs: list[Any]) -> list[Outcome]:
        return [(True, None) if self._was_inserted(obj) else None for obj in objs]

    def _was_inserted(self, obj: Any) -> bool:
        with self.connection.cursor() as cursor:
            for statement in self._ignoring_compiler([obj]).as_sql():
                cursor.execute(*statement)
            key = self.opts.auto_field
            inserted = bool(cursor.rowcount == 1)
            if inserted and key is not None and key not in self.fields:
                last = self.connection.ops.last_insert_id(cursor, self.opts.db_table, key.column)
                columns.assign(obj, key, last)
        return inserted

    # Rows in conflict are updated. PostgreSQL tells which ones, of most tables.

    def _upsert_told(self, marker: ModelField, objs: list[Any]) -> list[Outcome]:
        rows = self._django(objs, [*self.returning, marker], **self.upsert)
        return [
            None if row is None else (row[-1], row[:-1])
            for row in self._rows_by_instance(objs, rows, self.unique_sets[0])
        ]

    # Elsewhere only the steps of select-then-save prove it: rows that are there and locked are
    # updated by Django's statement, all others are inserted by a plain one. If that fails
    # (instances in conflict with each other; a row that another transaction has just made),
    # all is taken back and each instance has its turn.

    def _upsert(self, objs: list[Any]) -> list[Outcome]:
        held = self._held(objs)
        known = [any(self._key(obj, unique) in keys for unique, keys in held.items()) for obj in objs]
        if self._meet_new_rows(objs, known):
            return self._upsert_each(objs)
        old = [obj for obj, is_known in zip(objs, known, strict=True) if is_known]
        new = [obj for obj, is_known in zip(objs, known, strict=True) if not is_known]
        try:
            with transaction.atomic(using=self.using):
                updated = iter(self._updated(old, held) if old else ())
                created = iter(self._create(new) if new else ())
        except IntegrityError:
            return self._upsert_each(objs)
        return [next(updated if is_known else created) for is_known in known]

    def _updated(self, objs: list[Any], held: Held) -> list[Outcome]:
        rows = self._rows_by_instance(
            objs, self._django(objs, self.returning, **self.upsert), self.unique_sets[0]
        )
        unique = fields_of(self.inserter.model)
        there = held.get(unique)
        if there is None:
            return [None if row is None else (False, row) for row in rows]
        outcomes: list[Outcome] = []
        for row in rows:
            if row is None:
                outcomes.append(None)
                continue
            # One before it may have moved the row with which it was in conflict out of its way.
            key = self._row_key(row, unique)
            outcomes.append((key not in there, row))
            there.add(key)
        return outcomes

    def _held(self, objs: list[Any]) -> Held:
        """Return what the rows that are there hold in the sets of columns that can be compared."""
        names = [field.attname for field in self.opts.concrete_fields]
        rows = self.inserter.rows_like(objs, self.unique_sets, names)
        held: Held = {}
        for unique in self.unique_sets:
            if all(_is_comparable(field) for field in unique):
                places = [names.index(field.attname) for field in unique]
                held[unique] = {tuple(row[place] for place in places) for row in rows}
        return held

    def _meet_new_rows(self, objs: list[Any], known: list[bool]) -> bool:
        """Return whether an instance with a row is in conflict with one before it that is to get one, too."""
        if all(known) or not any(known):
            return False
        for unique in self.unique_sets:
            new: set[Any] = set()
            for obj, is_known in zip(objs, known, strict=True):
                key = self._key(obj, unique)
                if not is_known:
                    new.add(key)
                elif key is not None and key in new:
                    return True
        return False

    def _upsert_each(self, objs: list[Any]) -> list[Outcome]:
        return [self._upsert_one(obj) for obj in objs]

    def _upsert_one(self, obj: Any) -> Outcome:
        key = self._rival(obj)
        if key is None:
            try:
                with transaction.atomic(using=self.using):
                    return self._create([obj])[0]
            except IntegrityError:
                # Another transaction may just have made the row; or the conflict is one of an index that
                # Django does not know, and the row is told by the statement alone.
                key = self._rival(obj)
                if key is None and not self.inserter.returns_rows:
                    raise
        if self.inserter.returns_rows:
            (row,) = self._django([obj], self.returning, **self.upsert)
            return (False, row)
        self._django([obj], None, **self.upsert)
        obj.pk = key
        return (False, None)

    def _rival(self, obj: Any) -> Any:
        rows = self.inserter.rows_like([obj], self.unique_sets, ["pk"])
        return rows[0][0] if rows else None


def unique_sets(model: type[Model]) -> list[UniqueSet]:
    """Return the sets of columns that are unique in all rows of a model, its key first."""
    # A proxy has none of its model's constraints.
    opts: Any = columns.concrete(model)._meta
    sets: list[UniqueSet] = [fields_of(opts.model)]
    sets += [(field,) for field in opts.concrete_fields if field.unique and not field.primary_key]
    named = [*opts.unique_together, *(constraint.fields for constraint in opts.total_unique_constraints)]
    sets += [tuple(opts.get_field(name) for name in names) for names in named]
    return list(dict.fromkeys(sets))


def _flat(unique: Iterable[Any]) -> UniqueSet:
    """Return the columns of fields, of which one may be a composite key."""
    found: list[Any] = []
    for field in unique:
        found += fields_of(field.model) if field.primary_key else [field]
    return tuple(found)


def _conditions(objs: list[Any], unique: UniqueSet) -> Iterator[Q]:
    """Yield what rows fulfil that are in conflict with one of the instances, in parts."""
    keys = [key for obj in objs if None not in (key := [_given(obj, field) for field in unique])]
    for start in range(0, len(keys), CONDITIONS):
        part = keys[start : start + CONDITIONS]
        if len(unique) == 1:
            yield Q((f"{unique[0].attname}__in", [value for (value,) in part]))
        else:
            each = (zip((field.attname for field in unique), key, strict=True) for key in part)
            yield Q.create([Q(*pairs) for pairs in each], connector=Q.OR)


def _given(obj: Any, field: Any) -> Any:
    if field.generated:
        return _generated(obj, field)
    value = getattr(obj, field.attname)
    return field.db_default if isinstance(value, DatabaseDefault) else value


def _generated(obj: Any, field: Any) -> Any:
    """Return the expression of a generated column over the values of an instance."""
    values = {
        F(name): _as_expression(_given(obj, other), other)
        for other in field.model._meta.concrete_fields
        if not other.generated
        for name in (other.name, other.attname)
    }
    return ExpressionWrapper(field.expression.replace_expressions(values), field.output_field)


def _as_expression(value: Any, field: Any) -> Any:
    return value if hasattr(value, "resolve_expression") else Value(value, field)


def _returned(field: ModelField, value: Any) -> Any:
    # SQLite keeps a whole number of a REAL column as an integer, and RETURNING, unlike SELECT,
    # does not turn it back.
    return float(value) if type(value) is int and isinstance(field, FloatField) else value


def _is_expression(obj: Any, field: ModelField) -> bool:
    return hasattr(obj.__dict__.get(field.attname), "resolve_expression")


def _is_comparable(field: ModelField) -> bool:
    return columns.is_plain(field) and not columns.is_opaque(field) and not files.holds_files(field)
