"""Who listens, the signals of one instance, and which rows are in flight.

The two context variables below hold immutable values only, and follow the flow of
control into awaited coroutines and `sync_to_async`; they are part of a call under way,
not of the switch, and are as they were when the call ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models import QuerySet
from django.db.models.signals import ModelSignal, post_save, pre_save

from .fields import concrete

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.deletion import Collector

_flights: ContextVar[tuple[Flight, ...]] = ContextVar("signal_patch_flights", default=())
_silent: ContextVar[bool] = ContextVar("signal_patch_silent", default=False)


class Flight:
    """Rows of one database whose signals are being sent at this moment.

    `keys` holds primary keys by concrete model. `instance` stands for a row whose key is
    read when somebody asks, because an INSERT sets it between its two signals.
    """

    __slots__ = ("deletions", "instance", "keys", "using")

    def __init__(
        self,
        using: str,
        keys: dict[type[Model], set[Any]],
        instance: Model | None = None,
    ) -> None:
        self.using = using
        self.keys = keys
        self.instance = instance
        self.deletions = 0

    def holds(self, model: type[Model], keys: Iterable[Any]) -> set[Any]:
        """Return those of the keys of a concrete model that are in this flight."""
        if self.instance is not None:
            same = self.instance._meta.concrete_model is model
            return {key for key in keys if same and key == self.instance.pk}
        held = self.keys.get(model)
        return held.intersection(keys) if held else set()


def in_flight(using: str, model: type[Model], keys: Collection[Any]) -> set[Any]:
    """Return those of the keys whose row is having its signals sent right now.

    Such a row was loaded by somebody up the stack, who will tell its receivers; telling
    them again would make `Model.objects.filter(pk=instance.pk).update(…)` in a receiver,
    written in order not to recurse, recurse.
    """
    held: set[Any] = set()
    for flight in _flights.get():
        if flight.using == using:
            held |= flight.holds(concrete(model), keys)
    return held


@contextmanager
def flying(flight: Flight) -> Iterator[Flight]:
    """Hold rows in flight for the length of the block."""
    outer = _flights.get()
    _flights.set((*outer, flight))
    try:
        yield flight
    finally:
        _flights.set(outer)


def flight_of(using: str, model: type[Model], keys: Iterable[Any]) -> Flight:
    """Return a flight of rows of one model, to be held with `flying`."""
    return Flight(using, {concrete(model): set(keys)})


@contextmanager
def saving(instance: Model, using: str) -> Iterator[None]:
    """Mark the row of a `Model.save()` as in flight while Django sends its signals."""
    with flying(Flight(using, {}, instance)):
        yield


@contextmanager
def deleting(collector: Collector) -> Iterator[None]:
    """Mark the rows that a delete has collected as in flight while Django deletes them."""
    keys: dict[type[Model], set[Any]] = {}
    for model, instances in collector.data.items():
        keys.setdefault(concrete(model), set()).update(instance.pk for instance in instances)
    try:
        with flying(Flight(collector.using, keys)):
            yield
    finally:
        _note_deletion(collector.using)


def _note_deletion(using: str) -> None:
    for flight in _flights.get():
        if flight.using == using:
            flight.deletions += 1


@contextmanager
def silence() -> Iterator[None]:
    """Let Django's own statements through for the length of the block, patched or not."""
    outer = _silent.get()
    _silent.set(True)
    try:
        yield
    finally:
        _silent.set(outer)


def is_silent() -> bool:
    """Return True while this library runs a statement of its own."""
    return _silent.get()


def has_listeners(signal: ModelSignal, queryset: QuerySet[Any]) -> bool:
    """Return whether a live receiver would hear the signal for a row of the queryset.

    A queryset of a polymorphic library yields instances of the model's subclasses, and
    these are the senders.
    """
    model = queryset.model
    if signal.has_listeners(model):
        return True
    return _yields_subclasses(queryset) and any(
        signal.has_listeners(subclass) for subclass in apps.get_models() if issubclass(subclass, model)
    )


def _yields_subclasses(queryset: QuerySet[Any]) -> bool:
    # Whoever turns rows into other classes does so in an iterable class of their own, set
    # by an __init__ of their own (QuerySet._iterable_class, Django 5.2 to 6.1).
    if type(queryset).__init__ is not QuerySet.__init__:
        queryset = type(queryset)(queryset.model)
    return not queryset._iterable_class.__module__.startswith("django.")


def hearing(queryset: QuerySet[Any]) -> Callable[[ModelSignal], bool]:
    """Return what says whether a signal would be heard for a row of the queryset."""
    return partial(has_listeners, queryset=queryset)


def hearing_of(instances: Iterable[Model]) -> Callable[[ModelSignal], bool]:
    """Return what says whether a signal would be heard for any of the instances."""
    senders = {type(instance) for instance in instances if not instance._meta.auto_created}
    return lambda signal: any(signal.has_listeners(sender) for sender in senders)


def hears_saves(queryset: QuerySet[Any]) -> bool:
    """Return whether somebody listens to the saves of the queryset's rows."""
    if queryset.model._meta.auto_created:
        return False
    return has_listeners(pre_save, queryset) or has_listeners(post_save, queryset)


def send_pre_save(instance: Model, using: str, update_fields: frozenset[str] | None) -> None:
    """Send `pre_save` with the arguments of `Model.save_base`."""
    pre_save.send(
        sender=type(instance),
        instance=instance,
        raw=False,
        using=using,
        update_fields=update_fields,
    )


def send_post_save(
    instance: Model, using: str, update_fields: frozenset[str] | None, *, created: bool = False
) -> None:
    """Send `post_save` with the arguments of `Model.save_base`."""
    post_save.send(
        sender=type(instance),
        instance=instance,
        created=created,
        update_fields=update_fields,
        raw=False,
        using=using,
    )
