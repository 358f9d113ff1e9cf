"""What a delete does to rows besides those that Django deletes.

A cascade changes rows (`SET_NULL`, `SET_DEFAULT`, `SET()`): Django does it by `QuerySet.update()`, which
sends the signals itself, or by `UpdateQuery.update_batch()`, for which it is called here. And from
Django 6.1 on the database may remove and change rows by itself: where somebody would hear of it, these
rows are given to Django's own `Collector`, which then does in Python what the database would do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import QuerySet, deletion
from django.db.models.signals import post_delete, pre_delete

from signal_patch.dispatch import transactions
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import fields_of, refuse_null
from signal_patch.dispatch.signals import in_flight, loops, rounds, sending
from signal_patch.dispatch.update import update
from signal_patch.dispatch.values.columns import concrete

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model
    from django.db.models.deletion import Collector
    from django.db.models.sql import UpdateQuery

    from signal_patch.options import Options

    Relation = Any  # ForeignKey, as Django 6.1 has it
    Decide = Callable[[type[Model], str], Options | None]
    MixinOptions = Callable[[QuerySet[Any]], Options | None]
    Deleted = tuple[int, dict[str, int]]

# The rules by which the database acts itself came with Django 6.1; before, no relation has them.
_DB_CASCADE = getattr(deletion, "DB_CASCADE", object())
_DB_SET_NULL = getattr(deletion, "DB_SET_NULL", object())
_DB_SET_DEFAULT = getattr(deletion, "DB_SET_DEFAULT", object())


def update_batch(
    query: UpdateQuery,
    keys: list[Any],
    values: dict[str, Any],
    using: str,
    options: Options,
    original: Callable[..., None],
) -> None:
    """Update the rows with these keys and send their signals.

    `original` is Django's own `UpdateQuery.update_batch()`, unbound, by which a cascade changes rows that
    it had to look at (`SET_DEFAULT`, `SET()` of a callable; Django 5.2 to 6.1).
    """
    model: Any = query.model
    # By their keys: a receiver may have made them rows that the manager does not show.
    all_rows = querysets.all_rows(model._base_manager.using(using), using)
    if not sending.hears_saves(sending.senders(all_rows)):
        original(query, keys, values, using)
        return
    refuse_null(model, keys)
    size = min(options.batch_size, querysets.largest_batch(using, model))
    ordered = querysets.in_order(keys)
    with transaction.atomic(using=using, savepoint=False):
        for start in range(0, len(ordered), size):
            chosen = querysets.with_keys(all_rows, ordered[start : start + size])
            update(chosen, values, options, _update_by_django)


def _update_by_django(queryset: QuerySet[Any], /, **values: Any) -> int:
    with in_flight.silence(queryset.model):
        return QuerySet.update(queryset, **values)


def delete(
    collector: Collector,
    decide: Decide,
    mixin_options: MixinOptions,
    original: Callable[[Collector], Deleted],
) -> Deleted:
    """Delete what Django has collected, with what the database would remove and change along with it.

    `original` is Django's own `Collector.delete()`, unbound; it sends the signals. `decide` gives the
    options under which an operation on a model's rows sends signals, or None. `mixin_options` gives those of
    a queryset whose own `update()` sends none, though its rows are to send them.
    """
    relations = _database_relations(_models_of(collector), connections[collector.using])
    with _transaction(collector.using, {*collector.data, *relations}):
        return _delete(collector, relations, decide, mixin_options, original)


def _transaction(using: str, models: Collection[type[Model]]) -> AbstractContextManager[Any]:
    """Open the transaction of a delete that is heard, which Django opens itself later on.

    Hooks on its commit are to find no row in flight.
    """
    if sending.is_heard(pre_delete, models) or sending.is_heard(post_delete, models):
        return transaction.atomic(using=using, savepoint=False)
    return nullcontext()


def _delete(
    collector: Collector,
    relations: dict[type[Model], list[Relation]],
    decide: Decide,
    mixin_options: MixinOptions,
    original: Callable[[Collector], Deleted],
) -> Deleted:
    if not any(relations.values()):
        _tell_changes(collector, mixin_options)
        flight = in_flight.flight_of_delete(collector)
        with in_flight.flying(flight):
            return _run(collector, decide, original)
    cascade = DatabaseCascade(collector, decide, mixin_options, relations)
    cascade.collect()
    _tell_changes(collector, mixin_options)
    flight = in_flight.flight_of_delete(collector, cascade.removed_by_database, relations)
    with in_flight.flying(flight):
        if sending.is_heard(pre_delete, collector.data):
            cascade.check_after_pre_delete()
        deleted = _run(collector, decide, original)
    return cascade.counted(deleted) if cascade.deleted_by_either and not flight.deletions else deleted


def _tell_changes(collector: Collector, mixin_options: MixinOptions) -> None:
    """Have the updates of a cascade send signals that they do not send by themselves.

    Django joins the querysets of a field and calls `update()`. What is loaded already goes another way,
    `UpdateQuery.update_batch()` (Collector.delete, 5.2 to 6.1).
    """
    updates: Any = collector.field_updates
    for found in updates.values():
        loaded = [some for some in found if not _is_unloaded(some)]
        querysets = [some for some in found if _is_unloaded(some)]
        if querysets and (options := mixin_options(querysets[0])):
            found[:] = [*loaded, _telling(reduce(or_, querysets), options)]


def _is_unloaded(found: Any) -> bool:
    return isinstance(found, QuerySet) and found._result_cache is None


def _telling(queryset: QuerySet[Any], options: Options) -> QuerySet[Any]:
    def tell(**values: Any) -> int:
        return update(queryset, values, options, _update_as_its_class)

    # On this one queryset, which nobody else has.
    queryset.__dict__["update"] = tell
    return queryset


def _update_as_its_class(queryset: QuerySet[Any], /, **values: Any) -> int:
    with in_flight.silence(queryset.model):
        return type(queryset).update(queryset, **values)


def _run(collector: Collector, decide: Decide, original: Callable[[Collector], Deleted]) -> Deleted:
    def run() -> Deleted:
        with rounds.opened_for_delete(collector, lambda model: decide(model, "delete") is not None):
            return original(collector)

    return loops.run(run, (pre_delete, post_delete), collector.data)


def _models_of(collector: Collector) -> set[type[Model]]:
    fast: set[Any] = {queryset.model for queryset in collector.fast_deletes}
    return {concrete(model) for model in {*collector.data, *fast}}


class DatabaseCascade:
    """The rows that the database would remove and change along with those collected (Django 6.1).

    Given to the collector are rows that somebody would hear of, and those on the way to them.
    `removed_by_database` holds, by key, rows that the database removes by itself, known because others depend
    on them; `deleted_by_either` the models of those that the database removes unless Django is faster.
    `collected_by_django` are the rows that Django had collected by itself, `former_fast_deletes` querysets of
    which it would have chosen the rows after `pre_delete`.
    """

    def __init__(
        self,
        collector: Collector,
        decide: Decide,
        mixin_options: MixinOptions,
        relations: dict[type[Model], list[Relation]],
    ) -> None:
        # Django's stubs do not know of 6.1 yet.
        self.collector: Any = collector
        self.decide = decide
        self.mixin_options = mixin_options
        self.relations = relations
        self.followed: dict[type[Model], list[Relation]] = {}
        self.collected_by_django: dict[type[Model], list[Model]] = {}
        self.former_fast_deletes: list[QuerySet[Any]] = []
        self.removed_by_database: dict[type[Model], dict[Any, Model]] = defaultdict(dict)
        self.deleted_by_either: set[type[Model]] = set()
        heard = {model for model in relations if self._is_heard(model)}
        self.deleted = self._leading_to(heard)
        self.wanted = self._leading_to(heard | self._changing_and_changed())

    def _changing_and_changed(self) -> set[type[Model]]:
        """Return the models by whose rows others are changed, heard by somebody, and those others.

        These too: a row that is changed and removed at once sends no signals of the change.
        """
        changing = {model for model, fields in self.relations.items() if any(map(self._changes, fields))}
        changed = {
            field.model for model in changing for field in self.relations[model] if self._changes(field)
        }
        cascades = {field.model for field, _ in self.collector.field_updates if self._hears_changes(field)}
        return changing | ((changed | cascades) & self.relations.keys())

    def _leading_to(self, models: set[type[Model]]) -> set[type[Model]]:
        """Return these models and those whose rows the database does not remove without theirs."""
        found = set(models)
        while True:
            more = {
                model
                for model, relations in self.relations.items()
                if any(_removes(field) and field.model in found for field in relations)
            }
            if more <= found:
                return found
            found |= more

    def _is_heard(self, model: type[Model]) -> bool:
        if model._meta.auto_created or self.decide(model, "delete") is None:
            return False
        return pre_delete.has_listeners(model) or post_delete.has_listeners(model)

    def _changes(self, field: Relation) -> bool:
        """Return whether somebody hears that the database changes rows by this relation."""
        return not _removes(field) and self._hears_changes(field)

    def _hears_changes(self, field: Relation) -> bool:
        if self.decide(field.model, "update") is None:
            return False
        return sending.hears_saves(sending.senders(field.model._base_manager.all()))

    def collect(self) -> None:
        """Give the collector the rows, from those that it has onwards."""
        self.followed = {model: self._followed(model) for model in self.relations}
        if not any(self.followed.values()):
            return
        self._begin_write()
        self.collected_by_django = {model: list(found) for model, found in self.collector.data.items()}
        self._collect_fast_deletes()
        # Django deletes a single object without a look at what else was collected, but for this.
        self.collector.force_collection = True
        pending = [(model, list(found)) for model, found in self.collector.data.items() if found]
        while pending:
            model, found = pending.pop()
            for field in self.followed[concrete(model)]:
                if not _removes(field):
                    self._change(field, found)
                elif removed := self._remove(field, found):
                    pending.append((field.model, removed))

    def _begin_write(self) -> None:
        # Of what Django itself reads outside of a transaction nothing is to be held.
        if connections[self.collector.using].in_atomic_block:
            key = fields_of(next(iter(self.relations)))[0]
            transactions.begin_write(self.collector.using, transactions.DELETE, key)

    def _followed(self, model: type[Model]) -> list[Relation]:
        return [
            field
            for field in self.relations[model]
            if (field.model in self.wanted if _removes(field) else self._changes(field))
        ]

    def _collect_fast_deletes(self) -> None:
        """Fix which rows a statement will delete, where rows depend on them that are signalled."""
        for queryset in list(self.collector.fast_deletes):
            model = queryset.model
            if self.followed[concrete(model)]:
                self.former_fast_deletes.append(querysets.copied(queryset))
                self.collector.fast_deletes.remove(queryset)
                self.collector.add(queryset)
                for field in model._meta.concrete_fields:
                    if _is_cascade(field) and not _refers_to_itself(field):
                        self.collector.add_dependency(field.remote_field.model, model)

    def _remove(self, field: Relation, referenced: list[Model]) -> list[Model]:
        """Note the rows that go with the referenced ones, and return those not known before."""
        model = field.model
        collected = model in self.deleted and self.decide(model, "delete") is not None
        new: list[Model] = []
        for found in self._referring(field, referenced):
            if collected:
                # Without collect(), which would follow Python's relations: the database does not.
                # A model that waited for itself, Collector.sort() would leave unsorted, with all others.
                source = None if _refers_to_itself(field) else field.remote_field.model
                new += self.collector.add(found, source=source)
                self.deleted_by_either.update({model} if found else ())
            else:
                known = self.removed_by_database[model]
                fresh = {row.pk: row for row in found if row.pk not in known}
                known.update(fresh)
                new += fresh.values()
        return new

    def _change(self, field: Relation, referenced: list[Model]) -> None:
        value = None if field.remote_field.on_delete is _DB_SET_NULL else field._db_default_expression
        batches = list(self._referring(field, referenced))
        for found in batches:
            if len(batches) > 1:
                # Django joins querysets to one, whose parameters may be too many; not lists.
                len(found)
            self.collector.add_field_update(field, value, found)

    def _referring(self, field: Relation, referenced: list[Model]) -> Iterable[QuerySet[Any]]:
        for batch in self.collector.get_del_batches(referenced, [field]):
            yield self.collector.related_objects(field.model, [field], batch)

    def check_after_pre_delete(self) -> None:
        """Have rows stay that receivers of `pre_delete` move away, as the database lets them stay."""
        if self.deleted_by_either or self.former_fast_deletes or self.removed_by_database:
            self.collector.fast_deletes.insert(0, rounds.FirstFastDelete(self._check))

    def _check(self) -> None:
        reached = self._reached()
        data: dict[type[Model], list[Model]] = self.collector.data
        known = [(model, [row.pk for row in found]) for model, found in data.items()]
        known += [(model, [*by_key]) for model, by_key in self.removed_by_database.items()]
        if all(reached[model].keys() >= {*keys} for model, keys in known):
            return
        for model, found in data.items():
            found[:] = [row for row in found if row.pk in reached[model]]
        updates = self.collector.field_updates
        for changed in [key for key in updates if self._is_of_database(key[0])]:
            del updates[changed]
        for model, rows_of in reached.items():
            for field in self.followed[concrete(model)]:
                if rows_of and not _removes(field):
                    self._change(field, [*rows_of.values()])
        _tell_changes(self.collector, self.mixin_options)

    def _reached(self) -> dict[type[Model], dict[Any, Model]]:
        """Return, by key, those of the rows known that the delete leads to as things are now."""
        known: dict[type[Model], dict[Any, Model]] = defaultdict(dict)
        for model, found in self.collector.data.items():
            known[model].update((row.pk, row) for row in found)
        for model, by_key in self.removed_by_database.items():
            known[model].update(by_key)
        reached: dict[type[Model], dict[Any, Model]] = defaultdict(dict)
        pending = [
            (model, {row.pk: row for row in found}) for model, found in self.collected_by_django.items()
        ]
        pending += [
            (queryset.model, _among(known[queryset.model], queryset)) for queryset in self.former_fast_deletes
        ]
        while pending:
            model, found_by_key = pending.pop()
            new = {key: row for key, row in found_by_key.items() if key not in reached[model]}
            reached[model].update(new)
            for field in filter(_removes, self.followed[concrete(model)] if new else ()):
                for referring in self._referring(field, [*new.values()]):
                    pending.append((field.model, _among(known[field.model], referring)))
        return reached

    def _is_of_database(self, field: Relation) -> bool:
        return any(field in followed for followed in self.followed.values())

    def counted(self, deleted: Deleted) -> Deleted:
        """Count the contested rows, also where the database was faster than Django's DELETE."""
        counter = dict(deleted[1])
        for model in self.deleted_by_either:
            if found := self.collector.data[model]:
                label = model._meta.label
                counter[label] = max(counter.get(label, 0), len(found))
        return sum(counter.values()), counter


def _among(known: dict[Any, Model], queryset: QuerySet[Any]) -> dict[Any, Model]:
    """Return those of the rows, by key, that a queryset finds."""
    return {key: known[key] for key in querysets.keys_of(querysets.copied(queryset)) if key in known}


def _is_cascade(field: Any) -> bool:
    return bool(field.is_relation and field.remote_field.on_delete is deletion.CASCADE)


def _refers_to_itself(field: Relation) -> bool:
    return concrete(field.remote_field.model) is concrete(field.model)


def _removes(field: Relation) -> bool:
    return field.remote_field.on_delete is _DB_CASCADE


def _database_relations(
    models: Iterable[type[Model]], connection: BaseDatabaseWrapper
) -> dict[type[Model], list[Relation]]:
    """Return the relations that the database follows, by the models they lead to.

    These are the given models and all from which `DB_CASCADE` removes rows in turn.
    """
    rules = [_DB_CASCADE, _DB_SET_NULL]
    if getattr(connection.features, "supports_on_delete_db_default", False):
        # Elsewhere a model with such a relation has no table.
        rules.append(_DB_SET_DEFAULT)
    found: dict[type[Model], list[Relation]] = {}
    pending = list(models)
    while pending:
        model = pending.pop()
        if model not in found:
            found[model] = _relations_to(model, rules)
            pending += [field.model for field in found[model] if _removes(field)]
    return found


def _relations_to(model: type[Model], rules: Collection[Any]) -> list[Relation]:
    # Those to an ancestor count for the ancestor's row: it may stay.
    candidates: Iterable[Any] = deletion.get_candidate_relations_to_delete(model._meta)
    return [
        related.field
        for related in candidates
        if related.field.remote_field.on_delete in rules and concrete(related.model) is model
    ]
