"""Which rows are in flight, and which models are silent, in this context.

What is held here follows the flow of control into awaited coroutines and `sync_to_async`. It is part of a
call under way, not of the switch, and counts no longer than its block runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType, ref

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import IntegerField, Model

from signal_patch.blocks import Held
from signal_patch.dispatch.rows.keys import converter
from signal_patch.dispatch.values.columns import concrete

if TYPE_CHECKING:
    from threading import Lock

    from django.db.models.deletion import Collector

    from signal_patch.dispatch.signals.rounds import Round


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

    def land(self, model: type[Model], keys: Iterable[Any]) -> None:
        """Hold only the rows of one model that have these keys, from now on."""
        self.keys = {concrete(model): _hashable(keys)}
        self.instance = None

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
    convert = converter(model)
    return [_stored_key(convert, key) for key in keys]


def _holds_numbers(pk: Any) -> bool:
    while pk.remote_field is not None:
        pk = pk.target_field
    return isinstance(pk, IntegerField)


def _stored_key(convert: Callable[[Any], Any], key: Any) -> Any:
    if not is_key(key):
        return key
    try:
        return convert(key)
    except ValidationError:
        # It holds the place of a key that a receiver is to give.
        return key


def keys_in_flight(
    using: str, model: type[Model], keys: Collection[Any], *, besides: Flight | None = None
) -> set[Any]:
    """Return those of the keys whose row is in flight, besides one of the flights.

    Somebody up the stack sends the signals of such a row. To send them again would make
    `Model.objects.filter(pk=instance.pk).update(…)` in a receiver, written in order not to recurse, recurse.
    """
    held: set[Any] = set()
    database = database_of(using)
    for flight in _flying():
        if flight.database == database and flight is not besides:
            held |= flight.holds(concrete(model), keys)
    return held


def keys_in_flight_of(using: str, keys: Mapping[type[Model], Collection[Any]]) -> set[Any]:
    """Return those of the keys, given by model, that are `keys_in_flight`."""
    return set().union(*(keys_in_flight(using, model, own) for model, own in keys.items()))


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


def open_rounds() -> Iterator[Round]:
    """Return the rounds that somebody takes part in, the innermost first."""
    flights = reversed(list(_flying()))
    return (flight.round for flight in flights if flight.round is not None)


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
