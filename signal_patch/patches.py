"""The patches: a thin wrapper for each patched method of Django, named after the method.

A wrapper gets Django's method *unbound*, as `wrapped(queryset, ...)`, because dispatch calls it with other
querysets than the one that was called. "Django's" method may be another library's wrapper of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from functools import update_wrapper
from inspect import signature
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import wrapt
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import apps
from django.apps.registry import Apps
from django.db import router
from django.db.models import Model, QuerySet, query
from django.db.models.deletion import Collector
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import UpdateQuery

from signal_patch import callers, dispatch, scopes
from signal_patch.dispatch.signals import in_flight

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import SupportsIndex, TypeAlias

    from signal_patch.options import Options

    Arguments: TypeAlias = tuple[Any, ...]
    Keywords: TypeAlias = dict[str, Any]
    Wrapper: TypeAlias = Callable[[Callable[..., Any], Any, Arguments, Keywords], Any]
    Place: TypeAlias = tuple[type, str, Wrapper]


class Patch(wrapt.CallableObjectProxy[Callable[..., Any]]):
    """A patched method in its class.

    It is a proxy of wrapt's, so that other wrapt proxies above and beneath it can be removed. Instances get a
    plain bound method of it, which can be pickled and copied like any other, and which costs half as much as
    wrapt's own.
    """

    def __init__(
        self,
        wrapped: Callable[..., Any],
        owner: type,
        method: Callable[..., Any],
        put_beneath: Callable[[Any], None],
    ) -> None:
        super().__init__(wrapped)
        self._self_owner = owner
        self._self_method = method
        self._self_put_beneath = put_beneath

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "__wrapped__":
            # Another library's patch, beneath this one, was removed.
            self._self_put_beneath(value)

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        if args and isinstance(args[0], self._self_owner):
            return self._self_method(*args, **keywords)
        return self.__wrapped__(*args, **keywords)

    def __reduce__(self) -> str:
        return self.__qualname__

    def __reduce_ex__(self, protocol: SupportsIndex) -> str:
        return self.__reduce__()

    def __copy__(self) -> Patch:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Patch:
        return self


def _patch(wrapped: Callable[..., Any], owner: type, wrapper: Wrapper) -> Patch:
    """Return a patch of a method.

    Each patch has its own class, whose `__get__` has the method at hand. Reading attributes of a proxy would
    make a call of Django's method a third slower.
    """
    beneath = _unbound(wrapped)

    def put_beneath(other: Any) -> None:
        nonlocal beneath
        beneath = _unbound(other)

    def method(instance: Any, /, *args: Any, **keywords: Any) -> Any:
        return wrapper(beneath, instance, args, keywords)

    class Bound(Patch):
        def __get__(self, instance: Any, kind: type | None = None) -> Any:
            return self if instance is None else MethodType(method, instance)

    patch = Bound(wrapped, owner, method, put_beneath)
    update_wrapper(method, patch)
    if iscoroutinefunction(wrapped):
        markcoroutinefunction(method)
    return patch


def update(wrapped: Callable[..., Any], queryset: QuerySet[Any], args: Arguments, keywords: Keywords) -> Any:
    options = scopes.options_for(queryset.model, "update")
    # Django refuses positional arguments.
    if options is None or args or in_flight.is_silent(queryset.model) or callers.quiet.is_caller():
        if scopes.process.observe is not None:
            return scopes.process.observe("update", queryset, wrapped, args, keywords)
        return wrapped(queryset, *args, **keywords)
    return dispatch.update(queryset, keywords, options, wrapped)


def bulk_update(
    wrapped: Callable[..., Any], queryset: QuerySet[Any], args: Arguments, keywords: Keywords
) -> Any:
    if in_flight.is_silent(queryset.model):
        return wrapped(queryset, *args, **keywords)
    options = scopes.options_for(queryset.model, "bulk_update")
    if options is None or callers.quiet.is_caller():
        if scopes.process.observe is not None:
            return scopes.process.observe("bulk_update", queryset, wrapped, args, keywords)
        return _silenced(queryset.model, wrapped, queryset, *args, **keywords)
    try:
        given = _BULK_UPDATE.bind(queryset, *args, **keywords)
    except TypeError:
        # Django refuses these arguments, or another library's wrapper knows them.
        return wrapped(queryset, *args, **keywords)
    given.apply_defaults()
    _, objs, fields, batch_size = given.args
    return dispatch.bulk_update(queryset, objs, fields, batch_size, options, wrapped, is_djangos)


def bulk_create(
    wrapped: Callable[..., Any], queryset: QuerySet[Any], args: Arguments, keywords: Keywords
) -> Any:
    options = scopes.options_for(queryset.model, "bulk_create")
    if options is None or in_flight.is_silent(queryset.model) or callers.quiet.is_caller():
        if scopes.process.observe is not None:
            return scopes.process.observe("bulk_create", queryset, wrapped, args, keywords)
        return wrapped(queryset, *args, **keywords)
    try:
        given = _BULK_CREATE.bind(queryset, *args, **keywords)
    except TypeError:
        return wrapped(queryset, *args, **keywords)
    _, objs, *others = given.arguments.items()
    return dispatch.bulk_create(queryset, objs[1], options, wrapped, **dict(others))


def delete_queryset(
    wrapped: Callable[..., Any], queryset: QuerySet[Any], args: Arguments, keywords: Keywords
) -> Any:
    options = scopes.options_for(queryset.model, "delete")
    # Django refuses arguments.
    if options is None or not options.splits_delete or args or keywords:
        return wrapped(queryset, *args, **keywords)
    return dispatch.delete_queryset(queryset, options, wrapped)


def save_base(wrapped: Callable[..., Any], instance: Model, args: Arguments, keywords: Keywords) -> Any:
    if not (pre_save.has_listeners(type(instance)) or post_save.has_listeners(type(instance))):
        # Without receivers, no code runs during this save that might send signals for the row.
        return wrapped(instance, *args, **keywords)
    given = args[3] if len(args) > 3 else keywords.get("using")
    using = given or router.db_for_write(type(instance), instance=instance)
    if len(args) <= 3:
        # Asking a router twice might give two answers.
        keywords["using"] = using
    flight = in_flight.Flight(using, {}, instance)
    with in_flight.flying(flight):
        return wrapped(instance, *args, **keywords)


def delete(wrapped: Callable[..., Any], collector: Collector, args: Arguments, keywords: Keywords) -> Any:
    return dispatch.delete(
        collector, _options_for, _mixin_options, lambda collector: wrapped(collector, *args, **keywords)
    )


def update_batch(wrapped: Callable[..., Any], query: UpdateQuery, args: Arguments, keywords: Keywords) -> Any:
    model: Any = query.model
    options = _options_for(model, "update")
    if options is None or in_flight.is_silent(model):
        if scopes.process.observe is not None:
            return scopes.process.observe("update_batch", query, wrapped, args, keywords)
        return wrapped(query, *args, **keywords)
    given = _UPDATE_BATCH.bind(query, *args, **keywords)
    _, keys, values, using = given.args
    return dispatch.update_batch(query, keys, values, using, options, wrapped)


def _options_for(model: type[Model], operation: str) -> Options | None:
    """Return the options for rows that a delete reaches: the switch's, or those of the default manager.

    Manager._queryset_class, Django 5.2 to 6.1.
    """
    manager: Any = model._default_manager
    queryset_class = getattr(manager, "_queryset_class", None)
    return scopes.options_for(model, operation, getattr(queryset_class, "signal_options", None))


def _mixin_options(queryset: QuerySet[Any]) -> Options | None:
    """Return the options for a queryset without the mixin whose model's default manager has it, or None."""
    if hasattr(queryset, "signal_options") or scopes.options_for(queryset.model, "update") is not None:
        return None
    return _options_for(queryset.model, "update")


def awaited(wrapped: Callable[..., Any], queryset: QuerySet[Any], args: Arguments, keywords: Keywords) -> Any:
    """Pass the line that calls an async method on to the thread in which the method runs."""
    return _at_site(wrapped(queryset, *args, **keywords), callers.call_site())


async def _at_site(operation: Awaitable[Any], site: callers.Site | None) -> Any:
    with callers.awaited_at(site):
        return await operation


def get_app_configs(wrapped: Callable[..., Any], registry: Apps, args: Arguments, keywords: Keywords) -> Any:
    """Check labels as soon as the models are loaded.

    `Apps.populate()` calls this method then, in order to call `ready()` (Django 5.2 to 6.1). Patching
    `populate()` would be too late for a label given in a models module, because it is already running.
    """
    if registry is apps and apps.models_ready:
        with scopes.lock:
            _remove(AWAITING)
            scopes.resolve_pending()
    return wrapped(registry, *args, **keywords)


def _silenced(model: type[Model], bulk_update: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Call a `bulk_update()` that is off, so that the `update()` inside it sends nothing if that is on."""
    inner = scopes.options_for(model, "update") is not None
    with in_flight.silence(model) if inner else nullcontext():
        return bulk_update(*args, **keywords)


# The operations that start at a queryset.
ENTRY_POINTS: tuple[Place, ...] = (
    (QuerySet, "update", update),
    (QuerySet, "bulk_update", bulk_update),
    (QuerySet, "bulk_create", bulk_create),
    (QuerySet, "delete", delete_queryset),
)
# What the mixin needs as well: these mark rows as in flight, and send signals for what a delete changes.
ROW_MARKERS: tuple[Place, ...] = (
    (Model, "save_base", save_base),
    (Collector, "delete", delete),
    (UpdateQuery, "update_batch", update_batch),
)
ASYNC: tuple[Place, ...] = (
    (QuerySet, "aupdate", awaited),
    (QuerySet, "abulk_update", awaited),
    (QuerySet, "abulk_create", awaited),
    (QuerySet, "adelete", awaited),
)
AWAITING: tuple[Place, ...] = ((Apps, "get_app_configs", get_app_configs),)


def install(options: Iterable[Options]) -> None:
    """Install the patches that are missing, and those that the options need."""
    with scopes.lock:
        _install(ENTRY_POINTS + ROW_MARKERS)
        _install_for(options)


def install_row_markers(options: Options) -> None:
    """Install, for as long as the process runs, what a mixin with these options needs."""
    with scopes.lock:
        scopes.process.marks_rows = True
        scopes.process.holds_inserts |= bool(options.batch_inserts)
        _install(ROW_MARKERS)
        _install_for([options])


def install_async() -> None:
    """Install the patches that make the call sites of async methods known."""
    with scopes.lock:
        _install(ASYNC)


def _install_for(options: Iterable[Options]) -> None:
    if any(chosen.batch_inserts for chosen in options):
        from signal_patch.receivers import batch_inserts

        _install(batch_inserts.PLACES)


def remove() -> None:
    """Remove the patches. One that another library has wrapped in a closure stays and does nothing."""
    with scopes.lock:
        _remove(ENTRY_POINTS + ASYNC if scopes.process.marks_rows else ENTRY_POINTS + ASYNC + ROW_MARKERS)
        if ours(Model, "_save_table") and not scopes.process.holds_inserts:
            from signal_patch.receivers import batch_inserts

            _remove(batch_inserts.PLACES)
            batch_inserts.HeldKey.remove()


def await_models() -> None:
    """Install the patch that checks labels as soon as the models are loaded."""
    with scopes.lock:
        _install(AWAITING)


def ours(owner: type, name: str) -> Patch | None:
    """Return our patch of this method, even if others have wrapped it since."""
    return wrapt.find_wrapper(vars(owner)[name], predicate=_is_ours)


def is_djangos(queryset_class: type[Any], name: str, *, leaving_out: Collection[type[Any]] = ()) -> bool:
    """Return whether a class has Django's own method of that name, wrapped by this library at most.

    Methods of the classes in `leaving_out` are skipped.
    """
    owner = next(kind for kind in queryset_class.__mro__ if name in vars(kind) and kind not in leaving_out)
    method = vars(owner)[name]
    # Not by its attributes, which functools.wraps() copies.
    method = method.__wrapped__ if _is_ours(method) else method
    return type(method) is FunctionType and method.__globals__ is vars(query)


def _is_ours(wrapper: object) -> bool:
    return issubclass(type(wrapper), Patch)


def _install(places: Iterable[Place]) -> None:
    for owner, name, wrapper in places:
        if ours(owner, name) is None:
            wrapt.apply_patch(owner, name, _patch(vars(owner)[name], owner, wrapper))


def _remove(places: Iterable[Place]) -> None:
    for owner, name, _ in places:
        patch = ours(owner, name)
        if patch is not None:
            # A patch inside another library's closure can only be removed with that closure.
            with suppress(wrapt.WrapperNotOutermostError):
                wrapt.unwrap_object(owner, name, patch)


def _unbound(wrapped: Any) -> Callable[..., Any]:
    # Checked by type: another library's proxy claims to be a function, but only learns its instance when
    # bound.
    if type(wrapped) is FunctionType:
        return wrapped

    def call(instance: Any, /, *args: Any, **keywords: Any) -> Any:
        bound = wrapped.__get__(instance, type(instance)) if hasattr(wrapped, "__get__") else wrapped
        return bound(*args, **keywords)

    return call


# Django's signatures (5.2 to 6.1), written out. When this module is imported, the method in Django's class
# may already be another library's, whose signature may just be `*args, **kwargs`.


def _bulk_create(
    self: Any,
    objs: Any,
    batch_size: Any = None,
    ignore_conflicts: Any = False,
    update_conflicts: Any = False,
    update_fields: Any = None,
    unique_fields: Any = None,
) -> None: ...


def _bulk_update(self: Any, objs: Any, fields: Any, batch_size: Any = None) -> None: ...


def _update_batch(self: Any, pk_list: Any, values: Any, using: Any) -> None: ...


_BULK_CREATE = signature(_bulk_create)
_BULK_UPDATE = signature(_bulk_update)
_UPDATE_BATCH = signature(_update_batch)
