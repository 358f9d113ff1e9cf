"""The oracle: what ``update()`` must do, found slowly and without the library, from Django's own parts.

Signals come from a real loop of ``save(update_fields=…)``. Each ``save()`` is split in two, so that a batch
can send all its ``pre_save`` before its first write and all its ``post_save`` after its last. The first time
it is stopped after ``pre_save``. The second time it runs with ``pre_save`` muted, and its ``post_save`` is
delayed until the batch is written. Data comes from Django's own ``update()``: to find what a row will hold,
it is run on that row alone, the row is read, and the update is rolled back.

Where the loop of ``save()`` is not the rule, these rules apply (numbers are sections of contract.md):

- New values are those of the row, not expressions (1.5); another Python type that the caller gave, such as
  ``"7"`` for a number, is the field's own (1.5).
- At ``pre_save`` a value of ``Now()`` or ``Random()`` is only of the right type, a value that the column will
  round may not be rounded yet, and what only the row tells (a custom field without ``to_python``) is not
  looked at. A generated column has its old value, or its new one.
- At ``post_save`` every field is that of the row. A field that this save did not write, but a receiver did,
  on the instance or behind its back, may hold either's value.
- Values that read other rows are computed before the first write, others when their batch comes (1.9, 7).
- ``auto_now`` fields that the caller names take the caller's value, as in ``update()`` (7), and so do files.
- A primary key may change, which ``save()`` refuses (1.11): it is written first, then the row is saved.
- On MariaDB an assignment sees the columns that stand to its left in SET (7): such a value is not looked at
  in ``pre_save``.
- Rows in flight are written by a nested update, and nothing is sent for them (2).
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field as dataclass_field, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import FileField, JSONField, Value
from django.db.models.expressions import Col
from django.db.models.fields.files import FieldFile
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import Query, UpdateQuery
from hypothesis import reject

from tests.parity import typed_models
from tests.parity.comparison import Allowance, Allowed, Anything, Frozen, Near, Outcome, differing_cells
from tests.parity.fields import put
from tests.parity.receivers import Receivers
from tests.parity.rows import fields_of, frozen, tables
from tests.parity.scenario import Given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from django.db.models import Model, QuerySet

    from tests.parity.scenario import Call, Change


class _Undo(Exception):
    pass


class _Stop(Exception):
    pass


@contextmanager
def undone(alias: str) -> Iterator[None]:
    """Roll back the block, also after an exception.

    Like that of a TestCase, it may enclose durable blocks (Atomic._from_testcase, Django 5.2 to 6.1).
    """
    block: Any = transaction.atomic(using=alias)
    block._from_testcase = True
    try:
        with block:
            yield
            raise _Undo
    except _Undo:
        pass


def outcome(scenario: Call, run: Callable[[], object], receivers: Receivers) -> Outcome:
    """Run the work, and roll it back."""
    result: object = None
    error: Exception | None = None
    try:
        with undone(scenario.alias):
            result = run()
            state = tables(scenario.model, scenario.alias)
    except Exception as caught:  # noqa: BLE001  # any exception is compared
        error = caught
        state = tables(scenario.model, scenario.alias)
    return Outcome(result, error, receivers.log, state, receivers.gone)


@dataclass
class _Saving:
    """The state of one instance's save, and what may be seen of it."""

    names: frozenset[str]
    phase: str = "stopping"
    allowances: dict[str, Allowance] = dataclass_field(default_factory=dict)
    # After the write, by column: the row's value and, if this save did not write it, also the instance's.
    written: dict[str, tuple[Frozen, ...]] = dataclass_field(default_factory=dict)
    held: tuple[type[Model], dict[str, Any]] | None = None


class Oracle:
    def __init__(self, scenario: Change) -> None:
        self.scenario = scenario
        self.alias = scenario.alias
        self.receivers = Receivers(scenario.model, scenario.alias, scenario.hearing, self.nested)
        self.flying: Counter[tuple[Any, Any]] = Counter()

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect receivers to the signals of every ``save()``, whoever calls it."""
        pre_save.connect(self._pre)
        post_save.connect(self._post)
        try:
            yield
        finally:
            pre_save.disconnect(self._pre)
            post_save.disconnect(self._post)

    def _pre(self, sender: type[Model], instance: Model, **arguments: Any) -> None:
        saving: _Saving | None = getattr(instance, "_saving", None)
        if saving is None:
            self.flying[flight(sender, instance.pk)] += 1
            self.receivers.receive("pre", sender, instance, arguments)
        elif saving.phase == "stopping":
            arguments["update_fields"] = saving.names
            self.receivers.receive("pre", sender, instance, arguments, saving.allowances)
            raise _Stop

    def _post(self, sender: type[Model], instance: Model, **arguments: Any) -> None:
        saving: _Saving | None = getattr(instance, "_saving", None)
        if saving is None:
            self.receivers.receive("post", sender, instance, arguments)
            self.flying[flight(sender, instance.pk)] -= 1
        else:
            saving.held = sender, {**arguments, "update_fields": saving.names}

    def run(self) -> int:
        with self.connected():
            return self.scenario.loop(self)

    def nested(self, queryset: QuerySet[Any], values: dict[str, Any]) -> int:
        given = {name: Given(value) for name, value in values.items()}
        return self.update(queryset, given, queryset.model._base_manager.using(self.alias))

    def update(self, queryset: QuerySet[Any], values: dict[str, Given], plain: QuerySet[Any]) -> int:
        """Do as ``queryset.update(**values)``; ``plain`` are all rows, with the queryset's annotations."""
        model = queryset.model
        if not self.scenario.hearing.listens(model):
            return queryset.update(**fresh(values))
        keys = chosen(queryset)
        rows = base(plain)
        values = in_one_statement(queryset, values, lambda: queryset.update(**fresh(values)))
        evaluated = {
            key: evaluate(model, values, partial(truth, queryset.order_by(), key, values)) for key in keys
        }
        count = 0
        for batch in self.batches(keys):
            flying = [key for key in batch if flight(model, key) in +self.flying]
            loaded = {row.pk: row for row in rows.filter(pk__in=batch)}
            instances = {key: loaded[key] for key in batch if key in loaded and key not in flying}
            truths = {key: truth(plain, key, evaluated[key]) for key in instances}
            count += _Batch(self, rows, instances, truths, evaluated, flying).send()
        return count

    def bulk_update(
        self, rows: QuerySet[Any], objects: Sequence[Any], given: Sequence[dict[str, Given]]
    ) -> int:
        """Do as ``rows.bulk_update(objects, fields)``, the fields of each object having been given to it."""
        if not objects:
            return 0
        if not self.scenario.hearing.listens_to(map(type, objects)):
            return rows.bulk_update(objects, list(given[0]))
        evaluated = {}
        for obj, values in zip(objects, given, strict=True):
            values = in_one_statement(
                rows, values, lambda: rows.bulk_update(map(copy, objects), list(given[0]))
            )
            if connections[self.alias].vendor == "mysql":
                look = partial(bulk_truth, rows, objects, values, obj.pk)
            else:
                # On SQLite a subquery sees rows that the statement has already written.
                look = partial(bulk_truth, rows, [obj], crossing(values), obj.pk)
            evaluated[obj.pk] = evaluate(rows.model, values, look)
        count = 0
        for batch in self.batches(objects):
            instances = {obj.pk: obj for obj in batch}
            for key, obj in instances.items():
                assign(obj, evaluated[key])
            truths = {key: bulk_truth(rows, batch, evaluated[key], key) for key in instances}
            count += _Batch(self, rows, instances, truths, evaluated).send()
        return count

    def batches(self, rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
        size = self.scenario.batch_size
        return (rows[start : start + size] for start in range(0, len(rows), size))


class _Batch:
    """Rows of an update that are announced, written and reported together, by the keys before the write.

    ``flying`` are the rows in flight: they are written without signals.
    """

    def __init__(
        self,
        oracle: Oracle,
        rows: QuerySet[Any],
        instances: dict[Any, Any],
        truths: dict[Any, Any],
        values: dict[Any, dict[str, Given]],
        flying: Sequence[Any] = (),
    ) -> None:
        self.oracle = oracle
        self.rows = rows
        self.model = rows.model
        self.instances = instances
        self.truths = truths
        self.values = values
        self.in_flight = flying
        self.fields: list[Any] = [self.model._meta.get_field(name) for name in next(iter(values.values()))]
        self.names = frozenset(field.name for field in self.fields)

    def send(self) -> int:
        after = (truth.pk for truth in self.truths.values() if truth)
        flights = {flight(self.model, key) for key in (*self.instances, *after)}
        self.oracle.flying.update(flights)
        for key, instance in self.instances.items():
            self._assign(key, instance)
        changed = {key: self._announce(instance) for key, instance in self.instances.items()}
        count = sum(self.rows.filter(pk=key).update(**fresh(self.values[key])) for key in self.in_flight)
        for key, instance in self.instances.items():
            self._write(key, instance, changed[key])
        count += sum(map(self._report, self.instances.values()))
        self.oracle.flying.subtract(flights)
        return count

    def _assign(self, key: Any, instance: Any) -> None:
        instance._saving = saving = _Saving(self.names)
        truth = self.truths[key]
        if truth is None:
            return
        for field in self.model._meta.concrete_fields:
            if field.generated:
                either = frozen(getattr(instance, field.attname)), frozen(getattr(truth, field.attname))
                saving.allowances[field.attname] = Allowed(either)
        for field, given in zip(self.fields, self.values[key].values(), strict=True):
            value = stored(truth, field)
            put(instance, field.attname, value)
            if allowance := self._allowance(given, value):
                saving.allowances[field.attname] = allowance

    def _allowance(self, given: Given, value: Any) -> Allowance | None:
        left_to_right = connections[self.oracle.alias].vendor == "mysql" and len(self.fields) > 1
        if given.vague or (left_to_right and hasattr(given.value, "resolve_expression")):
            return Anything()
        if given.rounds and isinstance(value, (Decimal, float)):
            return Near(value)
        return None

    def _announce(self, instance: Any) -> frozenset[str]:
        """Send pre_save; return the names of the fields that receivers changed."""
        before = fields_of(instance)
        with suppress(_Stop):
            self._save(instance, self.names)
        after = fields_of(instance)
        return frozenset(
            field.name
            for field in self.model._meta.concrete_fields
            if not field.generated and before[field.attname] != after[field.attname]
        )

    def _write(self, key: Any, instance: Any, changed: frozenset[str]) -> None:
        if not self.rows.filter(pk=key).exists():
            return
        truth = self.truths[key]
        self._rename(key, truth.pk)
        saving = instance._saving
        saving.phase = "writing"
        saving.names = self.names | changed if self.oracle.scenario.write_back else self.names
        with self._json_nulls(instance):
            self._save(instance, saving.names)
        for field in self.fields:
            if field.name not in changed and changes_in_save(field):
                value = stored(truth, field)
                put(instance, field.attname, value)
                self.rows.filter(pk=truth.pk).update(**{field.name: value})
        row, seen = row_of(self.rows, truth.pk), fields_of(instance)
        for field in self.model._meta.concrete_fields:
            name = field.attname
            own = () if field.generated or field.name in saving.names else (seen[name],)
            saving.written[name] = (row[name], *own)

    @contextmanager
    def _json_nulls(self, instance: Any) -> Iterator[None]:
        """Make a save write JSON's null where SQL's NULL is not allowed."""
        nulls = [
            field.attname
            for field in self.fields
            if isinstance(field, JSONField) and not field.null and getattr(instance, field.attname) is None
        ]
        for name in nulls:
            setattr(instance, name, Value(None, JSONField()))
        yield
        for name in nulls:
            setattr(instance, name, None)

    def _rename(self, key: Any, new: Any) -> None:
        if key != new:
            parts = new if self.model._meta.is_composite_pk else (new,)
            names = [field.name for field in self.model._meta.pk_fields]
            self.rows.filter(pk=key).update(**dict(zip(names, parts, strict=True)))

    def _save(self, instance: Any, names: frozenset[str]) -> None:
        keys = {field.name for field in self.model._meta.pk_fields}
        instance.save(using=self.oracle.alias, update_fields=names - keys or {"rank"})

    def _report(self, instance: Any) -> bool:
        """Send post_save if the row still exists."""
        saving = instance._saving
        if saving.held is None or not self.rows.filter(pk=instance.pk).exists():
            return False
        row = row_of(self.rows, instance.pk)
        sender, arguments = saving.held
        allowances = {name: Allowed((*values, row[name])) for name, values in saving.written.items()}
        self.oracle.receivers.receive("post", sender, instance, arguments, allowances)
        return True


def stored(row: Model, field: Any) -> Any:
    """Return a row's value as one that can be assigned and written: of a file, the name."""
    value = getattr(row, field.attname)
    return value.name if isinstance(value, FieldFile) else value


def changes_in_save(field: Any) -> bool:
    """Return whether ``save()`` writes something else than ``update()``: it writes '' for a NULL file."""
    return getattr(field, "auto_now", False) or isinstance(field, FileField)


def flight(model: type[Model], key: Any) -> tuple[Any, Any]:
    return model._meta.concrete_model, key


def base(queryset: QuerySet[Any]) -> QuerySet[Any]:
    rows: QuerySet[Any] = queryset.model._base_manager.using(queryset.db)
    return rows


def row_of(rows: QuerySet[Any], key: Any) -> dict[str, Frozen]:
    return fields_of(rows.get(pk=key))


def truth(plain: QuerySet[Any], key: Any, values: dict[str, Given]) -> Model:
    """Return the row as Django's own statement leaves it, possibly with another key."""
    rows = base(plain)
    with undone(rows.db):
        others = set(rows.exclude(pk=key).values_list("pk", flat=True))
        plain.filter(pk=key).update(**fresh(values))
        (new,) = set(rows.values_list("pk", flat=True)) - others
        row: Model = rows.get(pk=new)
    return row


def bulk_truth(
    rows: QuerySet[Any], objects: Iterable[Any], values: dict[str, Given], key: Any
) -> Model | None:
    """Return an object's row as Django's own ``bulk_update()`` leaves it, or None without a row.

    The objects are one if values read other rows, and a batch if a unique value may belong to another row.
    """
    with undone(rows.db):
        rows.bulk_update(map(copy, objects), list(values))
        row: Model | None = rows.filter(pk=key).first()
    return row


def evaluate(
    model: type[Model], values: dict[str, Given], look: Callable[[], Model | None]
) -> dict[str, Given]:
    """Return a row's values, those that read other rows as they are now, before the first write."""
    if not any(given.crosses for given in values.values()):
        return values
    row: Any = look()
    now = {name: stored(row, model._meta.get_field(name)) for name in values}
    return {
        name: replace(given, value=now[name]) if given.crosses else given for name, given in values.items()
    }


def in_one_statement(
    queryset: QuerySet[Any], values: dict[str, Given], run: Callable[[], object]
) -> dict[str, Given]:
    """Return the values; those that Django's statement reads all at once on MariaDB are marked.

    They need not read other rows themselves: it is enough that another value, or the filter, reads the table.
    """
    computed = [given for given in values.values() if hasattr(given.value, "resolve_expression")]
    connection = connections[queryset.db]
    if connection.vendor != "mysql" or not computed or len(values) == 1:
        return values
    statements: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        return execute(sql, *arguments)

    # A receiver may still change what the database refuses.
    with connection.execute_wrapper(note), suppress(IntegrityError), undone(queryset.db):
        run()
    marked: dict[str, Given] = {}
    before: set[Any] = set()
    for name, given in values.items():
        field = queryset.model._meta.get_field(name)
        reads_assigned = not before.isdisjoint(reads(queryset, field, given))
        at_once = any(reads_itself(field.model._meta.db_table, sql) for sql in statements)
        marked[name] = replace(given, crosses=True) if reads_assigned and at_once else given
        before.add(field)
    return marked


def reads_itself(table: str, sql: str) -> bool:
    # Not as in EXTRACT(MONTH FROM `table`.`column`).
    return sql.startswith(f"UPDATE `{table}`") and bool(re.search(rf"(FROM|JOIN) `{table}`(?!\.)", sql))


def reads(queryset: QuerySet[Any], field: Any, given: Given) -> set[Any]:
    """Return the fields that the value of a field reads from its row."""
    if not hasattr(given.value, "resolve_expression"):
        return set()
    is_own = field.model is queryset.model._meta.concrete_model
    query = queryset.query.chain(UpdateQuery) if is_own else UpdateQuery(field.model)
    found, waiting = set(), [given.value.resolve_expression(query, allow_joins=False, for_save=True)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Col):
            found.add(part.target)
        if isinstance(part, Query):
            found.update(column.target for column in part.get_external_cols())
        waiting += filter(None, part.get_source_expressions())
    return found


def crossing(values: dict[str, Given]) -> dict[str, Given]:
    """Return the values that read other rows."""
    return {name: given for name, given in values.items() if given.crosses}


def assign(obj: Any, values: dict[str, Given]) -> None:
    for name, given in values.items():
        if given.crosses:
            put(obj, obj._meta.get_field(name).attname, given.value)


def fresh(values: dict[str, Given]) -> dict[str, Any]:
    return {name: given.fresh() for name, given in values.items()}


def chosen(queryset: QuerySet[Any]) -> list[Any]:
    """Return the rows' keys, each once, in the order of the signals: the explicit one, else the key's."""
    order = (*queryset.query.order_by, "pk")
    return list(dict.fromkeys(queryset.order_by(*order).values_list("pk", flat=True)))


def statement(scenario: Call) -> Outcome:
    """Return the outcome of Django's own statement: its error, or the tables."""
    deaf = Receivers(scenario.model, scenario.alias, scenario.hearing, lambda *_: None)
    return outcome(scenario, scenario.call, deaf)


def expected(scenario: Change) -> Outcome:
    """Return the expected outcome of the call; examples without a clear answer are dropped."""
    django = statement(scenario)
    if is_undecided(scenario, django):
        reject()
    # Then the statement may write other values, or other rows, than the loop does.
    differs = scenario.hearing.makes_unique or sees_itself(scenario)
    may_succeed = differs and isinstance(django.error, IntegrityError)
    if scenario.says_nothing or (django.error and not may_succeed):
        return django
    oracle = Oracle(scenario)
    found = outcome(scenario, oracle.run, oracle.receivers)
    if isinstance(found.error, IntegrityError) and not (django.error or scenario.hearing.makes_unique):
        # Rows hand a unique value on to one another. Whether one statement may do so depends on the order in
        # which PostgreSQL comes to them.
        reject()
    if not scenario.hearing.actions and not sees_itself(scenario):
        unlike = differing_cells(scenario, django, found)
        assert not unlike, f"the oracle differs from Django's statement: {unlike}, {found.error!r}"
    return found


def is_undecided(scenario: Change, django: Outcome) -> bool:
    """Return whether it is unclear which outcome is right.

    The database refuses the statement, but perhaps not after the changes of receivers. Or it refuses to order
    a child's table by its parent's column, which Django's ``update()`` should not ask for. Or MariaDB reads
    other rows and sorts: then it has been seen to give one row's values to all rows, and to change ``a`` by
    ``SET a = a``. Or the statement succeeded, but Django cannot read what it has written. Or a receiver makes
    a value unique, but only for the rows of one class: then ``truth()`` cannot write it to another row.
    """
    if django.error and django.result is not None:
        return True
    of_several_classes = len(typed_models.classes_of(scenario.model)) > 1
    if of_several_classes and scenario.hearing.makes_unique and isinstance(django.error, IntegrityError):
        return True
    refuses = isinstance(django.error, DatabaseError)
    if refuses and (scenario.hearing.mends or (scenario.orders and scenario.model._meta.parents)):
        return True
    computes = any(hasattr(given.value, "resolve_expression") for given in scenario.given())
    reads_others = scenario.joins or any(given.crosses for given in scenario.given())
    sorts = scenario.orders and reads_others
    return connections[scenario.alias].vendor == "mysql" and computes and sorts


def sees_itself(scenario: Change) -> bool:
    """Return whether Django's statement may read rows that it has written, as a subquery on SQLite (7)."""
    reads = scenario.joins or any(given.crosses for given in scenario.given())
    return reads and connections[scenario.alias].vendor == "sqlite"
