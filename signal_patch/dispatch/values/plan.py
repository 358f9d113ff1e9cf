"""Which values: assigned to instances before the write, and given to Django's statement."""

from __future__ import annotations

import re
from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import connections
from django.db.models import JSONField, OuterRef, QuerySet
from django.db.models.expressions import RawSQL, Subquery
from django.db.models.sql import Query, UpdateQuery
from django.db.models.sql.where import ExtraWhere

from signal_patch.dispatch import backends
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.expressions import (
    UNKNOWN,
    JsonNull,
    Saved,
    Tried,
    nodes,
    read_by,
    replaced,
    resolved_to_save,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field, Model
    from django.db.models.expressions import BaseExpression

    from signal_patch.dispatch.rows.selection import Batch

    ModelField = Field[Any, Any]
    Scaling = Callable[[Any], Any]


@dataclass(slots=True)
class Plan:
    """What `update(**values)` means for one row, worked out once for all rows.

    `names` are the caller's, in the caller's order. `pre_save_heard` tells whether receivers see the
    values before they are written.
    `previews` and `precomputed` are expressions to select along with the rows, by alias. The
    precomputed ones read other rows, and so count as they were before the first write: what they
    gave is written as a constant of each row. `reads` are the columns that the other expressions
    read, by name, where the statement shows them what it has assigned before. `mistyped` are the
    columns that expressions of another type are for, of which their fields may not be able to read them.
    """

    names: tuple[str, ...]
    update_fields: frozenset[str]
    pre_save_heard: bool
    statement: dict[str, Any] = dataclass_field(default_factory=dict)
    shared: list[tuple[ModelField, Any]] = dataclass_field(default_factory=list)
    related: list[tuple[ModelField, Any]] = dataclass_field(default_factory=list)
    made: list[tuple[ModelField, Callable[[], Any]]] = dataclass_field(default_factory=list)
    previews: dict[str, BaseExpression] = dataclass_field(default_factory=dict)
    previewed: list[tuple[str, ModelField, Scaling | None]] = dataclass_field(default_factory=list)
    precomputed: dict[str, BaseExpression] = dataclass_field(default_factory=dict)
    precomputed_fields: dict[str, ModelField] = dataclass_field(default_factory=dict)
    reads: dict[str, set[ModelField]] = dataclass_field(default_factory=dict)
    mistyped: list[ModelField] = dataclass_field(default_factory=list)
    refresh_fields: list[ModelField] = dataclass_field(default_factory=list)
    written: list[ModelField] = dataclass_field(default_factory=list)

    @property
    def unassigned(self) -> list[ModelField]:
        """The fields that `assign` leaves as they are: only the write decides their values."""
        assigned = {*self.precomputed_fields.values(), *(target for _, target, _ in self.previewed)}
        return [field for field in self.refresh_fields if field not in assigned]

    def assign(self, batch: Batch, connection: BaseDatabaseWrapper) -> None:
        """Give the instances their new values, by attribute, so that trackers see the change."""
        columns.leave_unmeasured(batch.instances, self.written)
        for target, value in self.shared:
            for instance in batch.instances:
                columns.assign_anew(instance, target, value)
        for target, related in self.related:
            for instance in batch.instances:
                columns.assign_related(instance, target, related)
        for target, made in self.made:
            for instance in batch.instances:
                columns.assign_anew(instance, target, made())
        self._assign_previews(batch)
        for place, target in enumerate(self.precomputed_fields.values()):
            for key, instance in zip(batch.keys, batch.instances, strict=True):
                value = columns.scaled(target, batch.precomputed[key][place], connection)
                columns.assign_anew(instance, target, None if isinstance(value, JsonNull) else value)

    def _assign_previews(self, batch: Batch) -> None:
        for alias, target, scaling in self.previewed:
            for instance in batch.instances:
                value = instance.__dict__.pop(alias)
                if value is not UNKNOWN:
                    columns.assign_anew(instance, target, value if scaling is None else scaling(value))


class Assigned:
    """What one statement has assigned so far, for the expressions that come later in it.

    MariaDB's and MySQL's SET goes from left to right: there, these see the new values, unless the
    statement `reads_its_table()`.
    """

    def __init__(self, model: type[Model], connection: BaseDatabaseWrapper) -> None:
        self.model = model
        self.connection = connection
        self.values: dict[Any, Any] = {}

    def note(self, target: ModelField, value: Any) -> None:
        """Remember what a field is set to: a resolved expression."""
        if backends.of(self.connection).assigns_in_turn():
            self.values[target.get_col(self.model._meta.db_table)] = columns.as_column(
                value, target, self.connection
            )

    def shows(self, reads: set[ModelField]) -> bool:
        """Return whether an expression that reads these fields sees what was assigned."""
        return any(column.target in reads for column in self.values)

    def seen_by(self, resolved: Any) -> Any:
        """Return a resolved expression that gives before the statement what this one gives in it."""
        return replaced(resolved, self.values) if self.values else resolved

    def of_ancestor(self, resolved: Any) -> Any:
        """Return, for a SELECT of a child's rows, an expression that is resolved against this model's table.

        The SELECT may know that table by another name.
        """
        row: QuerySet[Any] = QuerySet(self.model).filter(pk=OuterRef(self.model._meta.pk.attname))
        return Subquery(row.annotate(signal_patch_seen=resolved).values("signal_patch_seen")[:1])


def plan_values(
    queryset: QuerySet[Any],
    values: dict[str, Any],
    using: str,
    connection: BaseDatabaseWrapper,
    *,
    pre_save_heard: bool,
) -> Plan:
    """Work out what to assign, to preview, to freeze and to write.

    The values are those of an `update()` that Django has not refused. Unless
    somebody sees them before the write, nothing needs a preview that the rows tell afterwards.
    """
    return _Planner(queryset, using, connection, pre_save_heard=pre_save_heard).plan(values)


def reads_its_table(query: Query, values: Iterable[Any], using: str) -> bool:
    """Return whether Django's UPDATE also reads the table that it writes, for its values or its filter.

    Of such a statement MariaDB works out all columns from the old row. The values are resolved; the query has
    the filter of the statement.
    """
    if query.count_active_tables() > 1:
        # A filter by joined tables becomes a subquery (SQLUpdateCompiler.pre_sql_setup, Django 5.2 to 6.1).
        in_place = connections[using].features.update_can_self_select
        return in_place and not query.where.contains_over_clause
    compiler = query.get_compiler(using)
    # Named, and not as whose column.
    table = re.compile(rf"(?<![\w.`])`?{re.escape(query.get_meta().db_table)}`?(?![\w`]|\s*\.)")
    texts = (text for part in (query.where, *values) for text in _subqueries(part, compiler))
    return any(table.search(text) for text in texts)


def _subqueries(part: Any, compiler: Any) -> Iterator[str]:
    """Yield, as SQL, what may read tables in a condition or value."""
    for node in nodes(part):
        if isinstance(node, RawSQL):
            yield node.sql
        elif isinstance(node, ExtraWhere):
            yield from node.sqls
        elif isinstance(node, Query) and not node.where.contains_over_clause:
            # Of a filter by a window Django makes a table, and MariaDB a copy that does not count.
            yield _sql(node, compiler) or ""


def is_void(queryset: QuerySet[Any], values: dict[str, Any], using: str) -> bool:
    """Return whether Django drops its statement before it gets to the database.

    So it does where the filter or a value is empty by definition: `pk__in=[]`, a subquery of `none()`.
    """
    query = queryset.query.chain(UpdateQuery)
    query.get_initial_alias()
    parts = [query.where]
    for name, value in values.items():
        if hasattr(value, "resolve_expression"):
            returning_fields = _resolving(query, queryset.model._meta.get_field(name))
            parts.append(resolved_to_save(value, returning_fields))
    compiler = query.get_compiler(using)
    return any(_sql(part, compiler) is None for part in parts)


def _sql(part: Any, compiler: Any) -> str | None:
    """Return a condition or value as SQL, or None if it is empty by definition."""
    try:
        sql: str = compiler.compile(part)[0]
    except EmptyResultSet:
        return None
    except FullResultSet:
        return ""
    return sql


def _resolving(query: Query, target: Any) -> Query:
    """Return the query against which Django resolves a value: a column of an ancestor has one of its own."""
    owner = columns.concrete(target.model)
    return query if owner is columns.concrete(query.model) else UpdateQuery(owner)


class _Planner:
    def __init__(
        self, queryset: QuerySet[Any], using: str, connection: BaseDatabaseWrapper, *, pre_save_heard: bool
    ) -> None:
        self.pre_save_heard = pre_save_heard
        self.model = queryset.model
        self.using = using
        self.connection = connection
        self.backend = backends.of(connection)
        # Django resolves the values of an update() against this kind of query, with the
        # annotations that they may refer to (sql.UpdateQuery, Django 5.2 to 6.1).
        self.query = queryset.query.chain(UpdateQuery)
        self.query.get_initial_alias()
        # By the model whose table has the columns: each table has a statement of its own.
        self.assigned: dict[type[Model], Assigned] = {}
        # What the statement contains: of a column that is named twice, both.
        self.contained: list[tuple[ModelField, Any]] = []

    def plan(self, values: dict[str, Any]) -> Plan:
        opts = self.model._meta
        named = {name: opts.get_field(name) for name in values}
        result = Plan(tuple(named), frozenset(target.name for target in named.values()), self.pre_save_heard)
        # Of a column that is named twice, the latter value stays.
        latter = {target: name for name, target in named.items()}
        self.contained = [(target, values[name]) for name, target in named.items() if not target.generated]
        for target, name in latter.items():
            if not target.generated:
                result.written.append(target)
                self._add(result, name, target, values[name])
        return result

    def _add(self, result: Plan, name: str, target: ModelField, value: Any) -> None:
        if hasattr(value, "resolve_expression"):
            self._add_expression(result, name, target, value)
        else:
            result.statement[name] = value
            self._add_constant(result, target, value)

    def _add_expression(self, result: Plan, name: str, target: ModelField, value: Any) -> None:
        query = _resolving(self.query, target)
        is_own = query is self.query
        resolved = resolved_to_save(value, query)
        reads = read_by(resolved)
        assigned = self._assigned_with(target)
        overtaken = assigned.shows(reads)
        apart = overtaken and self._reads_its_table(target)
        seen = resolved if apart else assigned.seen_by(resolved)
        if is_own:
            statement, preview = resolved, seen
        else:
            # Django resolves it later, against the table of the ancestor that has the column.
            statement, preview = value, assigned.of_ancestor(seen) if overtaken and not apart else value
        if apart or _reads_other_rows(seen):
            column = columns.as_precomputed(preview, target, self.connection)
            result.precomputed[f"signal_patch_frozen_{len(result.precomputed)}"] = column
            result.precomputed_fields[name] = target
            if not columns.is_predictable(target):
                result.refresh_fields.append(target)
        else:
            result.statement[name] = statement
            if not columns.is_of_its_kind(resolved, target, self.connection):
                result.mistyped.append(target)
            self._preview(result, target, preview, may_be_unreadable=target in result.mistyped)
            if self.pre_save_heard and self.backend.assigns_in_turn():
                result.reads[name] = reads
            result.refresh_fields.append(target)
        assigned.note(target, seen)

    def _assigned_with(self, target: ModelField) -> Assigned:
        owner = columns.concrete(target.model)
        return self.assigned.setdefault(owner, Assigned(owner, self.connection))

    def _reads_its_table(self, target: ModelField) -> bool:
        """Return whether Django's statement for the table that has a column reads that table too."""
        owner = columns.concrete(target.model)
        query = _resolving(self.query, target)
        here = [value for field, value in self.contained if columns.concrete(field.model) is owner]
        resolved = [resolved_to_save(value, query) for value in here if hasattr(value, "resolve_expression")]
        if len(here) < len(self.contained):
            # Each of several tables is written by the keys of its rows.
            query = UpdateQuery(owner)
        return reads_its_table(query, resolved, self.using)

    def _preview(self, result: Plan, target: ModelField, expression: Any, *, may_be_unreadable: bool) -> None:
        # The row of an instance is looked up by its new key.
        if self.pre_save_heard or target in self.model._meta.pk_fields:
            alias = f"signal_patch_{len(result.previews)}"
            column = columns.as_column(expression, target, self.connection)
            result.previews[alias] = Tried(column) if may_be_unreadable else column
            result.previewed.append((alias, target, self._scaling(target)))

    def _add_constant(self, result: Plan, target: ModelField, value: Any) -> None:
        self._assigned_with(target).note(target, Saved(_raw(target, value), output_field=target))
        if hasattr(value, "prepare_database_save") and self._may_hold(target, value):
            result.related.append((target, value))
            return
        raw = _raw(target, value)
        if not columns.is_predictable(target):
            self._add_unpredicted(result, target, raw)
            return
        row_value = columns.predicted(target, raw, self.connection)
        if row_value is UNKNOWN:
            self._add_unpredicted(result, target, raw)
            result.refresh_fields.append(target)
        elif isinstance(target, JSONField) and not columns.is_unchanging(row_value):
            result.made.append((target, columns.row_values(target, raw)))
        else:
            result.shared.append((target, row_value))

    def _add_unpredicted(self, result: Plan, target: ModelField, value: Any) -> None:
        # What a field of somebody else's making turns a value into, only a round trip tells.
        self._preview(result, target, Saved(value, output_field=target), may_be_unreadable=True)
        if not (self.pre_save_heard and self._is_shown_as_stored(target)):
            result.refresh_fields.append(target)

    def _is_shown_as_stored(self, target: ModelField) -> bool:
        has_type = self.backend.selects_stored_value() or columns.has_known_type(target)
        return has_type and columns.saves_as_it_compares(target)

    def _scaling(self, target: ModelField) -> Scaling | None:
        return None if self.backend.selects_stored_value() else columns.scaling(target, self.connection)

    def _may_hold(self, target: Any, value: Any) -> bool:
        # The descriptor refuses what an UPDATE takes: another class with such a key, an
        # object of another database.
        expected = columns.concrete(target.remote_field.model)
        return isinstance(value, expected) and value._state.db in (None, self.using)


def _raw(target: ModelField, value: Any) -> Any:
    if hasattr(value, "prepare_database_save"):
        return value.prepare_database_save(target)
    return value


def reads_other_rows(expression: Any, model: type[Model]) -> bool:
    """Return whether an expression's value for a row depends on other rows."""
    resolved = expression.resolve_expression(UpdateQuery(model), allow_joins=True)
    return _reads_other_rows(resolved)


def _reads_other_rows(resolved: Any) -> bool:
    return any(isinstance(node, (Query, QuerySet, Subquery, RawSQL)) for node in nodes(resolved))
