"""`QuerySet.bulk_create()`, with the signals that a loop of `save(force_insert=True)` sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db.models.signals import pre_save

from signal_patch.dispatch import transactions
from signal_patch.dispatch.operation import BulkSave
from signal_patch.dispatch.progress import in_receivers
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import getter
from signal_patch.dispatch.rows.selection import Batch
from signal_patch.dispatch.signals import in_flight, rounds, sending
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.tracking import Changes
from signal_patch.dispatch.writing.inserting import Inserter
from signal_patch.dispatch.writing.refresh import Written

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

    from signal_patch.dispatch.signals.sending import SavedRow
    from signal_patch.options import Options


def bulk_create(
    queryset: QuerySet[Any],
    objs: Iterable[Any],
    options: Options,
    original: Callable[..., list[Any]],
    **arguments: Any,
) -> list[Any]:
    """Insert the caller's instances and send their signals.

    `original` is Django's own `bulk_create()`, unbound, and gets the caller's other `arguments`. Returns the
    instances. An instance that `ignore_conflicts` leaves out gets no `post_save`. Raises what `original`
    raises, before any signal if it can be known then, and what a receiver raises, with no row inserted.
    """
    if not objs:
        # Django still checks some arguments, and returns what it was given.
        return original(queryset, objs, **arguments)
    given = list(objs)
    instances = sending.instances_of(given)
    # They may be iterators, but are read more than once.
    for name in {"update_fields", "unique_fields"} & arguments.keys():
        arguments[name] = arguments[name] and list(arguments[name])
    senders = sending.senders_of(instances)
    if not sending.has_save_receivers(senders):
        with in_flight.silence(queryset.model):
            return original(queryset, given, **arguments)
    _refuse_arguments(queryset, original, arguments)
    _refuse(instances)
    rounds.check(options, senders)
    using = querysets.database_for_write(queryset)
    operation = BulkCreate(queryset, using, senders, options, original, instances, arguments)
    operation.inserter.refuse_target()
    operation.execute()
    return given


def _refuse_arguments(
    queryset: QuerySet[Any], original: Callable[..., list[Any]], arguments: dict[str, Any]
) -> None:
    """Raise what Django raises for the arguments, whatever the instances.

    Django's method is called without instances, but only with arguments that it may refuse: an override of it
    may look at the first instance.
    """
    upserts = any(arguments.get(name) for name in ("update_conflicts", "update_fields", "unique_fields"))
    size = arguments.get("batch_size")
    is_child = bool(columns.concrete(queryset.model)._meta.parents)
    if upserts or is_child or (size is not None and size <= 0):
        # If an override does look at the first instance and fails, the INSERT refuses the arguments.
        with in_flight.silence(queryset.model), suppress(IndexError):
            original(queryset, _Nothing(), **arguments)


class _Nothing(list[Any]):
    """An empty list that is true, so that Django checks its other arguments and executes nothing."""

    def __bool__(self) -> bool:
        return True


def _refuse(objs: list[Any]) -> None:
    """Raise what Django raises for an object that refers to an unsaved one."""
    for obj in objs:
        # Model._prepare_related_fields_for_save (Django 5.2 to 6.1) looks at cached related objects, and most
        # instances have none.
        if obj._state.__dict__.get("fields_cache"):
            obj._prepare_related_fields_for_save(operation_name="bulk_create")


class BulkCreate(BulkSave[Batch]):
    """The insertion of the caller's instances.

    Its signals have no `update_fields`. The instances of a batch may not have keys yet.
    """

    name = "bulk_create"

    def __init__(
        self,
        queryset: QuerySet[Any],
        using: str,
        senders: list[type[Model]],
        options: Options,
        original: Callable[..., list[Any]],
        objs: list[Any],
        arguments: dict[str, Any],
    ) -> None:
        super().__init__(queryset, using, senders, options, original)
        self.objs = objs
        self.inserter = Inserter(self, arguments)

    def begin(self) -> None:
        transactions.begin_write(self.using, transactions.INSERT, columns.first_written(self.model, ()))
        self.inserter.lock_conflicting_rows(self.objs)

    @property
    def total(self) -> int:
        return len(self.objs)

    def batches(self) -> Iterator[Batch]:
        objs, size = self.objs, self.options.batch_size
        if len(objs) > size:
            # Instances with a key come first, as in Django: the database must not generate a key that the
            # caller has given to a later instance.
            objs = sorted(objs, key=lambda obj: not obj._is_pk_set())
        for start in range(0, len(objs), size):
            batch = objs[start : start + size]
            yield Batch(self._keys(batch), batch)

    def _keys(self, objs: list[Any]) -> list[Any]:
        return in_flight.stored_keys(self.model, map(getter(self.model), objs))

    def new_flight(self, batch: Batch) -> in_flight.Flight:
        batch.to_signal = batch.pairs
        if in_flight.is_any_in_flight(self.using, self.model):
            held = in_flight.keys_in_flight(self.using, self.model, batch.keys)
            batch.to_signal = [
                (key, obj)
                for key, obj in batch.pairs
                if key not in held and not self._updates_one_in_flight(obj)
            ]
        return in_flight.flight_of(self.using, {self.model: filter(in_flight.is_key, batch.keys)})

    def _updates_one_in_flight(self, obj: Any) -> bool:
        if not self.inserter.updates:
            return False
        return bool(in_flight.keys_in_flight(self.using, self.model, self.inserter.conflicting_keys(obj)))

    def assign(self, batch: Batch) -> None:
        """Assign nothing: receivers see the instances as the caller gives them."""

    @in_receivers()
    def send_pre_save(self, batch: Batch) -> dict[Any, Changes]:
        objs = [obj for _, obj in batch.to_signal]
        self.rounds.begin_batch_of_new(objs)
        with self.rounds.open(pre_save):
            sending.send_each(pre_save, self.senders, self.using, self._each_in_flight(objs))
        # The INSERT writes all fields, so no comparison is needed.
        return {}

    def _each_in_flight(self, objs: list[Any]) -> Iterator[SavedRow]:
        for obj in objs:
            # A receiver may give the instance its key.
            self.flight.instance = obj
            yield obj, None, False

    def write(self, batch: Batch, _changes: dict[Any, Changes]) -> Written:
        inserted = self.inserter.insert(batch.instances)
        return Written(len(inserted), inserted=inserted)

    def refresh(self, _batch: Batch, written: Written) -> list[SavedRow]:
        # The INSERT has already set the values that the rows hold.
        return [(obj, None, created) for obj, created in written.inserted]

    def send_post_save(self, saved: list[SavedRow]) -> int:
        keys = self._keys([obj for obj, *_ in saved])
        already_in_flight = in_flight.keys_in_flight(self.using, self.model, keys, besides=self.flight)
        if already_in_flight:
            saved = [row for key, row in zip(keys, saved, strict=True) if key not in already_in_flight]
        # The rows have their keys now, and rows that were left out are no longer in flight.
        self.flight.hold_only(self.model, keys)
        if self.hears_post_save:
            self.rounds.continue_batch_of_new(obj for obj, *_ in saved)
        return super().send_post_save(saved)
