"""`QuerySet.bulk_update()`, as a loop of `save(update_fields=…)` would tell it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import BinaryField, QuerySet, Value
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import UpdateQuery

from signal_patch.dispatch import transactions
from signal_patch.dispatch.progress import reporting
from signal_patch.dispatch.rows import querysets, selection
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.signals import in_flight, loops, rounds, sending
from signal_patch.dispatch.telling import Teller
from signal_patch.dispatch.values import columns, files, json_null
from signal_patch.dispatch.values.expressions import UNKNOWN, Tried, resolved_to_save
from signal_patch.dispatch.values.per_row import PerRow
from signal_patch.dispatch.values.plan import reads_assigned, reads_other_rows
from signal_patch.dispatch.values.tracking import Changes
from signal_patch.dispatch.writing import updating
from signal_patch.dispatch.writing.rehearsal import rehearse

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.options import Options

    ModelField = Field[Any, Any]
    Expressions = dict[ModelField, dict[Any, Any]]


def bulk_update(
    queryset: QuerySet[Any],
    objs: Iterable[Any],
    fields: Iterable[str],
    batch_size: int | None,
    options: Options,
    original: Callable[..., int],
) -> int:
    """Update the rows of the caller's instances and send their signals.

    `original` is Django's own `bulk_update()`, unbound, and gets the caller's `batch_size`.
    Returns the number of rows matched. An instance without a row gets no `post_save`.
    Raises what `original` raises, before any signal, and whatever a receiver raises, with
    no row changed.
    """
    objs, names = tuple(sending.instances_of(objs)), list(fields)
    senders = sending.senders_of(objs)
    if not sending.hears_saves(senders) or not all(obj._is_pk_set() for obj in objs):
        with in_flight.silence(queryset.model):
            return original(queryset, objs, names, batch_size=batch_size)
    # With no objects, Django checks the names of the fields and executes nothing.
    original(queryset, (), names, batch_size=batch_size)
    operation = _BulkUpdate(queryset, senders, names, batch_size, options, original)
    operation.refuse(objs)
    rounds.check(options, senders)
    given = operation.expressions_given()
    try:
        with transaction.atomic(using=operation.using, savepoint=False):
            operation.begin(objs)
            return loops.run(lambda: operation.run(objs), (pre_save, post_save), senders)
    except BaseException:
        # The rows are as they were. Whoever tries again means the expressions, not what they gave.
        for obj, field, expression in given:
            columns.assign(obj, field, expression)
        raise


class _BulkUpdate:
    def __init__(
        self,
        queryset: QuerySet[Any],
        senders: list[type[Model]],
        names: list[str],
        batch_size: int | None,
        options: Options,
        original: Callable[..., int],
    ) -> None:
        self.queryset = queryset
        self.model = queryset.model
        self.names = names
        self.batch_size = batch_size
        self.options = options
        self.original = original
        self.using = querysets.database_for_write(queryset)
        self.connection = connections[self.using]
        self.lock = options.lock and self.connection.features.has_select_for_update
        self.fields: list[ModelField] = [self.model._meta.get_field(name) for name in names]
        self.teller = Teller(
            senders,
            self.using,
            options,
            frozenset(field.name for field in self.fields),
            self.fields,
            may_hold_expressions=True,
        )
        # By the model whose table has the columns: each table has a statement of its own.
        self.owners: dict[type[Model], list[ModelField]] = defaultdict(list)
        for field in self.fields:
            if not field.generated:
                self.owners[columns.concrete(field.model)].append(field)
        self.size = min(options.batch_size, querysets.largest_batch(self.using, self.model))
        # The named fields of which only the row tells what becomes of an instance's value.
        self.unknown: dict[ModelField, None] = {}
        self.is_single = True
        # The instances that hold expressions, once these are known to be valid.
        self.computed: list[Any] = []
        # By field and key, where Django's statement has been rehearsed.
        self.rehearsed: dict[tuple[ModelField, Any], Any] = {}

    def refuse(self, objs: tuple[Any, ...]) -> None:
        """Raise what Django raises for this queryset, for an object that refers to an unsaved one, and
        for a value that can't be assigned.
        """
        if any(field.is_relation for field in self.fields):
            for obj in objs:
                # Model._prepare_related_fields_for_save, Django 5.2 to 6.1.
                obj._prepare_related_fields_for_save(operation_name="bulk_update", fields=self.fields)
        self.computed = [obj for obj in objs if self._is_computed(obj)]
        # Where there are no rows, the statement is built and not run.
        nowhere = querysets.none(self.queryset)
        with in_flight.silence(self.model):
            self.original(nowhere, self.computed or objs[:1], self.names, batch_size=self.batch_size)
        self._normalize(objs)
        if self.unknown:
            # What cannot be predicted Django may take, or refuse.
            with in_flight.silence(self.model):
                self.original(nowhere, objs, self.names, batch_size=self.batch_size)

    def _is_computed(self, obj: Model) -> bool:
        return any(hasattr(getattr(obj, field.attname), "resolve_expression") for field in self.fields)

    def expressions_given(self) -> list[tuple[Model, ModelField, Any]]:
        """Return the expressions on the instances, which are to give way to values."""
        held = ((obj, field, getattr(obj, field.attname)) for obj in self.computed for field in self.fields)
        return [item for item in held if hasattr(item[2], "resolve_expression")]

    def begin(self, objs: tuple[Any, ...]) -> None:
        """Lock the rows of the instances, before any of them is read."""
        field = columns.first_written(self.model, self.names)
        transactions.begin_write(self.using, transactions.UPDATE, field)
        if self.lock:
            querysets.lock(querysets.all_rows(self.queryset, self.using), {obj.pk for obj in objs})

    def run(self, objs: tuple[Any, ...]) -> int:
        if self.computed:
            self._rehearse(objs)
            self._precompute()
        size = self._size(objs)
        self.is_single = len(objs) <= size
        matched = 0
        with reporting(self.options, self.model._meta.label) as report:
            for start in range(0, len(objs), size):
                batch = objs[start : start + size]
                matched += self._process([(obj.pk, obj) for obj in batch])
                report(start + len(batch), len(objs))
        return matched

    def _size(self, objs: tuple[Any, ...]) -> int:
        """Return how many instances make a batch: as many as in Django's own, if a key is given twice.

        What becomes of the second, and how often its row counts, depends on whether one statement has
        both (QuerySet.bulk_update, Django 5.2 to 6.1).
        """
        if len({obj.pk for obj in objs}) == len(objs):
            return self.size
        return self._size_of_statement(objs)

    def _size_of_statement(self, objs: tuple[Any, ...]) -> int:
        """Return how many instances are in one statement of Django's (QuerySet.bulk_update, 5.2 to 6.1)."""
        pk = self.model._meta.pk
        largest = self.connection.ops.bulk_batch_size([pk, pk, *self.fields], objs)
        return min(self.batch_size or largest, largest)

    def _process(self, pairs: list[tuple[Any, Model]]) -> int:
        keys = [key for key, _ in pairs]
        distinct = len(set(keys))
        by_class = in_flight.keys_by_class(self.model, keys, (obj for _, obj in pairs))
        already_in_flight = in_flight.keys_in_flight_of(self.using, by_class)
        flight = in_flight.flight_of(self.using, by_class)
        with in_flight.flying(flight):
            if self._is_set_order(pairs):
                pairs = self._whole(pairs)
            present = self._present_beforehand(keys)
            expressions = self._expressions(pairs)
            self._show(expressions, pairs)
            self._show_rehearsed(pairs)
            to_signal = (
                [pair for pair in pairs if pair[0] not in already_in_flight] if already_in_flight else pairs
            )
            changes = self.teller.before(to_signal)
            self._prepare(changes, pairs)
            hidden = self._hide(expressions, changes, pairs)
            files.store_waiting(self.fields, (obj for _, obj in pairs))
            matched = self._write(pairs)
            if matched > distinct:
                updating.refuse_twins(QuerySet(self.model, using=self.using), keys)
            if present is not None:
                to_signal = [pair for pair in to_signal if pair[0] in present]
            self._write_extras(to_signal, changes)
            missing = (distinct if present is None else len(present)) - matched
            for obj, field, shown in hidden if missing else ():
                # What was to be written tells which rows were.
                columns.assign(obj, field, shown)
            refresh_fields = self._refresh_fields(expressions)
            if distinct < len(keys):
                # Of two instances with one key, the row holds the values of the first.
                refresh_fields = [*self.fields, *(field for changed in changes.values() for field in changed)]
            told = self.teller.settle(to_signal, changes, refresh_fields, missing=missing)
            for instance, *_ in told:
                # As save_base() leaves it (Django 5.2 to 6.1).
                instance._state.adding, instance._state.db = False, self.using
            return matched - self.teller.after(told, flight)

    def _is_set_order(self, pairs: list[tuple[Any, Model]]) -> bool:
        """Return whether the instances are those of `set_RELATED_order()`, which nobody has loaded.

        It makes them of a key and a place only (method_set_order, Django 5.2 to 6.1).
        """
        return (
            self.names == ["_order"]
            and self.model._meta.order_with_respect_to is not None
            and all(obj._state.adding for _, obj in pairs)
        )

    def _whole(self, pairs: list[tuple[Any, Model]]) -> list[tuple[Any, Model]]:
        """Return the rows as they are, given the new values by attribute, where there is a row."""
        stored = querysets.with_keys(querysets.all_rows(self.queryset, self.using), [key for key, _ in pairs])
        found = {obj.pk: obj for obj in self._read(stored)}
        for key, obj in pairs:
            for field in self.fields:
                columns.assign(found.get(key, obj), field, getattr(obj, field.attname))
        return [(key, found.get(key, obj)) for key, obj in pairs]

    def _present_beforehand(self, keys: list[Any]) -> set[Any] | None:
        """Return which keys a queryset with conditions matches: the write may change that."""
        if not self.queryset.query.where:
            return None
        found = querysets.with_keys(selection.chosen(self.queryset, self.using), keys)
        return set(querysets.keys_of(selection.chosen_by_committed(found) if self.lock else found))

    def _read(self, locked: QuerySet[Any]) -> QuerySet[Any]:
        """Return a queryset of rows that are locked, so that it reads them as they are."""
        return querysets.current(locked) if self.lock else locked

    # Expressions on the instances are shown to receivers as values, and put back for the
    # write, which is Django's.

    def _expressions(self, pairs: list[tuple[Any, Model]]) -> Expressions:
        found: Expressions = defaultdict(dict)
        for field in self.fields:
            for key, obj in pairs:
                value = getattr(obj, field.attname)
                if hasattr(value, "resolve_expression"):
                    found[field].setdefault(key, value)
        return found

    def _rehearse(self, objs: tuple[Any, ...]) -> None:
        """Learn from Django's own statements what expressions give that read what is assigned before them."""
        needing = {(field, obj.pk) for obj in self.computed for field in self._reading_assigned(obj)}
        if not needing:
            return
        fields = list(dict.fromkeys(field for field in self.fields if any(f is field for f, _ in needing)))
        found = rehearse(
            lambda: self.original(
                querysets.copied(self.queryset), objs, self.names, batch_size=self.batch_size
            ),
            self.model,
            self.using,
            list(dict.fromkeys(obj.pk for obj in objs)),
            fields,
        )
        self.rehearsed = {
            (field, key): value
            for key, values in found.items()
            for field, value in zip(fields, values, strict=True)
            if (field, key) in needing
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

    def _show_rehearsed(self, pairs: list[tuple[Any, Model]]) -> None:
        for field in {field for field, _ in self.rehearsed}:
            for key, obj in pairs:
                if (field, key) in self.rehearsed:
                    columns.assign(obj, field, json_null.shown(self.rehearsed[field, key]))

    def _show(
        self,
        expressions: Expressions,
        pairs: list[tuple[Any, Model]],
        select: Callable[..., Any] = columns.as_column,
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
                # What can't be read stays the expression that it is.
                if key in expressions[field] and value is not UNKNOWN:
                    shown = columns.scaled(field, value, self.connection)
                    columns.assign(obj, field, shown)

    def _prepare(self, changes: dict[Any, Changes], pairs: list[tuple[Any, Model]]) -> None:
        """Give the instances what `Field.pre_save` made of a change: Django writes what they hold."""
        # Of two instances with one key, the changes are the latter's.
        holders = dict(pairs) if changes else {}
        for key, changed in changes.items():
            for field, value in changed.items():
                # To set an image is to read its file.
                if getattr(holders[key], field.attname) is not value:
                    columns.assign(holders[key], field, value)

    def _hide(
        self, expressions: Expressions, changes: dict[Any, Changes], pairs: list[tuple[Any, Model]]
    ) -> list[tuple[Model, ModelField, Any]]:
        """Put the expressions back for the write, and return what was shown in their place."""
        hidden: list[tuple[Model, ModelField, Any]] = []
        for field, by_key in expressions.items():
            for key, obj in pairs:
                # What a receiver has put in the place of the value is what gets saved.
                if key not in by_key or field in (changed := changes.get(key, {})):
                    continue
                hidden.append((obj, field, getattr(obj, field.attname)))
                columns.assign(obj, field, self._written(field, key, by_key[key], changed))
        return hidden

    def _written(self, field: ModelField, key: Any, expression: Any, changed: Changes) -> Any:
        """Return what the statement gets: an expression, or the value that the rehearsal gave.

        Where the row is not locked, the value might undo what another transaction writes meanwhile. But
        the expression must not read what a receiver has put in the place of what was assigned before.
        """
        return self.rehearsed.get((field, key), expression) if self.lock or changed else expression

    def _precompute(self) -> None:
        """Replace expressions that read other rows by what they give before the first write."""
        for start in range(0, len(self.computed), self.size):
            pairs = [(obj.pk, obj) for obj in self.computed[start : start + self.size]]
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

    def _normalize(self, objs: tuple[Any, ...]) -> None:
        """Turn the instances' constants, and their keys, into what their rows will hold."""
        fields = {model: fields_of(model) for model in set(map(type, objs))}
        for field in self.fields:
            if columns.is_plain(field) and not files.holds_files(field):
                for obj in objs:
                    self._normalize_one(obj, field)
        for obj in objs:
            for field in fields[type(obj)]:
                if type(getattr(obj, field.attname)) is not int and columns.is_plain(field):
                    self._normalize_one(obj, field, is_key=True)

    def _normalize_one(self, obj: Model, field: ModelField, *, is_key: bool = False) -> None:
        value = getattr(obj, field.attname)
        if isinstance(field, BinaryField) or hasattr(value, "resolve_expression"):
            return
        stored = columns.predicted(field, value, self.connection)
        if stored is UNKNOWN:
            self.unknown[field] = None
            return
        if is_key and not self._is_same_parameter(field, stored, value):
            # Rounded to the scale of its column, a decimal would name a row that Django's statement does not.
            return
        # An equal list stays the caller's own.
        if stored is not value and not (columns.is_opaque(field) and stored == value):
            columns.assign(obj, field, stored)

    def _is_same_parameter(self, field: ModelField, stored: Any, value: Any) -> bool:
        one, other = (field.get_db_prep_value(key, self.connection) for key in (stored, value))
        return bool(one == other)

    def _write_extras(self, pairs: list[tuple[Any, Model]], changes: dict[Any, Changes]) -> None:
        for (model, extra), chosen in self._extras(pairs, changes).items():
            # The write may have undone the queryset's own conditions.
            all_rows: QuerySet[Any] = querysets.all_rows(self.queryset, self.using)
            if model is not self.model:
                all_rows = QuerySet(model, using=self.using)
            # Django's own would lose what a field makes of a plain value only.
            updating.write_own(all_rows, chosen, extra)

    def _extras(
        self, pairs: list[tuple[Any, Model]], changes: dict[Any, Changes]
    ) -> dict[tuple[type[Model], tuple[ModelField, ...]], list[tuple[Any, Model]]]:
        """Return the instances by what receivers changed beside the named fields, and by the model whose
        fields these are: an instance may be of a subclass.
        """
        own, named = set(self.model._meta.concrete_fields), set(self.fields)
        groups: dict[tuple[type[Model], tuple[ModelField, ...]], list[tuple[Any, Model]]] = defaultdict(list)
        for key, obj in pairs:
            extra = [field for field in changes.get(key, {}) if field not in named]
            if extra:
                model = self.model if own.issuperset(extra) else type(obj)
                groups[model, tuple(extra)].append((key, obj))
        return groups

    def _write(self, pairs: list[tuple[Any, Model]]) -> int:
        objs = [obj for _, obj in pairs]
        # Django's statement narrows a queryset that is its own clone to the rows that it writes.
        queryset = self.queryset if self.is_single else querysets.copied(self.queryset)
        with in_flight.silence(self.model):
            return self.original(queryset, objs, self.names, batch_size=self.batch_size)

    def _refresh_fields(self, expressions: Expressions) -> list[ModelField]:
        custom = [field for field in self.fields if not columns.is_predictable(field)]
        return list(dict.fromkeys([*expressions, *custom, *self.unknown]))
