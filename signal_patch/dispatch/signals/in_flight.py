"""Which rows are in flight, and which models are silent, in this context.

This state follows the flow of control into awaited coroutines and `sync_to_async()`. It belongs to the
current call, not to the switch, and does not outlive the block that set it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType, ref

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import Model

from signal_patch.blocks import Held
from signal_patch.dispatch.backends.base import are_numbers
from signal_patch.dispatch.rows.keys import converter
from signal_patch.dispatch.values.columns import concrete, target_field

if TYPE_CHECKING:
    from threading import Lock

    from django.db.models.deletion import Collector

    from signal_patch.dispatch.signals.rounds import Round


# Weak references, because a context may outlive a flight: in a task that was started in it, or if it is used
# again.
_flights: Final[Held[ReferenceType[Flight]]] = Held("signal_patch_flights")

_silent: Final[Held[type[Model]]] = Held("signal_patch_silent")


def database_of(using: str) -> tuple[str, Any]:
    """Return what identifies a database: its alias and the tenant's schema.

    Libraries that give each tenant a schema serve all tenants with one alias, and keep the schema's name on
    the connection (django-tenants: `connection.schema_name`).
    """
    return using, getattr(connections[using], "schema_name", None)


class Flight:
    """Rows of one database whose signals are being sent at this moment.

    `keys` holds primary keys by concrete model. `instance` stands for one more row. Its key is read only when
    it is needed, because an INSERT or a receiver may set it between the two signals. `deletions` counts the
    deletes that may have removed some of these rows.
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
        # The round that sends the signals of these rows, if there is one (rounds.py).
        self.round: Round | None = None

    def holds(self, model: type[Model], keys: Iterable[Any]) -> set[Any]:
        """Return those of a concrete model's keys that are in this flight."""
        own = self.keys.get(model)
        held = own & _hashable(keys) if own else set()
        if self.instance is not None and self._has_instance_of(model):
            (stored,) = stored_keys(model, [self.instance.pk])
            held |= {key for key in keys if key == stored and is_key(key)}
        return held

    def hold_only(self, model: type[Model], keys: Iterable[Any]) -> None:
        """From now on, hold only the rows of this model that have these keys."""
        self.keys = {concrete(model): _hashable(keys)}
        self.instance = None

    def has_rows_of(self, model: type[Model]) -> bool:
        """Return whether rows of a concrete model are in this flight."""
        return bool(self.keys.get(model)) or self._has_instance_of(model)

    def may_lose(self, keys: Mapping[type[Model], set[Any]], models: Iterable[type[Model]]) -> bool:
        """Return whether a delete of these keys, or of any rows of these models, may affect this flight."""
        return any(map(self.has_rows_of, models)) or any(self.holds(*item) for item in keys.items())

    def _has_instance_of(self, model: type[Model]) -> bool:
        return self.instance is not None and concrete(self.instance) is model


def is_any_in_flight(using: str, model: type[Model]) -> bool:
    """Return whether any row of the model is in flight."""
    owner = concrete(model)
    return any(flight.has_rows_of(owner) for flight in _flying_in(database_of(using)))


def is_anything_in_flight(using: str) -> bool:
    """Return whether signals of any row of a database are being sent right now."""
    return any(_flying_in(database_of(using)))


def is_key(key: Any) -> bool:
    """Return whether a row may have the key, which none has while a part of it is yet to be generated."""
    if type(key) is int:
        return True
    parts = key if isinstance(key, tuple) else (key,)
    return not any(part is None or hasattr(part, "resolve_expression") for part in parts)


def stored_keys(model: type[Model], keys: Iterable[Any]) -> list[Any]:
    """Return the keys of instances in the types that their rows give; a caller may give them as text."""
    keys = list(keys)
    if are_numbers(target_field(model._meta.pk), keys):
        return keys
    convert = converter(model)
    return [_stored_key(convert, key) for key in keys]


def _stored_key(convert: Callable[[Any], Any], key: Any) -> Any:
    if not is_key(key):
        return key
    try:
        return convert(key)
    except ValidationError:
        # A placeholder, for which a receiver will assign the real key.
        return key


def keys_in_flight(
    using: str, model: type[Model], keys: Collection[Any], *, besides: Flight | None = None
) -> set[Any]:
    """Return those of the keys whose rows are in flight, in other flights than `besides`.

    A caller up the stack is sending the signals of such a row. If they were sent again, a receiver that calls
    `Model.objects.filter(pk=instance.pk).update(…)` in order not to recurse would recurse.
    """
    held: set[Any] = set()
    for flight in _flying_in(database_of(using)):
        if flight is not besides:
            held |= flight.holds(concrete(model), keys)
    return held


def keys_in_flight_of(using: str, keys: Mapping[type[Model], Collection[Any]]) -> set[Any]:
    """Return those of the keys, given by model, whose rows are in flight."""
    return set().union(*(keys_in_flight(using, model, own) for model, own in keys.items()))


def flying(flight: Flight) -> Lock:
    """Return a lock; the rows are in flight while it is locked: `with flying(flight):`.

    The caller must keep the flight in a variable, because the context only has a weak reference.
    """
    return _flights.holding(ref(flight))


def _flying() -> Iterable[Flight]:
    return filter(None, (flight() for flight in _flights.values()))


def _flying_in(database: tuple[str, Any]) -> Iterable[Flight]:
    return (flight for flight in _flying() if flight.database == database)


def innermost_flight() -> Flight | None:
    """Return the innermost flight of this context, or None."""
    return next(reversed(list(_flying())), None)


def open_rounds() -> list[Round]:
    """Return the open rounds, innermost first."""
    # Called for every row that a receiver saves, so it has no nested generators.
    flights = [flight() for flight in reversed(_flights.values())]
    return [flight.round for flight in flights if flight is not None and flight.round is not None]


def keys_by_class(
    model: type[Model], keys: list[Any], instances: list[Model]
) -> dict[type[Model], list[Any]]:
    """Return the keys of a model's rows by the classes of their instances.

    A row that has an instance of a subclass is listed under both, because others may know it by either.
    """
    by_class: dict[type[Model], list[Any]] = {model: keys}
    for subclass in {*map(type, instances)} - {model}:
        by_class[subclass] = [
            key for key, instance in zip(keys, instances, strict=True) if type(instance) is subclass
        ]
    return by_class


def flight_of(using: str, keys: Mapping[type[Model], Iterable[Any]]) -> Flight:
    """Return a flight of the rows with these keys, given by model."""
    held: dict[type[Model], set[Any]] = {}
    for model, own in keys.items():
        # A proxy shares the rows of its concrete model.
        held.setdefault(concrete(model), set()).update(_hashable(own))
    return Flight(using, held)


def _hashable(keys: Iterable[Any]) -> set[Any]:
    # A field's keys may not be hashable. Such a row cannot be in a set, and neither can its instance.
    keys = list(keys)
    try:
        return set(keys)
    except TypeError:
        return {key for key in keys if isinstance(key, Hashable)}


def flight_of_delete(
    collector: Collector, others: Mapping[type[Model], Iterable[Any]], unknown: Iterable[type[Model]]
) -> Flight:
    """Return a flight of the rows that a delete has collected, for the time in which Django deletes them.

    `others` are the keys of rows that are deleted along with them without having been collected. `unknown`
    are the models of which the database may remove rows that have not been looked up. All open flights that
    may lose rows note the deletion now, whether or not the delete succeeds.
    """
    keys: dict[type[Model], set[Any]] = {}
    for model, instances in collector.data.items():
        own = stored_keys(model, [instance.pk for instance in instances])
        keys.setdefault(concrete(model), set()).update(own)
    for model, more in others.items():
        keys.setdefault(concrete(model), set()).update(more)
    fast: Iterable[Any] = collector.fast_deletes
    models = {*unknown, *(concrete(queryset.model) for queryset in fast)}
    flight = Flight(collector.using, keys)
    for open_flight in _flying_in(flight.database):
        if open_flight.may_lose(keys, models):
            open_flight.deletions += 1
    return flight


def silence(model: type[Model]) -> Lock:
    """Return a lock; while it is locked, operations on this model send no signals: `with silence(model):`.

    Operations on other models still send theirs, because they are not part of this operation: a field's
    `pre_save()`, for example, may take a number from a counter's table.
    """
    return _silent.holding(concrete(model))


def is_silent(model: type[Model]) -> bool:
    """Return whether this library is running a statement of its own on the model."""
    return concrete(model) in _silent.values()
