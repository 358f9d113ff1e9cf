"""`Collector.delete()`, by which Django deletes, and `QuerySet.delete()` in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import QuerySet, deletion
from django.db.models.signals import post_delete, pre_delete

from signal_patch.dispatch import cascade_updates, commits, transactions
from signal_patch.dispatch.database_cascade import CheckAfterPreDelete, DatabaseCascade, DatabaseRelations
from signal_patch.dispatch.progress import current_report, reporting
from signal_patch.dispatch.rows import choosing, querysets
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.rows.ranges import between, refusals
from signal_patch.dispatch.signals import in_flight, loops, rounds, sending

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.deletion import Collector

    from signal_patch.dispatch.cascade_updates import MixinOptions
    from signal_patch.dispatch.database_cascade import Decide, Deleted
    from signal_patch.options import Options


_REMOVING = (deletion.CASCADE, getattr(deletion, "DB_CASCADE", deletion.CASCADE))  # Django 6.1
_KEEPING = (*_REMOVING, deletion.PROTECT, deletion.RESTRICT, deletion.DO_NOTHING)


def delete(
    collector: Collector,
    decide: Decide,
    mixin_options: MixinOptions,
    original: Callable[[Collector], Deleted],
) -> Deleted:
    """Delete what Django has collected, and send the signals of rows that the database removes or changes.

    `original` is Django's own `Collector.delete()`, unbound. It sends the signals of all rows in the
    collector, so the rows that the database would remove or change by itself are added to the collector
    first. `decide` returns the options with which an operation on a model's rows sends signals, or None.
    `mixin_options` returns the options for a queryset without the mixin whose model's default manager has it,
    or None.
    """
    relations = DatabaseRelations(collector, decide)
    with _transaction(collector.using, {*collector.data, *relations.by_model}):
        cascade = DatabaseCascade(collector, relations)
        cascade.collect()
        cascade_updates.send_signals(collector, mixin_options)
        flight = in_flight.flight_of_delete(
            collector, cascade.removed_by_database, relations.models_with_removed_rows()
        )
        with in_flight.flying(flight):
            if cascade.may_lose_rows() and sending.has_receivers(pre_delete, collector.data):
                cascade.collector.fast_deletes.insert(0, CheckAfterPreDelete(cascade, mixin_options))
            deleted = _run(collector, decide, original)
        return cascade.counted(deleted) if cascade.deleted_by_either and not flight.deletions else deleted


def _transaction(using: str, models: Collection[type[Model]]) -> AbstractContextManager[Any]:
    """Open a transaction around a delete that sends signals; Django opens its own too late.

    Hooks of `on_commit()` run at the end of this block, when the rows are no longer in flight.
    """
    if sending.has_delete_receivers(models):
        return transaction.atomic(using=using, savepoint=False)
    return nullcontext()


def _run(collector: Collector, decide: Decide, original: Callable[[Collector], Deleted]) -> Deleted:
    """Run Django's own delete, and report it if it is the delete of a queryset."""
    origin: Any = collector.origin
    if not isinstance(origin, QuerySet) or decide(origin.model, "delete") is None:
        return _run_in_rounds(collector, decide, original)
    heard = {model: found for model, found in collector.data.items() if sending.has_delete_receivers([model])}
    in_batches = current_report("delete", origin.model)
    if in_batches is not None:
        in_batches.senders.update(dict.fromkeys(heard))
    if not heard or in_batches is not None:
        return _run_in_rounds(collector, decide, original)
    total = sum(map(len, heard.values()))
    with reporting("delete", origin.model, collector.using) as report:
        report.senders.update(dict.fromkeys(heard))
        report.begin(total)
        deleted = _run_in_rounds(collector, decide, original)
        report(total, total)
    return deleted


def _run_in_rounds(collector: Collector, decide: Decide, original: Callable[[Collector], Deleted]) -> Deleted:
    def run() -> Deleted:
        with _rounds(collector, decide):
            return original(collector)

    return loops.run(run, (pre_delete, post_delete), collector.data)


def _rounds(collector: Collector, decide: Decide) -> AbstractContextManager[Any]:
    """Open the rounds of a delete, with the options of the first model that Django collected."""
    options = {model: decide(model, "delete") for model in collector.data}
    on = {model: given for model, given in options.items() if given is not None}
    if not on:
        return nullcontext()
    return rounds.Rounds(collector.using, next(iter(on.values())), [*on]).open_delete(collector)


def delete_queryset(queryset: QuerySet[Any], options: Options, original: Callable[..., Deleted]) -> Deleted:
    """Delete the rows of a queryset: in one transaction or in several, all at once or in batches.

    `original` is Django's own `delete()`, unbound; it sends the signals. Returns the sum of what it
    returns, and raises what it raises.
    """
    using = querysets.database_for_write(queryset)
    in_transactions = not options.atomic and _may_be_heard(queryset) and commits.are_asked_for(options, using)
    if not in_transactions and options.delete_batch_size is None:
        return original(queryset)
    # What Django refuses (a slice, for example) is refused first, with no row deleted.
    by_model: Counter[str] = Counter(original(querysets.empty(queryset))[1])

    def delete_keys(keys: list[Any]) -> None:
        by_model.update(original(querysets.with_keys(querysets.all_rows(queryset, using), keys))[1])

    if in_transactions:
        _delete_in_transactions(queryset, using, options, delete_keys)
    else:
        _delete_in_batches(queryset, using, options, delete_keys)
    queryset._result_cache = None
    return by_model.total(), dict(by_model)


def _may_be_heard(queryset: QuerySet[Any]) -> bool:
    """Return whether somebody listens to what a delete of such rows removes or, further down, changes.

    (Options.all_parents and private_fields, deletion.get_candidate_relations_to_delete, Django 5.2 to 6.1.)
    """
    reached: set[Any] = set()
    found: set[Any] = {*sending.senders(queryset)}
    while found:
        reached |= found
        relations: list[Any] = [
            relation
            for model in found
            for relation in deletion.get_candidate_relations_to_delete(model._meta)
        ]
        changed = [relation.related_model for relation in relations if relation.on_delete not in _KEEPING]
        if sending.has_delete_receivers(found) or sending.has_save_receivers(changed):
            return True
        removed = [relation.related_model for relation in relations if relation.on_delete in _REMOVING]
        generic = [
            field.remote_field.model
            for model in found
            for field in model._meta.private_fields
            if hasattr(field, "bulk_related_objects")
        ]
        parents = [parent for model in found for parent in model._meta.all_parents]
        found = {*removed, *generic, *parents} - reached
    return False


def _delete_in_transactions(
    queryset: QuerySet[Any], using: str, options: Options, delete_keys: Callable[[list[Any]], None]
) -> None:
    """Delete the rows batch by batch, each in a transaction of its own."""
    commits.refuse(queryset, "delete", refusals(queryset))
    lock = querysets.locks_rows(options, using)

    def delete_batch(keys: list[Any], after: Any) -> int:
        if lock and keys:
            keys = querysets.keys_of(commits.chosen(between(queryset, after, keys[-1]), using, lock=True))
        delete_keys(keys)
        return len(keys)

    field = fields_of(queryset.model)[0]
    batches = commits.Batches("delete", queryset, using, options, transactions.DELETE, field)
    batches.run(delete_batch, options.delete_batch_size or options.batch_size)


def _delete_in_batches(
    queryset: QuerySet[Any], using: str, options: Options, delete_keys: Callable[[list[Any]], None]
) -> None:
    """Delete the rows, `delete_batch_size` at a time, in one transaction.

    Django loads all rows of a delete, and all rows that it cascades to, before it deletes the first one. With
    batches, only the rows of one batch are in memory. This is an option, because it makes two differences:
    RESTRICT refuses a row whose other parent would be deleted in a later batch, and the signals' `origin` is
    the queryset of the batch.
    """
    size: Any = options.delete_batch_size
    reported = reporting("delete", queryset.model, using, options.progress)
    with transaction.atomic(using=using, savepoint=False), reported as report:
        transactions.begin_write(using, transactions.DELETE, fields_of(queryset.model)[0])
        keys = querysets.keys_of(choosing.chosen(queryset, using))
        report.begin(len(keys))
        for start in range(0, len(keys), size):
            batch = keys[start : start + size]
            delete_keys(batch)
            report(start + len(batch), len(keys))
