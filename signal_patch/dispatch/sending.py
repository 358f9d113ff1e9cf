"""Who listens, the signals of one instance, and which rows are in flight.

What is held below follows the flow of control into awaited coroutines and `sync_to_async`;
it is part of a call under way, not of the switch, and counts no longer than its block runs.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType, ref

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import ImageField, IntegerField, Model, QuerySet
from django.db.models.signals import ModelSignal, post_init, post_save, pre_save

from ..blocks import Held
from . import loading
from .fields import concrete
from .rows import is_djangos

if TYPE_CHECKING:
    from threading import Lock

    from django.db.models.deletion import Collector

    from .rounds import Round

# Weakly, as a context may live on, in a task that was started inside or until it is used again.
_flights: Final[Held[ReferenceType[Flight]]] = Held("signal_patch_flights")
_silent: Final[Held[type[Model]]] = Held("signal_patch_silent")


def database_of(using: str) -> tuple[str, Any]:
    """Return what tells the rows of a database from those of others: its alias, and the tenant's schema.

    Libraries that give each tenant a schema keep its name on the connection (django-tenants:
    `connection.schema_name`), and serve all tenants by one alias.
    """
    return using, getattr(connections[using], "schema_name", None)


class Flight:
    """Rows of one database whose signals are being sent at this moment.

    `keys` holds primary keys by concrete model. `instance` stands for one more row, whose
    key is read when somebody asks: an INSERT sets it between its two signals, or a receiver.
    """

    __slots__ = ("__weakref__", "database", "deletions", "instance", "keys", "round")

    def __init__(
        self,
        using: str,
        keys: dict[type[Model], set[Any]],
        instance: Model | None = None,
    ) -> None:
        self.database = database_of(using)
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
    database = database_of(using)
    return any(flight.database == database and flight.speaks_of(owner) for flight in _flying())


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
    database = database_of(using)
    for flight in _flying():
        if flight.database == database:
            held |= flight.holds(concrete(model), keys)
    return held


def in_flight_of(using: str, keys: Mapping[type[Model], Collection[Any]]) -> set[Any]:
    """Return those of the keys, given by model, that are `in_flight`."""
    return set().union(*(in_flight(using, model, own) for model, own in keys.items()))


def flying(flight: Flight) -> Lock:
    """Hold rows in flight for the length of the block: `with flying(flight):`.

    The caller keeps the flight, in a variable of its own: the context has a weak reference only.
    """
    return _flights.holding(ref(flight))


def _flying() -> Iterable[Flight]:
    return filter(None, (flight() for flight in _flights.values()))


def innermost_flight() -> Flight | None:
    """Return the rows whose signals are being sent right now, without those up the stack."""
    return next(reversed(list(_flying())), None)


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


def flight_of_delete(
    collector: Collector,
    others: Mapping[type[Model], Iterable[Any]] | None = None,
    unknown: Iterable[type[Model]] = (),
) -> Flight:
    """Return a flight of the rows that a delete has collected, to be held while Django deletes them.

    `others` are keys of rows that go with them though nobody has collected them, `unknown` the models
    of which the database may remove rows that nobody has looked at. Flights that may lose rows by the
    delete are told at once, so that they know whatever becomes of it.
    """
    keys: dict[type[Model], set[Any]] = {}
    for model, instances in collector.data.items():
        own = stored_keys(model, [instance.pk for instance in instances])
        keys.setdefault(concrete(model), set()).update(own)
    for model, more in (others or {}).items():
        keys.setdefault(concrete(model), set()).update(more)
    fast: Iterable[Any] = collector.fast_deletes
    models = {*unknown, *(concrete(queryset.model) for queryset in fast)}
    flight = Flight(collector.using, keys)
    _note_deletion(flight.database, keys, models)
    return flight


def _note_deletion(
    database: tuple[str, Any], keys: Mapping[type[Model], set[Any]], models: Collection[type[Model]]
) -> None:
    for flight in _flying():
        if flight.database == database and flight.may_lose(keys, models):
            flight.deletions += 1


def silence(model: type[Model]) -> Lock:
    """Let Django's own statements on a model through for the length of the block, patched or not.

    On other models they are somebody else's: a field's `pre_save()` may draw a number from a table.
    """
    return _silent.holding(concrete(model))


def is_silent(model: type[Model]) -> bool:
    """Return True while this library runs a statement of its own on the model."""
    return concrete(model) in _silent.values()


def senders(queryset: QuerySet[Any]) -> list[type[Model]]:
    """Return the senders of the signals of a queryset's rows.

    A queryset of a polymorphic library yields instances of the model's subclasses, and a typed model loads
    its rows as these, or as other models of its table: then these may be the senders.
    """
    model = queryset.model
    if not (_yields_subclasses(queryset) or _loads_other_classes(model)):
        return [model]
    others = (other for other in _all_models(model) if other is not model)
    return [model, *(other for other in others if _shares_rows(other, model))]


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


def _loads_other_classes(model: type[Model]) -> bool:
    """Return whether a model, or a receiver of `post_init`, may turn a row into another class."""
    if not loading.is_of_djangos_making(model):
        return True
    if not (post_init.receivers and post_init.has_listeners(model)):
        return False
    # An ImageField measures its image there (ImageField.contribute_to_class, Django 5.2 to 6.1).
    receivers = chain(*receivers_of(post_init, model))
    return not all(isinstance(getattr(receiver, "__self__", None), ImageField) for receiver in receivers)


def _all_models(model: type[Model]) -> Iterator[type[Model]]:
    """Yield all models, those of apps that are not installed too (Apps.all_models, Django 5.2 to 6.1)."""
    registry: Any = model._meta.apps
    return chain.from_iterable(by_name.values() for by_name in registry.all_models.values())


def _shares_rows(other: type[Model], model: type[Model]) -> bool:
    root = concrete(model)
    return issubclass(other, root) or other._meta.db_table == root._meta.db_table


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
