"""The switch: it writes the scopes, and puts the patches on and takes them off."""

from __future__ import annotations

from functools import partial, wraps
from inspect import isasyncgenfunction, isclass, isgeneratorfunction, isroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.apps import apps

from signal_patch import patches, scopes
from signal_patch.options import Keywords, Options, check_operation
from signal_patch.specs import EVERYTHING, Spec, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Unpack

    from signal_patch.scopes import Rules

    Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def enable(*models: Spec, exclude: Iterable[Spec] = (), **options: Unpack[Keywords]) -> None:
    """
    Turn signals of bulk operations on in this process: for these models or, if none is named, for all.

    A model is a class, `"app_label.Model"` or `"app_label"`, and stands for all that inherits from it.
    Turned on twice, the later options hold; what is on already stays on. Options are `operations`,
    `batch_size`, `lock`, `write_back`, `progress`, `delete_batch_size`, `prefetch`, `batch_inserts` and
    `batch_reads`. Whatever is wrong with the arguments is raised before anything changes; models named
    before they are loaded are looked up when they are. What `prefetch` names is looked up when an operation
    begins, so name the models that have it.

        enable("shop", exclude=["shop.Price"], batch_size=500)
    """
    on, off = named(models) or (EVERYTHING,), named(exclude)
    chosen = Options.from_keywords(options)
    with scopes.lock:
        _await_models((*on, *off, *chosen.batch_inserts))
        scopes.process.rules = scopes.process.rules.turned(on, chosen).turned(off, None)
        scopes.process.removal_due = False
        patches.install([chosen])


def disable(*models: Spec) -> None:
    """
    Turn them off in this process: for these models or, if none is named, for all.

    Scopes that are open stay as they are. When nothing is left on, and no scope is open, Django's own
    methods are back in place.

        disable("shop.Price")
    """
    off = named(models) or (EVERYTHING,)
    with scopes.lock:
        _await_models(off)
        scopes.process.rules = scopes.process.rules.turned(off, None)
        _remove_if_all_is_off()


def is_enabled(model: Spec | None = None, operation: str | None = None) -> bool:
    """
    Say whether bulk operations send signals here and now: of this model, or of any; this one, or any.

        is_enabled("shop.Price", "update")
    """
    if operation is not None:
        check_operation(operation)
    if model is None:
        return scopes.is_anything_on(operation)
    return any(scopes.is_on(target, operation) for target in _targets(*named([model])))


def bulk_signals(*models: Spec, exclude: Iterable[Spec] = (), **options: Unpack[Keywords]) -> Scope:
    """
    Turn signals of bulk operations on in a `with` block or a decorated function, plain or `async`.

    It holds in this thread or task, and in what that awaits or hands to `sync_to_async`. Scopes nest: the
    innermost that speaks of a model decides, and of the models in `exclude` it says off. The arguments are
    those of `enable()`.

        with bulk_signals("shop.Book"):
            Book.objects.update(status="sold")

        @bulk_signals(batch_size=500)
        async def reprice(): ...
    """
    on, off = named(models) or (EVERYTHING,), named(exclude)
    chosen = Options.from_keywords(options)
    specs = (*on, *off, *chosen.batch_inserts)
    return Scope(specs, scopes.NOTHING.turned(on, chosen).turned(off, None))


def no_bulk_signals(*models: Spec) -> Scope:
    """
    Turn them off in a `with` block or a decorated function, whatever the process or the scopes around it say.

        with no_bulk_signals("shop.Price"):
            Price.objects.update(currency="EUR")
    """
    off = named(models) or (EVERYTHING,)
    return Scope(off, scopes.NOTHING.turned(off, None))


class Scope:
    """
    What holds inside a `with` block or a decorated function.

    It keeps nothing of the blocks that it opens, so one object may be entered again while it is open, and by
    any number of threads and tasks.
    """

    __slots__ = ("_rules",)

    def __init__(self, specs: tuple[Spec, ...], rules: Rules) -> None:
        self._rules = rules
        with scopes.lock:
            _await_models(specs)

    def __enter__(self) -> None:
        # The patches stay when the scope is left: to change a class for each block makes it slow for good.
        with scopes.lock:
            patches.install(self._rules.options())
            scopes.enter(self._rules)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with scopes.lock:
            scopes.leave(self._rules)
            if scopes.process.removal_due:
                _remove_if_all_is_off()

    def __call__(self, function: Decorated) -> Decorated:
        _check_decorated(function)
        is_awaited = iscoroutinefunction(function) or iscoroutinefunction(_body(function))
        return cast("Decorated", self._awaited(function) if is_awaited else self._called(function))

    def _called(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def within(*args: Any, **keywords: Any) -> Any:
            with self:
                return function(*args, **keywords)

        return within

    def _awaited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def within(*args: Any, **keywords: Any) -> Any:
            with self:
                return await function(*args, **keywords)

        return within


def _check_decorated(function: object) -> None:
    if isclass(function):
        raise TypeError(f"a scope decorates functions, not the class {function.__qualname__}")
    body = _body(function)
    if isgeneratorfunction(body) or isasyncgenfunction(body):
        raise TypeError(
            f"a scope cannot decorate the generator function {_name(function)}, whose body runs after the "
            "call has returned: write the `with` block inside it"
        )
    if not callable(function) or isinstance(function, staticmethod):
        raise TypeError(f"a scope decorates functions, not {function!r}: put it beneath that")


def _body(function: Any) -> Any:
    """Return the function that runs in the end: of an object that can be called, its class's `__call__`."""
    while isinstance(function, partial):
        function = function.func
    return function if isroutine(function) else type(function).__call__


def _name(function: object) -> str:
    return getattr(function, "__qualname__", repr(function))


def _targets(spec: Spec) -> Iterable[Spec]:
    """Return what a question about a spec asks of: an app stands for its models."""
    if isinstance(spec, str) and apps.models_ready:
        return apps.get_app_config(spec).get_models()
    return (spec,)


def _await_models(specs: Iterable[Spec]) -> None:
    if scopes.await_models(specs):
        patches.await_models()


def _remove_if_all_is_off() -> None:
    if scopes.process.rules.on():
        return
    scopes.process.rules = scopes.NOTHING
    scopes.process.removal_due = scopes.process.open_scopes > 0
    if not scopes.process.removal_due:
        patches.remove()
