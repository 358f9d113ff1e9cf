"""Which values are assigned to instances before the write, and which ones Django's statement gets."""

from __future__ import annotations

from dataclasses import dataclass, field as dataclass_field
from itertools import repeat, takewhile
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import connections
from django.db.models import JSONField, QuerySet
from django.db.models.expressions import RawSQL, Subquery
from django.db.models.sql import Query, UpdateQuery
from django.db.models.sql.where import ExtraWhere

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows.keys import is_part
from signal_patch.dispatch.values import columns, files, json_null
from signal_patch.dispatch.values.expressions import (
    UNKNOWN,
    Saved,
    Tried,
    columns_of,
    nodes,
    read_by,
    resolved_to_save,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set as AbstractSet

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field, Model
    from django.db.models.expressions import BaseExpression

    from signal_patch.dispatch.rows.selection import Batch

    ModelField = Field[Any, Any]
    Scaling = Callable[[Any], Any]


@dataclass(slots=True, repr=False)
class Plan:
    """What `update(**values)` means for a row, worked out once for all rows.

    `names` are the caller's names, in the caller's order. `pre_save_heard` says whether receivers see the
    values before they are written.

    `statement` holds the values for Django's statement. `shared`, `related` and `made` are what is assigned
    to every instance: a value, a related object, or the result of a function.

    `previews` and `precomputed` are expressions to select along with the rows, by alias. The precomputed ones
    read other rows, so they are evaluated before the first write, and their values are written as constants.

    `to_rehearse` are the fields whose expressions read columns that the statement has assigned before.
    `new_keys` are expressions for the new key of a row. `mistyped` are the fields that get an expression of
    another type, which they may not be able to read. If an expression `reads_joined_table`, the database
    refuses the statement as soon as it has a row.
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
    to_rehearse: dict[str, ModelField] = dataclass_field(default_factory=dict)
    new_keys: dict[ModelField, BaseExpression] = dataclass_field(default_factory=dict)
    mistyped: list[ModelField] = dataclass_field(default_factory=list)
    reads_joined_table: bool = False
    refresh_fields: list[ModelField] = dataclass_field(default_factory=list)
    written: list[ModelField] = dataclass_field(default_factory=list)

    @property
    def unassigned(self) -> list[ModelField]:
        """The fields that `assign()` leaves unchanged, because only the write determines their values."""
        assigned = {*self.precomputed_fields.values(), *(target for _, target, _ in self.previewed)}
        return [field for field in self.refresh_fields if field not in assigned]

    def before_key(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values that the statement assigns before the first rehearsed part of the key."""
        keys = [name for name, field in self.to_rehearse.items() if field in self.new_keys]
        return dict(takewhile(lambda item: item[0] != keys[0], values.items())) if keys else {}

    @property
    def written_as_held(self) -> list[ModelField]:
        """The fields for which each row gets the value that its instance holds."""
        return [field for name, field in self.precomputed_fields.items() if name not in self.statement]

    def use_rehearsed(self, *, writes_values: bool) -> None:
        """Take the values of the rehearsed fields from each batch, after the precomputed ones.

        `writes_values` says whether these values are written, or the expressions.
        """
        for name, field in self.to_rehearse.items():
            self.precomputed_fields[name] = field
            if writes_values:
                del self.statement[name]

    def assign(self, batch: Batch, connection: BaseDatabaseWrapper) -> None:
        """Assign the new values to the instances by attribute, so that trackers notice the change."""
        files.leave_unmeasured(batch.instances, self.written)
        for target, value in self.shared:
            columns.assign_each(batch.instances, target, repeat(value))
        for target, related in self.related:
            for instance in batch.instances:
                columns.assign_related(instance, target, related)
        for target, made in self.made:
            columns.assign_each(batch.instances, target, (made() for _ in batch.instances))
        for alias, target, scaling in self.previewed:
            values: Iterable[Any] = [instance.__dict__.pop(alias) for instance in batch.instances]
            columns.assign_each(batch.instances, target, values if scaling is None else map(scaling, values))
        for place, target in enumerate(self.precomputed_fields.values()):
            values = (json_null.as_loaded(batch.precomputed[key][place]) for key in batch.keys)
            scaling = columns.scaling(target, connection)
            columns.assign_each(batch.instances, target, values if scaling is None else map(scaling, values))


def is_void(queryset: QuerySet[Any], values: dict[str, Any], using: str) -> bool:
    """Return whether Django never sends its statement to the database.

    That is so if the filter or a value is empty by definition: `pk__in=[]`, or a subquery of `none()`.
    """
    query = _update_query(queryset)
    parts = [query.where]
    for name, value in values.items():
        if hasattr(value, "resolve_expression"):
            resolving = _resolving(query, queryset.model._meta.get_field(name))
            parts.append(resolved_to_save(value, resolving))
    compiler = query.get_compiler(using)
    return any(_is_empty(part, compiler) for part in parts)


def _is_empty(part: Any, compiler: Any) -> bool:
    """Return whether a condition is never met, or a value never found, by definition."""
    try:
        compiler.compile(part)
    except EmptyResultSet:
        return True
    except FullResultSet:
        pass
    return False


def _update_query(queryset: QuerySet[Any]) -> Query:
    """Return the query of an `update()`, against which Django resolves its values.

    They may refer to the annotations of the queryset. (sql.UpdateQuery, Django 5.2 to 6.1.)
    """
    query = queryset.query.chain(UpdateQuery)
    query.get_initial_alias()
    return query


def _resolving(query: Query, target: Any) -> Query:
    """Return the query against which Django resolves a field's value; an ancestor's field has its own."""
    owner = columns.concrete(target.model)
    return query if owner is columns.concrete(query.model) else UpdateQuery(owner)


class Planner:
    """Works out what an `update()` that Django has not refused assigns, previews, precomputes and writes.

    Without receivers of `pre_save`, values that can be read from the rows afterwards need no preview.
    """

    def __init__(
        self, queryset: QuerySet[Any], values: dict[str, Any], using: str, *, pre_save_heard: bool
    ) -> None:
        self.model = queryset.model
        self.values = values
        self.using = using
        self.connection = connections[using]
        self.query = _update_query(queryset)
        self.named = {name: self.model._meta.get_field(name) for name in values}
        update_fields = frozenset(target.name for target in self.named.values())
        self.result = Plan(tuple(values), update_fields, pre_save_heard)
        # The columns that come before the current one in SET, in all tables.
        self.assigned: set[ModelField] = set()

    def plan(self) -> Plan:
        """Return the plan."""
        # If a column is named twice, the later value counts.
        latest = {target: name for name, target in self.named.items()}
        for name, target in self.named.items():
            if target.generated:
                continue
            if latest[target] == name:
                self.result.written.append(target)
                value = self.values[name]
                if hasattr(value, "resolve_expression"):
                    self._add_expression(name, target, value)
                else:
                    self._add_constant(name, target, value)
            self.assigned.add(target)
        return self.result

    def _add_expression(self, name: str, target: ModelField, value: Any) -> None:
        result = self.result
        query = _resolving(self.query, target)
        resolved = resolved_to_save(value, query)
        # Django resolves an ancestor's column later, against the ancestor's table.
        statement = resolved if query is self.query else value
        if self._reads_assigned(target, resolved):
            result.to_rehearse[name] = target
        elif _reads_other_rows(resolved):
            column = columns.as_precomputed(statement, target, self.connection)
            result.precomputed[f"signal_patch_precomputed_{len(result.precomputed)}"] = column
            result.precomputed_fields[name] = target
            if not columns.is_predictable(target):
                result.refresh_fields.append(target)
            return
        result.statement[name] = statement
        if query is self.query and self._reads_joined_table(resolved):
            result.reads_joined_table = True
            return
        is_mistyped = not columns.is_of_its_kind(resolved, target, self.connection)
        if is_mistyped:
            result.mistyped.append(target)
        self._preview(target, statement, may_be_unreadable=is_mistyped)
        result.refresh_fields.append(target)

    def _reads_joined_table(self, resolved: Any) -> bool:
        """Return whether an expression reads another table, which the database refuses in an UPDATE.

        Django itself lets a condition of Case() read a parent's column (Django 5.2 to 6.1).
        """
        table = self.query.get_initial_alias()
        return any(column.alias != table for column in columns_of(resolved))

    def _reads_assigned(self, target: ModelField, resolved: Any) -> bool:
        """Return whether an expression reads columns that its statement has assigned before.

        Each table has its own statement.
        """
        owner = columns.concrete(target.model)
        before = {field for field in self.assigned if columns.concrete(field.model) is owner}
        return reads_assigned(resolved, before, self.connection)

    def _preview(self, target: ModelField, expression: Any, *, may_be_unreadable: bool) -> None:
        # An instance's row is looked up by its new key.
        if not (self.result.pre_save_heard or is_part(self.model, target)):
            return
        alias = f"signal_patch_{len(self.result.previews)}"
        column = columns.as_column(expression, target, self.connection)
        self._note_key(target, column)
        self.result.previews[alias] = Tried(column) if may_be_unreadable else column
        is_stored = backends.of(self.connection).selects_stored_value()
        scaling = None if is_stored else columns.scaling(target, self.connection)
        self.result.previewed.append((alias, target, scaling))

    def _note_key(self, target: ModelField, column: BaseExpression) -> None:
        if is_part(self.model, target):
            self.result.new_keys[target] = column

    def _add_constant(self, name: str, target: ModelField, value: Any) -> None:
        self.result.statement[name] = value
        is_object = hasattr(value, "prepare_database_save")
        raw = value.prepare_database_save(target) if is_object else value
        self._note_key(target, Saved(raw, output_field=target))
        if is_object and self._may_hold(target, value):
            self.result.related.append((target, value))
            return
        is_predictable = columns.is_predictable(target)
        row_value = columns.predicted(target, raw, self.connection) if is_predictable else UNKNOWN
        if row_value is UNKNOWN:
            # Only the database can show what a project's own field does to a value.
            self._preview(target, Saved(raw, output_field=target), may_be_unreadable=True)
            if is_predictable or not (self.result.pre_save_heard and self._is_shown_as_stored(target)):
                self.result.refresh_fields.append(target)
        elif isinstance(target, JSONField) and not columns.is_unchanging(row_value):
            self.result.made.append((target, columns.row_values(target, raw)))
        else:
            self.result.shared.append((target, row_value))

    def _is_shown_as_stored(self, target: ModelField) -> bool:
        """Return whether a preview of a constant shows what the row will return."""
        selects_stored_value = backends.of(self.connection).selects_stored_value()
        has_type = selects_stored_value or columns.has_known_type(target)
        return has_type and columns.saves_as_it_compares(target)

    def _may_hold(self, target: Any, value: Any) -> bool:
        # The descriptor refuses objects that an UPDATE accepts: an instance of another class with such a key,
        # or an instance from another database.
        expected = columns.concrete(target.remote_field.model)
        return isinstance(value, expected) and value._state.db in (None, self.using)


def reads_assigned(resolved: Any, assigned: AbstractSet[ModelField], connection: BaseDatabaseWrapper) -> bool:
    """Return whether an expression reads columns assigned before, on a database where that matters."""
    in_turn = backends.of(connection).sets_from_left_to_right()
    return bool(assigned) and in_turn and not assigned.isdisjoint(read_by(resolved))


def reads_other_rows(expression: Any, model: type[Model]) -> bool:
    """Return whether the value of an expression for a row depends on other rows."""
    resolved = expression.resolve_expression(UpdateQuery(model), allow_joins=True)
    return _reads_other_rows(resolved)


def chooses_by_tables(queryset: QuerySet[Any]) -> bool:
    """Return whether Django's UPDATE of a queryset may read tables in its condition, its own among them.

    MariaDB's SET then takes all columns from the old row. (SQLUpdateCompiler.pre_sql_setup and
    Query.count_active_tables, Django 5.2 to 6.1.)
    """
    return _update_query(queryset).count_active_tables() > 1 or chooses_by_other_rows(queryset)


def may_read_itself(plan: Plan, queryset: QuerySet[Any], connection: BaseDatabaseWrapper) -> bool:
    """Return whether Django's statement may read the table that it writes, if the database refuses that.

    (MySQL's error 1093.) Where Django reads the keys by a query of its own, the UPDATE lacks the condition,
    and nothing is refused.
    """
    return not connection.features.update_can_self_select and (
        bool(plan.precomputed) or chooses_by_other_rows(queryset)
    )


def may_be_refused(
    plan: Plan, queryset: QuerySet[Any], values: dict[str, Any], connection: BaseDatabaseWrapper
) -> bool:
    """Return whether the database may refuse Django's UPDATE although it accepts our SELECTs.

    This is possible with window functions, aggregates, other tables, `select_for_update()`, a column that is
    assigned twice, an expression of another type than its column, or a query class that is not Django's own.
    """
    query = queryset.query
    return bool(
        query.where.contains_over_clause
        or query.where.contains_aggregate
        or query.extra_tables
        or query.select_for_update
        or (plan.mistyped and backends.of(connection).refuses_other_types())
        or type(query) is not Query
        or len(plan.update_fields) < len(values)
    )


def chooses_by_other_rows(queryset: QuerySet[Any]) -> bool:
    """Return whether the condition of a queryset reads other rows by subqueries, or may by raw SQL."""
    return _reads_other_rows(queryset.query.where)


def value_reads_other_rows(value: Any, queryset: QuerySet[Any], target: ModelField) -> bool:
    """Return whether what an `update()` of the queryset is given for a field depends on other rows.

    Raw SQL may read anything. (UpdateQuery, Django 5.2 to 6.1.)
    """
    if not hasattr(value, "resolve_expression"):
        return False
    return _reads_other_rows(resolved_to_save(value, _resolving(_update_query(queryset), target)))


def _reads_other_rows(resolved: Any) -> bool:
    kinds = (Query, QuerySet, Subquery, RawSQL, ExtraWhere)
    return any(isinstance(node, kinds) for node in nodes(resolved))
