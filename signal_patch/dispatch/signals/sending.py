"""Which receivers there are, and how one signal is sent for many rows."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable, Iterator
from itertools import chain
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.db.models import Model, QuerySet
from django.db.models.signals import ModelSignal, post_delete, post_init, post_save, pre_delete, pre_save

from signal_patch.dispatch.rows import loading
from signal_patch.dispatch.rows.querysets import is_djangos
from signal_patch.dispatch.values import files
from signal_patch.dispatch.values.columns import concrete

T = TypeVar("T")

# An instance whose row is saved, and two arguments of its signals: `update_fields` and `created`. A plain
# tuple, because there is one for each row, and making a NamedTuple takes nine times as long.
SavedRow = tuple[Model, "frozenset[str] | None", bool]


def senders(queryset: QuerySet[Any]) -> list[type[Model]]:
    """Return the senders of the signals of a queryset's rows.

    They may include other models: a polymorphic library's queryset yields instances of the model's
    subclasses, and a typed model loads its rows as instances of subclasses or of other models of its table.
    """
    model = queryset.model
    if not (_yields_subclasses(queryset) or _loads_other_classes(model)):
        return [model]
    others = (other for other in _all_models(model) if other is not model)
    return [model, *(other for other in others if _shares_rows(other, model))]


def instances_of(objs: Iterable[Any]) -> list[Any]:
    """Return the caller's objects as a list, with the instances behind proxies such as `request.user`.

    Django would send these instances if the proxies were saved.
    """
    objs = list(objs)
    if all(issubclass(kind, Model) for kind in set(map(type, objs))):
        return objs
    return [obj.save_base.__self__ for obj in objs]


def senders_of(instances: Iterable[Model]) -> list[type[Model]]:
    """Return the senders of the signals of the instances."""
    models = {type(instance) for instance in instances}
    return [model for model in models if not concrete(model)._meta.auto_created]


def has_receivers(signal: ModelSignal, senders: Iterable[type[Model]]) -> bool:
    """Return whether the signal of any of the senders has a live receiver."""
    return any(signal.has_listeners(sender) for sender in senders)


def has_only_async_receivers(signal: ModelSignal, senders: Iterable[type[Model]]) -> bool:
    """Return whether the signal of these senders only has async receivers."""
    receivers = [receivers_of(signal, sender) for sender in senders]
    return any(awaited for _, awaited in receivers) and not any(called for called, _ in receivers)


def receivers_of(signal: ModelSignal, sender: type[Model]) -> tuple[list[Any], list[Any]]:
    """Return the live receivers: the plain ones and the async ones (Django 5.2 to 6.1)."""
    called, awaited = signal._live_receivers(sender)
    return called, awaited


def _yields_subclasses(queryset: QuerySet[Any]) -> bool:
    # A library that turns rows into other classes has its own iterable class, and sets it in its own __init__
    # (QuerySet._iterable_class, Django 5.2 to 6.1).
    if type(queryset).__init__ is not QuerySet.__init__:
        queryset = type(queryset)(model=queryset.model)
    return not is_djangos(queryset)


def _loads_other_classes(model: type[Model]) -> bool:
    """Return whether a model, or a receiver of `post_init`, may turn a row into another class."""
    if not loading.is_of_djangos_making(model):
        return True
    if not (post_init.receivers and any(found := receivers_of(post_init, model))):
        return False
    return not all(map(files.measures_images, chain(*found)))


def _all_models(model: type[Model]) -> Iterator[type[Model]]:
    """Yield all models, also those of apps that are not installed (Apps.all_models, Django 5.2 to 6.1)."""
    registry: Any = model._meta.apps
    return chain.from_iterable(by_name.values() for by_name in registry.all_models.values())


def _shares_rows(other: type[Model], model: type[Model]) -> bool:
    root = concrete(model)
    return issubclass(other, root) or other._meta.db_table == root._meta.db_table


def has_save_receivers(senders: Collection[type[Model]]) -> bool:
    """Return whether `pre_save` or `post_save` of any of the senders has a live receiver."""
    return has_receivers(pre_save, senders) or has_receivers(post_save, senders)


def has_delete_receivers(senders: Collection[type[Model]]) -> bool:
    """Return whether `pre_delete` or `post_delete` of any of the senders has a live receiver."""
    return has_receivers(pre_delete, senders) or has_receivers(post_delete, senders)


def send_each(
    signal: ModelSignal, senders: Iterable[type[Model]], using: str, saves: Iterable[SavedRow]
) -> None:
    """Send `pre_save` or `post_save` for each of the rows, as `Model.save_base` sends it.

    If all receivers are async, a single coroutine sends all the signals, because switching between this
    thread and an event loop costs more than everything else for a row. If `saves` is a generator, it is
    resumed after each signal has been sent, within that coroutine.
    """
    if has_only_async_receivers(signal, senders):
        async_to_sync(_await_each)(signal.asend(**_arguments(signal, using, saved)) for saved in saves)
        return
    send = signal.send
    # The arguments are written out, because unpacking a dictionary for each row takes a quarter longer.
    if signal is pre_save:
        for instance, update_fields, _ in saves:
            send(
                sender=type(instance), instance=instance, raw=False, using=using, update_fields=update_fields
            )
        return
    for instance, update_fields, created in saves:
        send(
            sender=type(instance),
            instance=instance,
            created=created,
            update_fields=update_fields,
            raw=False,
            using=using,
        )


async def _await_each(calls: Iterable[Awaitable[object]]) -> None:
    for call in calls:
        await call


def _arguments(signal: ModelSignal, using: str, saved: SavedRow) -> dict[str, Any]:
    instance, update_fields, created = saved
    arguments = {"sender": type(instance), "instance": instance, "update_fields": update_fields}
    if signal is post_save:
        arguments["created"] = created
    return {**arguments, "raw": False, "using": using}
