"""INSERTs with conflicts: which instances got a row, and which rows are new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.db.models import IntegerField, UUIDField
from django.db.models.constants import OnConflict
from django.db.models.sql import InsertQuery

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.writing import made_keys
from signal_patch.dispatch.writing.unique_sets import flat, is_comparable, key_of, unique_sets

if TYPE_CHECKING:
    from signal_patch.dispatch.writing.inserting import Insertion, ModelField, Outcome, Row
    from signal_patch.dispatch.writing.unique_sets import Key, UniqueSet

    # The keys of existing rows, by the set of columns that makes them unique.
    ExistingKeys = dict[UniqueSet, set[Key]]


class IgnoringInsert:
    """`bulk_create(ignore_conflicts=True)`: rows in conflict are left out.

    The database returns the rows that it has inserted, but not the instances to which they belong. That is
    certain if it returns a row for each instance, or none, or if a unique key distinguishes all instances.
    Otherwise the statement is rolled back, and each half of the instances is inserted separately. With a
    single instance it is always certain.
    """

    def __init__(self, insertion: Insertion) -> None:
        self.insertion = insertion
        self.model = insertion.inserter.model
        self.connection = insertion.connection

    def insert(self, objs: list[Any]) -> list[Outcome]:
        """Insert the instances, and return the outcome for each."""
        if not self.insertion.inserter.returns_rows:
            return [(True, None) if self._was_inserted(obj) else None for obj in objs]
        savepoint: Any = self.connection.savepoint()
        outcomes = self._outcomes(objs, self._execute(objs))
        if outcomes is None:
            self.connection.savepoint_rollback(savepoint)
            middle = len(objs) // 2
            return self.insert(objs[:middle]) + self.insert(objs[middle:])
        self.connection.savepoint_commit(savepoint)
        return outcomes

    def _outcomes(self, objs: list[Any], rows: list[Row]) -> list[Outcome] | None:
        """Return the outcome for each instance, or None if the rows do not tell."""
        if len(rows) == len(objs):
            return [(True, row) for row in rows]
        if not rows:
            return [None] * len(objs)
        for unique in unique_sets(self.model):
            keys = [self._exact_key(obj, unique) for obj in objs]
            if None in keys or len(set(keys)) < len(keys):
                continue
            by_key = {self.insertion.row_key(row, unique): row for row in rows}
            if by_key.keys() <= set(keys):
                return [(True, by_key[key]) if key in by_key else None for key in keys]
        return None

    def _exact_key(self, obj: Any, unique: UniqueSet) -> Key | None:
        key = key_of(obj, unique, self.connection)
        if key is None or not backends.of(self.connection).ignoring_changes_values():
            return key
        # INSERT IGNORE changes a value that does not fit its column, so it may become another instance's
        # value.
        return key if all(self._fits(*pair) for pair in zip(unique, key, strict=True)) else None

    def _fits(self, field: Any, value: Any) -> bool:
        field = columns.target_field(field)
        if isinstance(field, IntegerField):
            low, high = self.connection.ops.integer_field_range(field.get_internal_type())
            return bool(low <= value <= high)
        if isinstance(value, str):
            return value.isascii() and len(value) <= (field.max_length or 0)
        return isinstance(field, UUIDField)

    def _execute(self, objs: list[Any]) -> list[Row]:
        # SQLInsertCompiler, Django 5.2 to 6.1. Before 6.1, its execute_sql() fails if a row is not returned.
        returning = self.insertion.of_ignored
        compiler = self._compiler(objs)
        compiler.returning_fields = returning
        with self.connection.cursor() as cursor:
            for statement in compiler.as_sql():
                cursor.execute(*statement)
            rows = cursor.fetchall()
        table = self.model._meta.db_table
        converters = compiler.get_converters([field.get_col(table) for field in returning])
        return list(compiler.apply_converters(rows, converters)) if converters else list(rows)

    def _was_inserted(self, obj: Any) -> bool:
        """Insert an instance, where no rows are returned; set its key, and return whether it got a row."""
        opts = self.model._meta
        with self.connection.cursor() as cursor:
            for statement in self._compiler([obj]).as_sql():
                cursor.execute(*statement)
            key = opts.auto_field
            inserted = bool(cursor.rowcount == 1)
            if inserted and key is not None and key not in self.insertion.fields:
                last = self.connection.ops.last_insert_id(cursor, opts.db_table, key.column)
                columns.assign_if_different(obj, key, *made_keys.as_read(key, [last], self.connection))
            elif inserted and backends.of(self.connection).ignoring_changes_values():
                self._make_key_fit(obj)
        return inserted

    def _make_key_fit(self, obj: Any) -> None:
        """Give an instance the key that its row got, by which the row is then read."""
        for part in fields_of(self.model):
            value = self._fitted(columns.target_field(part), getattr(obj, part.attname))
            columns.assign_if_different(obj, part, value)

    def _fitted(self, field: Any, value: Any) -> Any:
        """Return a value as INSERT IGNORE makes it fit: text is cut, a number is the nearest possible one."""
        if isinstance(value, str):
            return value[: field.max_length]
        if isinstance(value, int) and isinstance(field, IntegerField):
            low, high = self.connection.ops.integer_field_range(field.get_internal_type())
            return min(max(value, low), high)
        return value

    def _compiler(self, objs: list[Any]) -> Any:
        query = InsertQuery(self.model, on_conflict=OnConflict.IGNORE)
        query.insert_values(self.insertion.fields, objs)
        return query.get_compiler(using=self.insertion.using)


class Upsert:
    """`bulk_create(update_conflicts=True)`: rows in conflict are updated.

    For most tables PostgreSQL tells which rows are new. Otherwise the rows in conflict are read and locked
    first. Then Django's statement updates them, and a plain INSERT inserts the other instances. If that fails
    (because two instances are in conflict with each other, or another transaction has just inserted a row),
    both are rolled back, and the instances are written one by one.
    """

    def __init__(
        self,
        insertion: Insertion,
        update_fields: list[ModelField] | None,
        unique_fields: list[ModelField] | None,
    ) -> None:
        self.insertion = insertion
        self.inserter = insertion.inserter
        self.model = insertion.inserter.model
        self.connection = insertion.connection
        self.using = insertion.using
        self.arguments = {
            "on_conflict": OnConflict.UPDATE,
            "update_fields": update_fields,
            "unique_fields": unique_fields,
        }
        # Django passes a composite key as one field.
        self.unique_sets = [flat(unique_fields)] if unique_fields else unique_sets(self.model)

    def insert(self, objs: list[Any]) -> list[Outcome]:
        """Insert or update the instances' rows, and return the outcome for each."""
        if not self.inserter.returns_rows:
            return self._one_by_one(objs)
        marker = backends.of(self.connection).inserted_marker(self.model, self.connection)
        return self._after_looking(objs) if marker is None else self._by_marker(objs, marker)

    def _by_marker(self, objs: list[Any], marker: ModelField) -> list[Outcome]:
        rows = self._execute(objs, [*self.insertion.returning, marker])
        return [
            None if row is None else (row[-1], row[:-1])
            for row in self.insertion.rows_by_instance(objs, rows, self.unique_sets[0])
        ]

    def _after_looking(self, objs: list[Any]) -> list[Outcome]:
        existing = self._existing_keys(objs)
        known = [any(self._key(obj, unique) in keys for unique, keys in existing.items()) for obj in objs]
        if self._meet_new_rows(objs, known):
            return self._one_by_one(objs)
        old = [obj for obj, is_known in zip(objs, known, strict=True) if is_known]
        new = [obj for obj, is_known in zip(objs, known, strict=True) if not is_known]
        try:
            with transaction.atomic(using=self.using):
                updated = iter(self._update(old, existing) if old else ())
                created = iter(self.insertion.create(new) if new else ())
        except IntegrityError:
            return self._one_by_one(objs)
        return [next(updated if is_known else created) for is_known in known]

    def _existing_keys(self, objs: list[Any]) -> ExistingKeys:
        """Return the keys of the rows in conflict, for the sets of columns that can be compared."""
        names = [field.attname for field in self.model._meta.concrete_fields]
        rows = self.inserter.rows_like(objs, self.unique_sets, names)
        existing: ExistingKeys = {}
        for unique in self.unique_sets:
            if all(is_comparable(field) for field in unique):
                places = [names.index(field.attname) for field in unique]
                existing[unique] = {tuple(row[place] for place in places) for row in rows}
        return existing

    def _meet_new_rows(self, objs: list[Any], known: list[bool]) -> bool:
        """Return whether an instance whose row exists conflicts with an earlier one whose row is new."""
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

    def _key(self, obj: Any, unique: UniqueSet) -> Key | None:
        return key_of(obj, unique, self.connection)

    def _update(self, objs: list[Any], existing: ExistingKeys) -> list[Outcome]:
        rows = self.insertion.rows_by_instance(
            objs, self._execute(objs, self.insertion.returning), self.unique_sets[0]
        )
        primary_key = fields_of(self.model)
        keys = existing.get(primary_key)
        if keys is None:
            return [None if row is None else (False, row) for row in rows]
        outcomes: list[Outcome] = []
        for row in rows:
            if row is None:
                outcomes.append(None)
                continue
            # An earlier instance may have changed the row that was in conflict. Then this row is new.
            key = self.insertion.row_key(row, primary_key)
            outcomes.append((key not in keys, row))
            keys.add(key)
        return outcomes

    def _execute(self, objs: list[Any], returning: list[ModelField] | None) -> list[Row]:
        return self.insertion.execute(objs, returning, **self.arguments)

    def _one_by_one(self, objs: list[Any]) -> list[Outcome]:
        return [self._upsert_one(obj) for obj in objs]

    def _upsert_one(self, obj: Any) -> Outcome:
        key = self._rival(obj)
        if key is None:
            try:
                with transaction.atomic(using=self.using):
                    return self.insertion.create([obj])[0]
            except IntegrityError:
                # Another transaction may have just inserted the row. Or the conflict is with an index that
                # Django does not know; then only the upsert itself can find the row.
                key = self._rival(obj)
                if key is None and not self.inserter.returns_rows:
                    raise
        if self.inserter.returns_rows:
            rows = self._execute([obj], self.insertion.returning)
            # A trigger may leave the row as it is. Django 5.2 then returns None as the row of one instance.
            return (False, rows[0]) if rows and rows[0] is not None else None
        self._execute([obj], None)
        obj.pk = key
        return (False, None)

    def _rival(self, obj: Any) -> Any:
        """Return the key of the row that the instance is in conflict with, or None."""
        rows = self.inserter.rows_like([obj], self.unique_sets, ["pk"])
        return rows[0][0] if rows else None
