"""The switch: turns models on and off, opens scopes, and installs and removes the patches."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial, wraps
from inspect import isasyncgenfunction, isclass, isgeneratorfunction, isroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction
from django.apps import apps

from signal_patch import callers, patches, scopes
from signal_patch.options import Keywords, Operation, Options, changed, check_operation
from signal_patch.scopes import OpenScope, Reference, Rules
from signal_patch.specs import EVERYTHING, Spec, label_of, named

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable
    from types import TracebackType

    from typing_extensions import Unpack

    Decorated = TypeVar("Decorated", bound=Callable[..., Any])
    Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]

# The reference and the rules of the scope that a `with` statement is about to enter.
_loaded: Final[ContextVar[tuple[Reference, Rules] | None]] = ContextVar("signal_patch_loaded", default=None)


def enable(*models: Spec, exclude: Iterable[Spec] = (), **options: Unpack[Keywords]) -> None:
    """Turn on the signals of bulk operations in this process, for these models or for all models.

    A model is a class, `"app_label.Model"` or `"app_label"`, and includes every model that inherits from it.
    Models that are on already stay on; if a model is turned on twice, the later options apply. The options
    are those of `signal_patch.options.Options`.

    Wrong arguments raise TypeError or ValueError, an unknown model LookupError, and `progress=True` without
    tqdm ImportError, before anything changes. Labels given before the models are loaded are checked when they
    are loaded. The names in `prefetch` are checked when an operation begins, so name only models that have
    these relations.

        enable("shop", exclude=["shop.Price"], batch_size=500)
    """
    on, off = named(models) or (EVERYTHING,), named(exclude)
    chosen = Options.from_keywords(options)
    origin = scopes.Origin("enable()", callers.call_site())
    with scopes.lock:
        _turn_on(scopes.process.rules, on, off, chosen, origin)


def disable(*models: Spec, **options: NoReturn) -> None:
    """Turn off the signals of bulk operations in this process, for these models or for all models.

    Open scopes are not affected. When nothing is on and no scope is open, Django's own methods are back in
    place.

        disable("shop.Price")
    """
    off = named(models) or (EVERYTHING,)
    if options:
        raise TypeError(
            f"disable() takes models only, not {', '.join(map(repr, options))}; to keep some models on, "
            "enable() them afterwards"
        )
    origin = scopes.Origin("disable()", callers.call_site())
    with scopes.lock:
        _await_models(off)
        scopes.process.rules = scopes.process.rules.turned(off, None, origin)
        _remove_if_all_is_off()


def enable_by_setting(models: Iterable[str], exclude: Iterable[str], options: Keywords) -> None:
    """Turn on what the setting says, in place of what it said before.

    For the models that it names, it overrides earlier calls.
    """
    on, off = named(models) or (EVERYTHING,), named(exclude)
    chosen = Options.from_keywords(options)
    with scopes.lock:
        rules = scopes.process.rules.without(scopes.SETTING)
        _turn_on(rules, on, off, chosen, scopes.SETTING)


def disable_by_setting() -> None:
    """Turn off what the setting turned on, and nothing else."""
    with scopes.lock:
        restore(scopes.process.rules.without(scopes.SETTING))


def restore(rules: Rules) -> None:
    """Make these the rules of the process."""
    with scopes.lock:
        scopes.process.rules = rules
        if rules.on():
            patches.install(rules.options())
        _remove_if_all_is_off()


def set_observer(observe: scopes.Observe | None) -> None:
    """Run bulk operations that send no signals through this function; None ends that."""
    with scopes.lock:
        scopes.process.observe = observe
        if observe is not None:
            patches.install(())
            patches.install_async()
        elif scopes.process.removal_due:
            _remove_if_all_is_off()


def is_enabled(model: Spec | None = None, operation: Operation | None = None) -> bool:
    """Return whether bulk operations send signals here and now: this operation or any, of this model or any.

    A model is also on if querysets of one of its managers have the mixin. Without a model, mixins do not
    count.

        is_enabled("shop.Price", "update")
    """
    if operation is not None:
        if not isinstance(operation, str):
            raise TypeError(
                "is_enabled() takes one model and the name of one operation; call it for each model"
            )
        check_operation(operation)
    if model is None:
        return scopes.is_anything_on(operation)
    return any(_is_on(target, operation) for target in _targets(*named([model])))


def _is_on(target: Spec, operation: Operation | None) -> bool:
    if scopes.is_on(target, operation):
        return True
    # `Model` itself has no managers, nor has a label before the models are loaded.
    return (
        not isinstance(target, str) and target is not EVERYTHING and scopes.is_on_by_mixin(target, operation)
    )


def _turn_on(
    rules: Rules, on: tuple[Spec, ...], off: tuple[Spec, ...], options: Options, origin: scopes.Origin
) -> None:
    """Change the rules of the process. The caller holds the lock."""
    _await_models((*on, *off, *options.batch_inserts))
    # The patches come first, because they change nothing by themselves if an exception comes in between.
    patches.install([options])
    scopes.process.rules = rules.turned(on, options, origin).turned(off, None, origin)
    scopes.process.removal_due = False


def bulk_signals(*models: Spec, exclude: Iterable[Spec] = (), **options: Unpack[Keywords]) -> Scope:
    """Turn on the signals of bulk operations in a `with` block or a decorated function, plain or `async`.

    They are on in this thread or task, and in what it awaits or hands to `sync_to_async()`. Scopes nest, and
    the innermost one that covers a model wins. This one also turns off the models in `exclude`. The
    arguments and errors are those of `enable()`. Returns a context manager that is also a decorator, and can
    be used again.

        with bulk_signals("shop.Book"):
            Book.objects.update(status="sold")

        @bulk_signals(batch_size=500)
        async def reprice(): ...
    """
    on, off = named(models) or (EVERYTHING,), named(exclude)
    chosen = Options.from_keywords(options)
    origin = scopes.Origin("bulk_signals()", callers.call_site())
    rules = scopes.NOTHING.turned(on, chosen, origin).turned(off, None, origin)
    return Scope((*on, *off, *chosen.batch_inserts), rules)


def no_bulk_signals(*models: Spec) -> Scope:
    """Turn off the signals of bulk operations in a `with` block or a decorated function.

    Without models, for every model. It wins over `enable()`, over the setting `SIGNAL_PATCH` and over outer
    scopes. Returns a context manager that is also a decorator, and can be used again.

        with no_bulk_signals("shop.Price"):
            Price.objects.update(currency="EUR")
    """
    off = named(models) or (EVERYTHING,)
    origin = scopes.Origin("no_bulk_signals()", callers.call_site())
    return Scope(off, scopes.NOTHING.turned(off, None, origin))


class _Exit:
    """`Scope.__exit__`: a separate function for each `with` statement.

    A signal handler may raise an exception at the first instruction of `__exit__()`, before it has done
    anything. So a scope is open only while its `OpenScope` exists. Only the function returned here refers to
    that object, and both are deleted with the `with` statement. The statement loads `__exit__` before it
    calls `__enter__()` ("The with statement" in Python's language reference).
    """

    @overload
    def __get__(self, scope: None, kind: type[Scope]) -> _Exit: ...
    @overload
    def __get__(self, scope: Scope, kind: type[Scope] | None = None) -> Leave: ...
    def __get__(self, scope: Scope | None, kind: type[Scope] | None = None) -> _Exit | Leave:
        if scope is None:
            return self
        opened = OpenScope()
        reference = scopes.reference_to(opened)
        leave = partial(scope._leave, reference)
        # As an argument it would be a local variable of `_leave()`, which a traceback keeps.
        vars(leave)["opened"] = opened
        _loaded.set((reference, scope._rules))
        return leave

    def __call__(
        self,
        scope: Scope,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the scope. Called by code that takes the method from the class, as `ExitStack` does."""
        scope.__exit__(kind, error, traceback)


class Scope:
    """Rules that apply inside a `with` block or a decorated function.

    A scope can be entered again while it is open, and by any number of threads and tasks.
    """

    __slots__ = ("_by_hand", "_rules")

    def __init__(self, specs: tuple[Spec, ...], rules: Rules) -> None:
        self._rules = rules
        # Scopes that were entered without a `with` statement. They are open at most as long as this object
        # exists.
        self._by_hand: dict[Reference, OpenScope] = {}
        with scopes.lock:
            _await_models(specs)

    def __enter__(self) -> None:
        reference = self._take_loaded() or self._opened_by_hand()
        try:
            # The patches stay when the scope is left: changing a class for each block would make it slow.
            with scopes.lock:
                patches.install(self._rules.options())
                scopes.enter(reference, self._rules)
        except BaseException:
            # `__exit__()` is not called if `__enter__()` fails.
            self._by_hand.pop(reference, None)
            raise

    __exit__ = _Exit()

    def _take_loaded(self) -> Reference | None:
        """Return the reference that the `with` statement has loaded, or None if there is none."""
        loaded = _loaded.get()
        _loaded.set(None)
        if loaded is not None and loaded[1] is self._rules and loaded[0]() is not None:
            return loaded[0]
        return None

    def _opened_by_hand(self) -> Reference:
        opened = OpenScope()
        reference = scopes.reference_to(opened)
        self._by_hand[reference] = opened
        return reference

    def _leave(self, reference: Reference, *_: object) -> None:
        """Close the scope of a `with` statement, or else the innermost one that this object opened."""
        if reference not in scopes.process.open_scopes:
            reference = scopes.innermost(self._rules, reference)
        scopes.leave(reference)
        self._by_hand.pop(reference, None)
        _tidy_up()

    def __call__(self, function: Decorated) -> Decorated:
        _check_decorated(function)
        body = _body(function)
        wrap = self._called
        if isgeneratorfunction(body):
            wrap = self._generated
        elif isasyncgenfunction(body):
            wrap = self._generated_async
        elif iscoroutinefunction(function) or iscoroutinefunction(body):
            wrap = self._awaited
        return cast("Decorated", wrap(function))

    def __repr__(self) -> str:
        entries = self._rules.entries
        on, off = self._rules.on(), [spec for spec, options in entries.items() if options is None]
        # No argument stands for every model.
        models = [repr(label_of(spec)) for spec in on or off if spec is not EVERYTHING]
        if not on:
            return f"no_bulk_signals({', '.join(models)})"
        exclude = [f"exclude={list(map(label_of, off))!r}"] if off else []
        options = [f"{name}={value}" for name, value in changed(entries[on[0]]).items()]
        return f"bulk_signals({', '.join([*models, *exclude, *options])})"

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

    def _generated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a generator function. The scope is only open while the body of the generator runs.

        `close()` reaches the body, too, as an exception at its `yield`.
        """

        @wraps(function)
        def within(*args: Any, **keywords: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **keywords)
            resume = partial(generator.send, None)
            while True:
                with self:
                    try:
                        value = resume()
                    except StopIteration as end:
                        return end.value
                try:
                    sent = yield value
                except BaseException as error:  # noqa: BLE001  # for the generator to handle
                    resume = partial(generator.throw, error)
                else:
                    resume = partial(generator.send, sent)

        return within

    def _generated_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap an async generator function in the same way."""

        @wraps(function)
        async def within(*args: Any, **keywords: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **keywords)
            resume = partial(generator.asend, None)
            while True:
                with self:
                    try:
                        value = await resume()
                    except StopAsyncIteration:
                        return
                try:
                    sent = yield value
                except BaseException as error:  # noqa: BLE001  # for the generator to handle
                    resume = partial(generator.athrow, error)
                else:
                    resume = partial(generator.asend, sent)

        return within


def _tidy_up() -> None:
    """Remove the patches if no scope needs them any more. If that is interrupted, the next scope does it."""
    with scopes.lock:
        if scopes.process.removal_due:
            _remove_if_all_is_off()


def _check_decorated(function: object) -> None:
    if isclass(function):
        raise TypeError(
            "bulk_signals() and no_bulk_signals() decorate functions, not the class "
            f"{function.__qualname__}; decorate its methods"
        )
    if not callable(function) or isinstance(function, staticmethod):
        raise TypeError(
            f"bulk_signals() and no_bulk_signals() decorate functions, not {function!r}; put them beneath "
            "@staticmethod, @classmethod or @property"
        )


def _body(function: Any) -> Any:
    """Return the function that runs in the end. For a callable object it is the `__call__` of its class."""
    while isinstance(function, partial):
        function = function.func
    return function if isroutine(function) else type(function).__call__


def _targets(spec: Spec) -> Iterable[Spec]:
    """Return the specs to ask about: the models of an app, or the spec itself."""
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
    scopes.process.removal_due = bool(scopes.process.open_scopes) or scopes.process.observe is not None
    if not scopes.process.removal_due:
        patches.remove()
