"""Who listens, the signals of one instance, and which rows are in flight.

The two context variables below hold immutable values only, and follow the flow of
control into awaited coroutines and `sync_to_async`; they are part of a call under way,
not of the switch, and are as they were when the call ends.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import IntegerField, Model, QuerySet
from django.db.models.signals import ModelSignal, post_save, pre_save

from .fields import concrete
from .rows import is_djangos

if TYPE_CHECKING:
    from django.db.models.deletion import Collector

    from .rounds import Round

_flights: ContextVar[tuple[Flight, ...]] = ContextVar("signal_patch_flights", default=())
_silent: ContextVar[frozenset[type[Model]]] = ContextVar("signal_patch_silent", default=frozenset())


class Flight:
    """Rows of one database whose signals are being sent at this moment.

    `keys` holds primary keys by concrete model. `instance` stands for one more row, whose
    key is read when somebody asks: an INSERT sets it between its two signals, or a receiver.
    """

    __slots__ = ("deletions", "instance", "keys", "round", "using")

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
        # The round that sends the signals of these rows, if somebody takes part in it (rounds.py).
        self.round: Round | None = None

    def holds(self, model: type[Model], keys: Iterable[Any]) -> set[Any]:
        """Return those of the keys of a concrete model that are in this flight."""
        own = self.keys.get(model)
        held = own & _hashable(keys) if own else set()
        if self.instance is not None and self._has_instance_of(model):
            (stored,) = stored_keys(model, [self.instance.pk])
            held |= {key for key in keys if key == stored and is_key(key)}
        return held

    def speaks_of(self, model: type[Model]) -> bool:
        """Return whether rows of a concrete model are in this flight."""
        return bool(self.keys.get(model)) or self._has_instance_of(model)

    def may_lose(self, keys: Mapping[type[Model], set[Any]], models: Iterable[type[Model]]) -> bool:
        """Return whether a delete may be of rows in this flight: those with the keys, any of the models."""
        return any(map(self.speaks_of, models)) or any(self.holds(*item) for item in keys.items())

    def _has_instance_of(self, model: type[Model]) -> bool:
        return self.instance is not None and concrete(self.instance) is model


def is_any_in_flight(using: str, model: type[Model]) -> bool:
    """Return whether signals of any row of the model are being sent right now."""
    owner = concrete(model)
    return any(flight.using == using and flight.speaks_of(owner) for flight in _flights.get())


def is_key(key: Any) -> bool:
    """Return whether a row may have the key: one in which a part is yet to be made, no row has."""
    parts = key if isinstance(key, tuple) else (key,)
    return not any(part is None or hasattr(part, "resolve_expression") for part in parts)


def stored_keys(model: type[Model], keys: Iterable[Any]) -> list[Any]:
    """Return the keys of instances as their rows have them; a caller may have given them as text."""
    keys = list(keys)
    if _holds_numbers(model._meta.pk) and {int}.issuperset(map(type, keys)):
        return keys
    return [_stored_key(model._meta, key) for key in keys]


def _holds_numbers(pk: Any) -> bool:
    while pk.remote_field is not None:
        pk = pk.target_field
    return isinstance(pk, IntegerField)


def _stored_key(opts: Any, key: Any) -> Any:
    if not is_key(key):
        return key
    try:
        if opts.is_composite_pk:
            return tuple(field.to_python(part) for field, part in zip(opts.pk_fields, key, strict=True))
        return opts.pk.to_python(key)
    except ValidationError:
        # It holds the place of a key that a receiver is to give.
        return key


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


def in_flight_of(using: str, keys: Mapping[type[Model], Collection[Any]]) -> set[Any]:
    """Return those of the keys, given by model, that are `in_flight`."""
    return set().union(*(in_flight(using, model, own) for model, own in keys.items()))


@contextmanager
def flying(flight: Flight) -> Iterator[Flight]:
    """Hold rows in flight for the length of the block."""
    outer = _flights.get()
    _flights.set((*outer, flight))
    try:
        yield flight
    finally:
        _flights.set(outer)
        # A receiver may have handed the context on, to a task that outlives the operation.
        flight.keys, flight.instance = {}, None


def innermost_flight() -> Flight | None:
    """Return the rows whose signals are being sent right now, without those up the stack."""
    flights = _flights.get()
    return flights[-1] if flights else None


def open_rounds() -> Iterator[Round]:
    """Return the rounds that somebody takes part in, the innermost first."""
    return (flight.round for flight in reversed(_flights.get()) if flight.round is not None)


@contextmanager
def flights_kept() -> Iterator[None]:
    """Leave in flight what is found in flight, whichever copy of the context comes back from the block."""
    outer = _flights.get()
    try:
        yield
    finally:
        _flights.set(outer)


def keys_by_class(
    model: type[Model], keys: Iterable[Any], instances: Iterable[Model]
) -> dict[type[Model], list[Any]]:
    """Return the keys of rows of a model by the classes that these have instances of.

    A row of a subclass is one of its model, too, and of the class by which others know it.
    """
    by_class: dict[type[Model], list[Any]] = {model: list(keys)}
    for key, instance in zip(by_class[model], instances, strict=True):
        if type(instance) is not model:
            by_class.setdefault(type(instance), []).append(key)
    return by_class


def flight_of(using: str, keys: Mapping[type[Model], Iterable[Any]]) -> Flight:
    """Return a flight of rows, whose keys are given by model, to be held with `flying`."""
    held: dict[type[Model], set[Any]] = {}
    for model, own in keys.items():
        # Of a proxy, too.
        held.setdefault(concrete(model), set()).update(_hashable(own))
    return Flight(using, held)


def _hashable(keys: Iterable[Any]) -> set[Any]:
    # A field may give keys that have no hash; such a row, like its instance, can't be put in a set.
    keys = list(keys)
    try:
        return set(keys)
    except TypeError:
        return {key for key in keys if isinstance(key, Hashable)}


@contextmanager
def saving(instance: Model, using: str) -> Iterator[None]:
    """Mark the row of a `Model.save()` as in flight while Django sends its signals."""
    with flying(Flight(using, {}, instance)):
        yield


@contextmanager
def deleting(
    collector: Collector,
    others: Mapping[type[Model], Iterable[Any]] | None = None,
    unknown: Iterable[type[Model]] = (),
) -> Iterator[Flight]:
    """Mark the rows that a delete has collected as in flight while Django deletes them.

    `others` are keys of rows that go with them though nobody has collected them, `unknown` the models
    of which the database may remove rows that nobody has looked at.
    """
    keys: dict[type[Model], set[Any]] = {}
    for model, instances in collector.data.items():
        own = stored_keys(model, [instance.pk for instance in instances])
        keys.setdefault(concrete(model), set()).update(own)
    for model, more in (others or {}).items():
        keys.setdefault(concrete(model), set()).update(more)
    fast: Iterable[Any] = collector.fast_deletes
    models = {*unknown, *(concrete(queryset.model) for queryset in fast)}
    try:
        with flying(Flight(collector.using, keys)) as flight:
            yield flight
    finally:
        _note_deletion(collector.using, keys, models)


def _note_deletion(using: str, keys: Mapping[type[Model], set[Any]], models: Collection[type[Model]]) -> None:
    for flight in _flights.get():
        if flight.using == using and flight.may_lose(keys, models):
            flight.deletions += 1


@contextmanager
def silence(model: type[Model]) -> Iterator[None]:
    """Let Django's own statements on a model through for the length of the block, patched or not.

    On other models they are somebody else's: a field's `pre_save()` may draw a number from a table.
    """
    outer = _silent.get()
    _silent.set(outer | {concrete(model)})
    try:
        yield
    finally:
        _silent.set(outer)


def is_silent(model: type[Model]) -> bool:
    """Return True while this library runs a statement of its own on the model."""
    return concrete(model) in _silent.get()


def senders(queryset: QuerySet[Any]) -> list[type[Model]]:
    """Return the senders of the signals of a queryset's rows.

    A queryset of a polymorphic library yields instances of the model's subclasses, and
    these are the senders.
    """
    model = queryset.model
    if not _yields_subclasses(queryset):
        return [model]
    return [model, *(other for other in apps.get_models() if issubclass(other, model) and other is not model)]


def instances_of(objs: Iterable[Any]) -> list[Any]:
    """Return the caller's objects as a list, of proxies (`request.user`) the instances behind them.

    These are what Django would send if the proxies were saved.
    """
    objs = list(objs)
    if all(issubclass(kind, Model) for kind in set(map(type, objs))):
        return objs
    return [obj.save_base.__self__ for obj in objs]


def senders_of(instances: Iterable[Model]) -> list[type[Model]]:
    """Return the senders of the signals of the instances."""
    models = {type(instance) for instance in instances}
    return [model for model in models if not concrete(model)._meta.auto_created]


def is_heard(signal: ModelSignal, senders: Iterable[type[Model]]) -> bool:
    """Return whether a live receiver would hear the signal of any of the senders."""
    return any(signal.has_listeners(sender) for sender in senders)


def is_awaited(signal: ModelSignal, senders: Iterable[type[Model]]) -> bool:
    """Return whether the signal of these senders is for async receivers only."""
    receivers = [receivers_of(signal, sender) for sender in senders]
    return any(awaited for _, awaited in receivers) and not any(called for called, _ in receivers)


def receivers_of(signal: ModelSignal, sender: type[Model]) -> tuple[list[Any], list[Any]]:
    """Return the live receivers, those that are called and the async ones (Django 5.2 to 6.1)."""
    called, awaited = signal._live_receivers(sender)
    return called, awaited


def _yields_subclasses(queryset: QuerySet[Any]) -> bool:
    # Whoever turns rows into other classes does so in an iterable class of their own, set
    # by an __init__ of their own (QuerySet._iterable_class, Django 5.2 to 6.1).
    if type(queryset).__init__ is not QuerySet.__init__:
        queryset = type(queryset)(model=queryset.model)
    return not is_djangos(queryset)


def hears_saves(senders: Collection[type[Model]]) -> bool:
    """Return whether somebody listens to the saves of the senders."""
    return is_heard(pre_save, senders) or is_heard(post_save, senders)


def send_pre_save(instance: Model, using: str, update_fields: frozenset[str] | None) -> None:
    """Send `pre_save` with the arguments of `Model.save_base`."""
    pre_save.send(
        sender=type(instance),
        instance=instance,
        raw=False,
        using=using,
        update_fields=update_fields,
    )


def send_post_save(instance: Model, using: str, update_fields: frozenset[str] | None, created: bool) -> None:
    """Send `post_save` with the arguments of `Model.save_base`."""
    post_save.send(
        sender=type(instance),
        instance=instance,
        created=created,
        update_fields=update_fields,
        raw=False,
        using=using,
    )


async def asend_pre_save(instance: Model, using: str, update_fields: frozenset[str] | None) -> None:
    """Send `pre_save` from a coroutine, to receivers that are async."""
    await pre_save.asend(
        sender=type(instance),
        instance=instance,
        raw=False,
        using=using,
        update_fields=update_fields,
    )


async def asend_post_save(
    instance: Model, using: str, update_fields: frozenset[str] | None, created: bool
) -> None:
    """Send `post_save` from a coroutine, to receivers that are async."""
    await post_save.asend(
        sender=type(instance),
        instance=instance,
        created=created,
        update_fields=update_fields,
        raw=False,
        using=using,
    )
