"""`QuerySet.bulk_create()`, as a loop of `save(force_insert=True)` would tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.db import transaction
from django.db.models.signals import post_save, pre_save

from signal_patch.dispatch import transactions
from signal_patch.dispatch.progress import in_receivers, reporting
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.signals import in_flight, loops, rounds, sending
from signal_patch.dispatch.telling import tell_after
from signal_patch.dispatch.values.columns import first_written
from signal_patch.dispatch.writing.inserting import Inserter

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

    from signal_patch.dispatch.telling import Told
    from signal_patch.options import Options


def bulk_create(
    queryset: QuerySet[Any],
    objs: Iterable[Any],
    options: Options,
    original: Callable[..., list[Any]],
    **arguments: Any,
) -> list[Any]:
    """Insert the caller's instances and send their signals.

    `original` is Django's own `bulk_create()`, unbound, and gets the caller's other
    `arguments`. Returns the instances. One that is left out by `ignore_conflicts` gets no
    `post_save`. Raises what `original` raises, before any signal where it can be known
    then, and whatever a receiver raises, with no row inserted.
    """
    if not objs:
        # Django checks some arguments, and returns what it was given.
        return original(queryset, objs, **arguments)
    given = list(objs)
    instances = sending.instances_of(given)
    # They are read more than once.
    for name in {"update_fields", "unique_fields"} & arguments.keys():
        arguments[name] = arguments[name] and list(arguments[name])
    senders = sending.senders_of(instances)
    if not sending.hears_saves(senders):
        with in_flight.silence(queryset.model):
            return original(queryset, given, **arguments)
    if _is_doubtful(queryset.model, arguments):
        _refuse_arguments(queryset, original, arguments)
    _refuse(instances)
    rounds.check(options, senders)
    operation = _BulkCreate(queryset, senders, options, original, arguments)
    operation.inserter.refuse_target()
    with transaction.atomic(using=operation.using, savepoint=False):
        transactions.begin_write(operation.using, transactions.INSERT, first_written(queryset.model, ()))
        loops.run(lambda: operation.run(instances), (pre_save, post_save), senders)
    return given


def _is_doubtful(model: Any, arguments: dict[str, Any]) -> bool:
    """Return whether Django may refuse the arguments, whatever the instances.

    If not, whoever is beneath is called with instances only: an override may look at the first.
    """
    upserts = any(arguments.get(name) for name in ("update_conflicts", "update_fields", "unique_fields"))
    size = arguments.get("batch_size")
    is_child = bool(model._meta.concrete_model._meta.parents)
    return upserts or is_child or (size is not None and size <= 0)


def _refuse_arguments(
    queryset: QuerySet[Any], original: Callable[..., list[Any]], arguments: dict[str, Any]
) -> None:
    # An override beneath that looks at the first instance leaves it to the INSERT to refuse.
    with in_flight.silence(queryset.model), suppress(IndexError):
        original(queryset, _Nothing(), **arguments)


class _Nothing(list[Any]):
    """No instance, and yet true: Django checks its other arguments and executes nothing."""

    def __bool__(self) -> bool:
        return True


def _refuse(objs: list[Any]) -> None:
    """Raise what Django raises for an object that refers to an unsaved one."""
    for obj in objs:
        # Model._prepare_related_fields_for_save, Django 5.2 to 6.1, looks at related objects
        # that are cached, and most instances have none.
        if obj._state.__dict__.get("fields_cache"):
            obj._prepare_related_fields_for_save(operation_name="bulk_create")


class _BulkCreate:
    def __init__(
        self,
        queryset: QuerySet[Any],
        senders: list[type[Model]],
        options: Options,
        original: Callable[..., list[Any]],
        arguments: dict[str, Any],
    ) -> None:
        self.model = queryset.model
        self.options = options
        self.using = querysets.database_for_write(queryset)
        self.inserter = Inserter(queryset, self.using, options, original, arguments)
        self.rounds = rounds.Rounds(self.using, options, senders)
        self.key_of: Callable[[Any], Any] = attrgetter(self.model._meta.pk.attname)
        self.awaits_pre_save = sending.is_awaited(pre_save, senders)
        self.awaits_post_save = sending.is_awaited(post_save, senders)

    def run(self, objs: list[Any]) -> None:
        done = 0
        with reporting("bulk_create", self.model, self.using, self.options.progress) as report:
            report.begin(len(objs))
            for batch in self._batches(objs):
                self._process(batch)
                done += len(batch)
                report(done, len(objs))

    def _batches(self, objs: list[Any]) -> Iterator[list[Any]]:
        size = self.options.batch_size
        if len(objs) > size:
            # As Django does, those with a key first: a new key must not be one that the caller
            # gives to a later instance.
            objs = sorted(objs, key=lambda obj: not obj._is_pk_set())
        for start in range(0, len(objs), size):
            yield objs[start : start + size]

    def _process(self, batch: list[Any]) -> None:
        self._tell_before(batch)
        written = self.inserter.insert(batch)
        keys = self._keys(obj for obj, _ in written)
        already_in_flight = in_flight.keys_in_flight(self.using, self.model, keys)
        if already_in_flight:
            written = [pair for key, pair in zip(keys, written, strict=True) if key not in already_in_flight]
        self._tell_after(written, keys)

    @in_receivers
    def _tell_after(self, written: list[tuple[Any, bool]], keys: list[Any]) -> None:
        flight = in_flight.flight_of(self.using, {self.model: keys})
        with in_flight.flying(flight):
            told: Told = [(obj, None, created) for obj, created in written]
            with self.rounds.open(post_save):
                tell_after(told, self.using, flight, awaited=self.awaits_post_save)

    @in_receivers
    def _tell_before(self, batch: list[Any]) -> None:
        given = self._keys(batch)
        keys = [key for key in given if in_flight.is_key(key)]
        already_in_flight = (
            self._already_in_flight(batch, given)
            if in_flight.is_any_in_flight(self.using, self.model)
            else ()
        )
        flight = in_flight.flight_of(self.using, {self.model: keys})
        with in_flight.flying(flight):
            to_signal = [obj for obj in batch if id(obj) not in already_in_flight]
            self.rounds.begin_batch(to_signal)
            with self.rounds.open(pre_save):
                if self.awaits_pre_save:
                    async_to_sync(self._await_sent)(to_signal, flight)
                else:
                    self._send(to_signal, flight)

    def _send(self, objs: list[Any], flight: in_flight.Flight) -> None:
        for obj in objs:
            # Its receivers may give it a key.
            flight.instance = obj
            sending.send_pre_save(obj, self.using, None)

    async def _await_sent(self, objs: list[Any], flight: in_flight.Flight) -> None:
        """Do as `_send`, all in one coroutine."""
        for obj in objs:
            flight.instance = obj
            await sending.asend_pre_save(obj, self.using, None)

    def _keys(self, objs: Iterable[Any]) -> list[Any]:
        return in_flight.stored_keys(self.model, map(self.key_of, objs))

    def _already_in_flight(self, batch: list[Any], keys: list[Any]) -> set[int]:
        """Return which instances stand for a row whose signals are being sent up the stack."""
        held = in_flight.keys_in_flight(self.using, self.model, keys)
        return {
            id(obj)
            for key, obj in zip(keys, batch, strict=True)
            if key in held or self._is_update_of_flying(obj)
        }

    def _is_update_of_flying(self, obj: Any) -> bool:
        if not self.inserter.updates:
            return False
        return bool(in_flight.keys_in_flight(self.using, self.model, self.inserter.rivals(obj)))
