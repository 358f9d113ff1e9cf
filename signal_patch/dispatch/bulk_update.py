"""`QuerySet.bulk_update()`, with the signals that a loop of `save(update_fields=…)` sends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Any

from django.db.models import BinaryField, QuerySet, Value
from django.db.models.sql import UpdateQuery

from signal_patch.dispatch import transactions
from signal_patch.dispatch.operation import BulkSave, Operation
from signal_patch.dispatch.rows import choosing, querysets
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.rows.selection import Batch
from signal_patch.dispatch.signals import in_flight, rounds, sending
from signal_patch.dispatch.values import columns, files, json_null
from signal_patch.dispatch.values.expressions import UNKNOWN, Tried, resolved_to_save
from signal_patch.dispatch.values.per_row import PerRow
from signal_patch.dispatch.values.plan import (
    chooses_by_other_rows,
    chooses_by_tables,
    reads_assigned,
    reads_other_rows,
)
from signal_patch.dispatch.values.tracking import Changes, ChangeTracker
from signal_patch.dispatch.writing import updating
from signal_patch.dispatch.writing.instances import InstanceWriter
from signal_patch.dispatch.writing.refresh import Written
from signal_patch.dispatch.writing.rehearsal import rehearse, try_out

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field, Model

    from signal_patch.dispatch.signals.sending import SavedRow
    from signal_patch.dispatch.writing.instances import IsDjangos
    from signal_patch.options import Options

    ModelField = Field[Any, Any]
    ChangesByKey = dict[Any, Changes]
    # By field, then by the key of the row.
    Expressions = dict[ModelField, dict[Any, Any]]
    Pairs = list[tuple[Any, Model]]


def bulk_update(
    queryset: QuerySet[Any],
    objs: Iterable[Any],
    fields: Iterable[str],
    batch_size: int | None,
    options: Options,
    original: Callable[..., int],
    is_djangos: IsDjangos,
) -> int:
    """Update the rows of the caller's instances and send their signals.

    `original` is Django's own `bulk_update()`, unbound, and gets the caller's `batch_size`. `is_djangos`
    tells whether a class's method of that name is Django's own, possibly wrapped by this library. Returns the
    number of rows matched. An instance without a row gets no `post_save`. Raises what `original` raises,
    before any signal, and what a receiver raises, with no row changed.
    """
    objs, names = tuple(sending.instances_of(objs)), list(fields)
    senders = sending.senders_of(objs)
    if not sending.has_save_receivers(senders) or not all(obj._is_pk_set() for obj in objs):
        with in_flight.silence(queryset.model):
            return original(queryset, objs, names, batch_size=batch_size)
    # Without objects, Django checks the names of the fields and executes nothing.
    original(queryset, (), names, batch_size=batch_size)
    using = querysets.database_for_write(queryset)
    operation = BulkUpdate(queryset, using, senders, options, original, objs, names, batch_size, is_djangos)
    operation.refuse()
    rounds.check(options, senders)
    return operation.execute()


@dataclass(slots=True, repr=False)
class GivenBatch(Batch):
    """Some of the caller's instances.

    `expressions` are the expressions that they hold. `matching` are the keys of the rows that the queryset
    matches before the write, which may change that. It is None if the queryset has no conditions.
    """

    expressions: Expressions = dataclass_field(default_factory=dict)
    matching: set[Any] | None = None


@dataclass(eq=False, repr=False)
class BulkUpdate(BulkSave[GivenBatch]):
    """The update of rows with the values on the caller's instances."""

    name = "bulk_update"
    objs: tuple[Any, ...]
    names: list[str]
    batch_size: int | None
    is_djangos: IsDjangos

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fields: list[ModelField] = [self.model._meta.get_field(name) for name in self.names]
        self.update_fields = frozenset(field.name for field in self.fields)
        self.size = min(self.options.batch_size, querysets.largest_batch(self.using, self.model))
        self.expressions = InstanceExpressions(self, self.fields)
        # The named fields with values whose stored form cannot be predicted and is read from the row.
        self.unknown: list[ModelField] = []
        self.writer = InstanceWriter(
            self.queryset,
            self.using,
            self.fields,
            self._size_of_statement(),
            self.connection,
            self.is_djangos,
        )

    # What Django refuses, and the batches.

    def refuse(self) -> None:
        """Raise what Django raises for the queryset, for unsaved related objects and for wrong values."""
        if any(field.is_relation for field in self.fields):
            for obj in self.objs:
                # Model._prepare_related_fields_for_save, Django 5.2 to 6.1.
                obj._prepare_related_fields_for_save(operation_name="bulk_update", fields=self.fields)
        self.expressions.note(self.objs)
        # On an empty queryset, the statement is built but not run.
        empty = querysets.empty(self.queryset)
        self._original(empty, self.expressions.computed or self.objs[:1])
        self.unknown = _assign_stored(self.objs, self.fields, self.connection)
        if self.unknown:
            # Django may accept or refuse values that cannot be predicted.
            self._original(empty, self.objs)

    def _original(self, queryset: QuerySet[Any], objs: Sequence[Any]) -> int:
        with in_flight.silence(self.model):
            matched: int = self.original(queryset, objs, self.names, batch_size=self.batch_size)
        return matched

    def execute(self) -> int:
        try:
            return super().execute()
        except BaseException:
            self.expressions.give_back()
            raise

    def begin(self) -> None:
        field = columns.first_written(self.model, self.names)
        transactions.begin_write(self.using, transactions.UPDATE, field)
        if self.lock:
            all_rows = querysets.all_rows(self.queryset, self.using)
            querysets.lock(all_rows, {obj.pk for obj in self.objs})

    @property
    def total(self) -> int:
        return len(self.objs)

    def _try_out(self) -> None:
        """Raise what MySQL raises if Django's statement reads the table that it writes."""
        if self.connection.features.update_can_self_select:
            return
        objs: Sequence[Model] = self.expressions.objs_reading_other_rows()
        if not objs and chooses_by_other_rows(self.queryset):
            objs = self.objs[:1]
        if objs:
            try_out(lambda: self._original(querysets.copied(self.queryset), objs), self.model, self.using)

    def batches(self) -> Iterator[GivenBatch]:
        self._try_out()
        self.expressions.rehearse(
            self.objs, lambda: self._original(querysets.copied(self.queryset), self.objs)
        )
        # If a key is given twice, what happens to its row, and how often it is counted, depends on whether
        # both instances are in one of Django's statements. So the batches are these statements.
        is_repeated = len({obj.pk for obj in self.objs}) < len(self.objs)
        size = self._size_of_statement() if is_repeated else self.size
        if not is_repeated:
            self.expressions.precompute(self.expressions.computed, self.size)
        for part in querysets.parts(self.objs, size):
            objs = list(part)
            if is_repeated:
                self.expressions.renew(objs)
                self.expressions.precompute(objs, size)
            batch = GivenBatch([obj.pk for obj in objs], objs)
            if _is_set_order(self.model, self.names, objs):
                batch.instances = self._whole(batch)
            yield batch

    def _size_of_statement(self) -> int:
        """Return how many instances Django puts into one statement (QuerySet.bulk_update, 5.2 to 6.1)."""
        pk = self.model._meta.pk
        largest: int = self.connection.ops.bulk_batch_size([pk, pk, *self.fields], self.objs)
        return min(self.batch_size or largest, largest)

    def _whole(self, batch: GivenBatch) -> list[Model]:
        """Load the whole rows and assign the new values; an instance without a row is returned itself."""
        stored = querysets.with_keys(querysets.all_rows(self.queryset, self.using), batch.keys)
        found = {obj.pk: obj for obj in (querysets.current(stored) if self.lock else stored)}
        for key, obj in batch.pairs:
            for field in self.fields:
                columns.assign_if_different(found.get(key, obj), field, getattr(obj, field.attname))
        return [found.get(key, obj) for key, obj in batch.pairs]

    # What is assigned.

    def assign(self, batch: GivenBatch) -> None:
        batch.matching = self._matching(batch.keys)
        batch.expressions = self.expressions.replace_by_values(batch.pairs)

    def _matching(self, keys: list[Any]) -> set[Any] | None:
        if not self.queryset.query.where:
            return None
        found = querysets.with_keys(choosing.chosen(self.queryset, self.using), keys)
        return set(querysets.keys_of(choosing.chosen_by_committed(found) if self.lock else found))

    def new_tracker(self, tracked: Collection[ModelField]) -> ChangeTracker:
        return ChangeTracker(tracked, self.connection, may_hold_expressions=True)

    # What is written.

    def write(self, batch: GivenBatch, changes: ChangesByKey) -> Written:
        self._prepare(changes, batch)
        replaced = self.expressions.put_back(batch, changes)
        files.store_waiting(self.fields, batch.instances)
        distinct = len(set(batch.keys))
        matched = self._write(batch, distinct)
        if batch.matching is not None:
            batch.to_signal = [pair for pair in batch.to_signal if pair[0] in batch.matching]
        if changes:
            # After the write, the rows may no longer meet the queryset's conditions.
            all_rows = querysets.all_rows(self.queryset, self.using)
            updating.write_extras(all_rows, batch.to_signal, changes, set(self.fields))
        expected = distinct if batch.matching is None else len(batch.matching)
        if matched < expected:
            # The values that were to be written show which rows were written.
            for obj, field, value in replaced:
                columns.assign_if_different(obj, field, value)
        if distinct < len(batch.keys):
            # If two instances have the same key, the row holds the values of the first.
            refresh_fields = [*self.fields, *(field for changed in changes.values() for field in changed)]
        else:
            custom = [field for field in self.fields if not columns.is_predictable(field)]
            refresh_fields = list(dict.fromkeys([*batch.expressions, *custom, *self.unknown]))
        return Written(matched, changes, expected - matched, refresh_fields)

    def _prepare(self, changes: ChangesByKey, batch: GivenBatch) -> None:
        """Assign the results of `Field.pre_save()` to the instances, because Django writes what they hold."""
        # If two instances have the same key, the changes are those of the second.
        holders = dict(batch.pairs) if changes else {}
        for key, changed in changes.items():
            for field, value in changed.items():
                # Assigning an image reads its file.
                if getattr(holders[key], field.attname) is not value:
                    columns.assign_if_different(holders[key], field, value)

    def _write(self, batch: GivenBatch, distinct: int) -> int:
        # Django's statement would narrow a queryset that returns itself as its clone to the written rows.
        is_single = len(batch.keys) == self.total
        queryset = self.queryset if is_single else querysets.copied(self.queryset)
        write = self.writer.write if self.writer.takes(batch) else self._original
        matched = write(queryset, batch.instances)
        if matched > distinct:
            updating.refuse_shared_keys(QuerySet(self.model, using=self.using), batch.keys)
        return matched

    def refresh(self, batch: GivenBatch, written: Written) -> list[SavedRow]:
        saved = super().refresh(batch, written)
        for instance, *_ in saved:
            # As after save_base() (Django 5.2 to 6.1).
            instance._state.adding, instance._state.db = False, self.using
        return saved


def _is_set_order(model: type[Model], names: list[str], objs: list[Any]) -> bool:
    """Return whether the instances come from `set_RELATED_order()`, which does not load them.

    It makes them with a key and a position only (method_set_order, Django 5.2 to 6.1).
    """
    return (
        names == ["_order"]
        and model._meta.order_with_respect_to is not None
        and all(obj._state.adding for obj in objs)
    )


def _assign_stored(
    objs: Iterable[Model], fields: Iterable[ModelField], connection: BaseDatabaseWrapper
) -> list[ModelField]:
    """Turn the constants and keys on instances into the values that their rows will hold.

    Returns the fields that have a value whose stored form cannot be predicted.
    """
    objs = list(objs)
    unknown: dict[ModelField, None] = {}
    for field in fields:
        if columns.is_plain(field) and not files.holds_files(field):
            for obj in objs:
                if not _assign_one_stored(obj, field, connection):
                    unknown[field] = None
    key_fields = {model: fields_of(model) for model in set(map(type, objs))}
    for obj in objs:
        for field in key_fields[type(obj)]:
            is_kept = type(getattr(obj, field.attname)) is int or not columns.is_plain(field)
            if not is_kept and not _assign_one_stored(obj, field, connection, is_key=True):
                unknown[field] = None
    return list(unknown)


def _assign_one_stored(
    obj: Model, field: ModelField, connection: BaseDatabaseWrapper, *, is_key: bool = False
) -> bool:
    """Assign what the row will hold, and return whether that is known."""
    value = getattr(obj, field.attname)
    if isinstance(field, BinaryField) or hasattr(value, "resolve_expression"):
        return True
    stored = columns.predicted(field, value, connection)
    if stored is UNKNOWN:
        return False
    if is_key and not _is_same_parameter(field, stored, value, connection):
        # A decimal key that is rounded to the scale of its column may match a different row than in
        # Django's statement.
        return True
    # A list that is equal stays the caller's own object.
    if stored is not value and not (columns.is_opaque(field) and stored == value):
        columns.assign_if_different(obj, field, stored)
    return True


def _is_same_parameter(field: ModelField, stored: Any, value: Any, connection: BaseDatabaseWrapper) -> bool:
    one, other = (field.get_db_prep_value(key, connection) for key in (stored, value))
    return bool(one == other)


def _each_once(objs: Iterable[Model]) -> list[Model]:
    return list({id(obj): obj for obj in objs}.values())


class InstanceExpressions:
    """The expressions that the caller's instances hold in the fields to write.

    Receivers see the values of the expressions; Django's statement gets the expressions.
    """

    def __init__(self, operation: Operation, fields: list[ModelField]) -> None:
        self.queryset = operation.queryset
        self.model = operation.model
        self.using = operation.using
        self.connection = operation.connection
        self.lock = operation.lock
        self.fields = fields
        self.given: list[tuple[Model, ModelField, Any]] = []
        self.given_to: dict[int, list[tuple[ModelField, Any]]] = defaultdict(list)
        # The instances that hold expressions.
        self.computed: list[Model] = []
        # The values by field and key, if Django's statement has been rehearsed, and whether they are written.
        self.rehearsed: dict[tuple[ModelField, Any], Any] = {}
        self.writes_values = False
        # The fields by the model whose table has their columns, because each table has its own statement.
        self.owners: dict[type[Model], list[ModelField]] = defaultdict(list)
        for field in fields:
            if not field.generated:
                self.owners[columns.concrete(field.model)].append(field)

    def note(self, objs: Iterable[Model]) -> None:
        """Note the expressions that these instances hold, for `give_back()`."""
        held = ((obj, field, getattr(obj, field.attname)) for obj in objs for field in self.fields)
        self.given = [item for item in held if hasattr(item[2], "resolve_expression")]
        for obj, field, expression in self.given:
            self.given_to[id(obj)].append((field, expression))
        self.computed = _each_once(obj for obj, *_ in self.given)

    def give_back(self) -> None:
        """Put the noted expressions back on their instances, after all changes to the rows were rolled back.

        If the caller tries again, the expressions must be evaluated again.
        """
        for obj, field, expression in self.given:
            columns.assign_if_different(obj, field, expression)

    def replace_by_values(self, pairs: Pairs) -> Expressions:
        """Replace the expressions on the instances by their values, and return the expressions."""
        expressions = self._expressions(pairs)
        self._show(expressions, pairs)
        for field in {field for field, _ in self.rehearsed}:
            for key, obj in pairs:
                if (field, key) in self.rehearsed:
                    value = json_null.as_loaded(self.rehearsed[field, key])
                    columns.assign_if_different(obj, field, value)
        return expressions

    def _expressions(self, pairs: Pairs) -> Expressions:
        found: Expressions = defaultdict(dict)
        for field in self.fields:
            for key, obj in pairs:
                value = getattr(obj, field.attname)
                if hasattr(value, "resolve_expression"):
                    found[field].setdefault(key, value)
        return found

    def _show(
        self, expressions: Expressions, pairs: Pairs, select: Callable[..., Any] = columns.as_column
    ) -> None:
        if not expressions:
            return
        previews = {
            f"signal_patch_{index}": Tried(
                select(PerRow(self.model, field, by_key, Value(None)), field, self.connection)
            )
            for index, (field, by_key) in enumerate(expressions.items())
        }
        all_rows: QuerySet[Any] = QuerySet(self.model, using=self.using)
        chosen = querysets.with_keys(all_rows, [key for key, _ in pairs]).annotate(**previews)
        if self.lock:
            chosen = querysets.with_committed(querysets.current(chosen), previews)
        values = {key: rest for key, *rest in querysets.keyed(chosen, *previews)}
        for key, obj in pairs:
            for field, value in zip(expressions, values.get(key, ()), strict=False):
                # If a value cannot be read, the expression stays.
                if key in expressions[field] and value is not UNKNOWN:
                    shown = columns.scaled(field, value, self.connection)
                    columns.assign_if_different(obj, field, shown)

    def put_back(self, batch: GivenBatch, changes: ChangesByKey) -> list[tuple[Model, ModelField, Any]]:
        """Put the expressions back on the instances for the write, and return the values they replace."""
        replaced: list[tuple[Model, ModelField, Any]] = []
        for field, by_key in batch.expressions.items():
            for key, obj in batch.pairs:
                # If a receiver has replaced the value, the receiver's value is saved.
                if key not in by_key or field in (changed := changes.get(key, {})):
                    continue
                replaced.append((obj, field, getattr(obj, field.attname)))
                columns.assign_if_different(obj, field, self._written(field, key, by_key[key], changed))
        return replaced

    def _written(self, field: ModelField, key: Any, expression: Any, changed: Changes) -> Any:
        """Return what the statement gets: the expression, or the value from the rehearsal.

        If the row is not locked, the value might undo a change by another transaction. But if a receiver has
        changed the row, the expression might read that change instead of what was assigned before it. And
        where Django's statement reads its own table, its expressions read the old row.
        """
        if (field, key) not in self.rehearsed:
            return expression
        return self.rehearsed[field, key] if self.writes_values or changed else expression

    def renew(self, objs: Sequence[Model]) -> None:
        """Put on these instances the expressions that one of Django's statements would get for them.

        An earlier batch may have replaced those of an instance that is given twice. And of several instances
        with one key, the CASE of the statement takes the first and ignores the others.
        """
        first: dict[Any, Model] = {}
        for obj in objs:
            for field, expression in self.given_to[id(obj)]:
                columns.assign_if_different(obj, field, expression)
            earlier = first.setdefault(obj.pk, obj)
            for field in self.fields if earlier is not obj else ():
                if hasattr(getattr(obj, field.attname), "resolve_expression"):
                    columns.assign_if_different(obj, field, getattr(earlier, field.attname))

    def precompute(self, objs: Sequence[Model], size: int) -> None:
        """Replace expressions that read other rows by the values that they have before the first write."""
        for part in querysets.parts(objs, size) if self.computed else ():
            pairs = [(obj.pk, obj) for obj in part]
            reading = {
                field: {
                    key: value
                    for key, value in by_key.items()
                    if (field, key) not in self.rehearsed and reads_other_rows(value, self.model)
                }
                for field, by_key in self._expressions(pairs).items()
            }
            found = {field: by_key for field, by_key in reading.items() if by_key}
            self._show(found, pairs, columns.as_precomputed)

    def objs_reading_other_rows(self) -> list[Model]:
        """Return the instances that hold expressions which read other rows."""
        return _each_once(obj for obj, _, value in self.given if reads_other_rows(value, self.model))

    def rehearse(self, objs: Sequence[Model], statement: Callable[[], int]) -> None:
        """Rehearse Django's statement to evaluate expressions that read columns it assigns earlier."""
        needing: dict[ModelField, set[Any]] = defaultdict(set)
        for obj in self.computed:
            for field in self._reading_assigned(obj):
                needing[field].add(obj.pk)
        if not needing:
            return
        may_read_its_table = chooses_by_tables(self.queryset) or bool(self.objs_reading_other_rows())
        self.writes_values = self.lock or may_read_its_table
        keys = list(dict.fromkeys(obj.pk for obj in objs))
        found = rehearse(statement, self.model, self.using, keys, list(needing))
        self.rehearsed = {
            (field, key): value
            for key, values in found.items()
            for field, value in zip(needing, values, strict=True)
            if key in needing[field]
        }

    def _reading_assigned(self, obj: Model) -> Iterator[ModelField]:
        """Yield the fields whose expressions read columns that their statement has assigned before."""
        for owner, owned in self.owners.items():
            query = UpdateQuery(owner)
            query.get_initial_alias()
            for place, field in enumerate(owned):
                value = getattr(obj, field.attname)
                if hasattr(value, "resolve_expression") and reads_assigned(
                    resolved_to_save(value, query), set(owned[:place]), self.connection
                ):
                    yield field
