"""Rows that the database removes or changes by itself during a delete (Django 6.1).

A foreign key with `DB_CASCADE`, `DB_SET_NULL` or `DB_SET_DEFAULT` leaves the cascade to the database, which
sends no signals. If there are receivers, the rows are added to Django's `Collector`. Then Django deletes or
updates them, with signals, before the database would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import deletion

from signal_patch.dispatch import cascade_updates, transactions
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.signals import rounds, sending
from signal_patch.dispatch.values.columns import concrete

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.db.models.deletion import Collector

    from signal_patch.dispatch.cascade_updates import MixinOptions
    from signal_patch.options import Options

    Relation = Any  # a ForeignKey; Django's stubs do not know those of Django 6.1 yet
    Decide = Callable[[type[Model], str], Options | None]
    Deleted = tuple[int, dict[str, int]]
    RowsByKey = dict[Any, Model]

# Before Django 6.1 these rules do not exist, so no relation has one of them.
_DB_CASCADE = getattr(deletion, "DB_CASCADE", object())
_DB_SET_NULL = getattr(deletion, "DB_SET_NULL", object())
_DB_SET_DEFAULT = getattr(deletion, "DB_SET_DEFAULT", object())


class DatabaseRelations:
    """The relations that the database follows during a delete, and those among them that matter to receivers.

    `by_model` holds all of them, by the model that they refer to. `followed` holds those whose rows must be
    looked up, because these rows, or rows that depend on them, have receivers. `collected` are the models
    whose rows are added to the collector, so that Django deletes them.
    """

    def __init__(self, collector: Collector, decide: Decide) -> None:
        self.collector: Any = collector
        self.decide = decide
        self.by_model = self._by_model()
        self.followed: dict[type[Model], list[Relation]] = {}
        self.collected: set[type[Model]] = set()
        if any(self.by_model.values()):
            heard = {model for model in self.by_model if self._is_heard(model)}
            self.collected = {
                model for model in self._leading_to(heard) if self.decide(model, "delete") is not None
            }
            self.followed = self._followed(heard)

    def _by_model(self) -> dict[type[Model], list[Relation]]:
        """Return the relations to the collected models, and to the models that `DB_CASCADE` then affects."""
        rules = [_DB_CASCADE, _DB_SET_NULL]
        if getattr(connections[self.collector.using].features, "supports_on_delete_db_default", False):
            # Other databases cannot create a table with such a relation.
            rules.append(_DB_SET_DEFAULT)
        models = [*self.collector.data, *(queryset.model for queryset in self.collector.fast_deletes)]
        found: dict[type[Model], list[Relation]] = {}
        pending = [concrete(model) for model in models]
        while pending:
            model = pending.pop()
            if model not in found:
                candidates: Iterable[Any] = deletion.get_candidate_relations_to_delete(model._meta)
                found[model] = [
                    related.field
                    for related in candidates
                    # Relations to an ancestor are candidates too, but apply when the ancestor's row is
                    # removed.
                    if related.field.remote_field.on_delete in rules and concrete(related.model) is model
                ]
                pending += [field.model for field in found[model] if _removes(field)]
        return found

    def _followed(self, heard: set[type[Model]]) -> dict[type[Model], list[Relation]]:
        """Return the relations that lead to rows whose delete or change has receivers.

        The referenced rows are needed to find the rows that change. The changed rows are needed as well,
        because a row that the same delete also removes sends no signals for the change.
        """
        changes = [
            field
            for fields in self.by_model.values()
            for field in fields
            if not _removes(field) and self._is_heard_to_change(field)
        ]
        updated = [field for field, _ in self.collector.field_updates if self._is_heard_to_change(field)]
        referenced = {concrete(field.remote_field.model) for field in changes}
        changed = {field.model for field in (*changes, *updated)} & self.by_model.keys()
        wanted = self._leading_to(heard | referenced | changed)
        return {
            model: [
                field for field in fields if field in changes or (_removes(field) and field.model in wanted)
            ]
            for model, fields in self.by_model.items()
        }

    def _leading_to(self, models: set[type[Model]]) -> set[type[Model]]:
        """Return these models, and those whose removal makes the database remove rows of these models."""
        found = set(models)
        while True:
            more = {
                model
                for model, fields in self.by_model.items()
                if any(_removes(field) and field.model in found for field in fields)
            }
            if more <= found:
                return found
            found |= more

    def _is_heard(self, model: type[Model]) -> bool:
        if model._meta.auto_created or self.decide(model, "delete") is None:
            return False
        return sending.has_delete_receivers([model])

    def _is_heard_to_change(self, field: Relation) -> bool:
        """Return whether updates because of this relation have receivers."""
        if self.decide(field.model, "update") is None:
            return False
        return sending.has_save_receivers(sending.senders(field.model._base_manager.all()))

    def models_with_removed_rows(self) -> set[type[Model]]:
        """Return the models whose rows the database may remove."""
        return {field.model for fields in self.by_model.values() for field in fields if _removes(field)}


class DatabaseCascade:
    """Finds the rows that the database would remove or change, and adds them to the collector.

    `collected_by_django` are the rows that were in the collector before. `former_fast_deletes` are copies of
    querysets that Django would have deleted with one statement after `pre_delete`; their rows are collected
    now, because other rows depend on them. `removed_by_database` are rows, by key, that have no receivers but
    on which other rows depend; the database removes them. `deleted_by_either` are the models of the rows that
    were added: Django deletes these, unless the database has already removed them along with another row.

    (Collector.add, add_dependency, add_field_update, get_del_batches, related_objects and force_collection,
    Django 6.1.)
    """

    def __init__(self, collector: Collector, relations: DatabaseRelations) -> None:
        # Django's stubs do not know the collector of Django 6.1 yet.
        self.collector: Any = collector
        self.relations = relations
        self.followed = relations.followed
        self.collected_by_django: dict[type[Model], list[Model]] = {}
        self.former_fast_deletes: list[QuerySet[Any]] = []
        self.removed_by_database: dict[type[Model], RowsByKey] = defaultdict(dict)
        self.deleted_by_either: set[type[Model]] = set()

    def collect(self) -> None:
        """Follow the relations from the rows in the collector, and add the rows that are found."""
        if not any(self.followed.values()):
            return
        self._begin_write()
        self.collected_by_django = {model: list(found) for model, found in self.collector.data.items()}
        self._collect_fast_deletes()
        # Otherwise Django deletes a single object at once and ignores the other rows in the collector.
        self.collector.force_collection = True
        pending = [(model, list(found)) for model, found in self.collector.data.items() if found]
        while pending:
            model, found = pending.pop()
            for field in self.followed[concrete(model)]:
                if not _removes(field):
                    self.change(field, found)
                elif removed := self._remove(field, found):
                    pending.append((field.model, removed))

    def _begin_write(self) -> None:
        # Outside a transaction, Django has read the rows without a lock, and this does the same.
        if connections[self.collector.using].in_atomic_block:
            key = fields_of(next(iter(self.followed)))[0]
            transactions.begin_write(self.collector.using, transactions.DELETE, key)

    def _collect_fast_deletes(self) -> None:
        """Collect the rows of fast deletes on which other rows with receivers depend."""
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
        """Note the rows that the database removes along with the referenced ones; return the new ones."""
        model = field.model
        new: list[Model] = []
        for found in self.referring(field, referenced):
            if model in self.relations.collected:
                # add() and not collect(), which would also apply CASCADE and the other rules of Python.
                # Collector.sort() gives up if a model depends on itself.
                source = None if _refers_to_itself(field) else field.remote_field.model
                new += self.collector.add(found, source=source)
                self.deleted_by_either.update({model} if found else ())
            else:
                known = self.removed_by_database[model]
                fresh = {row.pk: row for row in found if row.pk not in known}
                known.update(fresh)
                new += fresh.values()
        return new

    def change(self, field: Relation, referenced: list[Model]) -> None:
        """Make Django update the rows that refer to these, in place of the database."""
        value = None if field.remote_field.on_delete is _DB_SET_NULL else field._db_default_expression
        batches = list(self.referring(field, referenced))
        for found in batches:
            if len(batches) > 1:
                # Django would merge these querysets into one with too many parameters. It does not merge
                # loaded ones.
                len(found)
            self.collector.add_field_update(field, value, found)

    def referring(self, field: Relation, referenced: list[Model]) -> Iterable[QuerySet[Any]]:
        """Yield querysets of the rows that refer to these, in as few batches as the database allows."""
        for batch in self.collector.get_del_batches(referenced, [field]):
            yield self.collector.related_objects(field.model, [field], batch)

    def may_lose_rows(self) -> bool:
        """Return whether receivers of `pre_delete` might move rows found here out of the delete's reach."""
        return bool(self.deleted_by_either or self.former_fast_deletes or self.removed_by_database)

    def counted(self, deleted: Deleted) -> Deleted:
        """Return the result of `Collector.delete()`, including rows that the database removed first."""
        counter = dict(deleted[1])
        for model in self.deleted_by_either:
            if found := self.collector.data[model]:
                label = model._meta.label
                counter[label] = max(counter.get(label, 0), len(found))
        return sum(counter.values()), counter


class CheckAfterPreDelete(rounds.FirstFastDelete):
    """Removes from the delete the rows that receivers of `pre_delete` have moved out of its reach.

    The database looks up the rows that refer to a deleted row at the moment of deleting it. If such a row
    refers to another row by then, the database keeps it; so it must not be deleted here.
    """

    def __init__(self, cascade: DatabaseCascade, mixin_options: MixinOptions) -> None:
        super().__init__(self._check)
        self.cascade = cascade
        self.collector = cascade.collector
        self.mixin_options = mixin_options

    def _check(self) -> None:
        known = self._known()
        reached = self._reached(known)
        if all(reached[model].keys() >= rows.keys() for model, rows in known.items()):
            return
        for model, found in self.collector.data.items():
            found[:] = [row for row in found if row.pk in reached[model]]
        self._collect_changes_anew(reached)
        cascade_updates.send_signals(self.collector, self.mixin_options)

    def _collect_changes_anew(self, reached: dict[type[Model], RowsByKey]) -> None:
        updates = self.collector.field_updates
        by_database = {field for fields in self.cascade.followed.values() for field in fields}
        for changed in [key for key in updates if key[0] in by_database]:
            del updates[changed]
        for model, rows in reached.items():
            for field in self.cascade.followed[concrete(model)]:
                if rows and not _removes(field):
                    self.cascade.change(field, [*rows.values()])

    def _known(self) -> dict[type[Model], RowsByKey]:
        known: dict[type[Model], RowsByKey] = defaultdict(dict)
        for model, found in self.collector.data.items():
            known[model].update((row.pk, row) for row in found)
        for model, rows in self.cascade.removed_by_database.items():
            known[model].update(rows)
        return known

    def _reached(self, known: dict[type[Model], RowsByKey]) -> dict[type[Model], RowsByKey]:
        """Return the known rows that the delete still reaches."""
        reached: dict[type[Model], RowsByKey] = defaultdict(dict)
        pending = [
            (model, {row.pk: row for row in found})
            for model, found in self.cascade.collected_by_django.items()
        ]
        pending += [
            (queryset.model, _found_by(queryset, known[queryset.model]))
            for queryset in self.cascade.former_fast_deletes
        ]
        while pending:
            model, rows = pending.pop()
            new = {key: row for key, row in rows.items() if key not in reached[model]}
            reached[model].update(new)
            for field in filter(_removes, self.cascade.followed[concrete(model)] if new else ()):
                for referring in self.cascade.referring(field, [*new.values()]):
                    pending.append((field.model, _found_by(referring, known[field.model])))
        return reached


def _found_by(queryset: QuerySet[Any], known: RowsByKey) -> RowsByKey:
    """Return the known rows that a queryset finds."""
    return {key: known[key] for key in querysets.keys_of(querysets.copied(queryset)) if key in known}


def _is_cascade(field: Any) -> bool:
    return bool(field.is_relation and field.remote_field.on_delete is deletion.CASCADE)


def _refers_to_itself(field: Relation) -> bool:
    return concrete(field.remote_field.model) is concrete(field.model)


def _removes(field: Relation) -> bool:
    return field.remote_field.on_delete is _DB_CASCADE
