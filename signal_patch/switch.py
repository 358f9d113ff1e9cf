"""The switch: it writes the scopes, and puts the patches on and takes them off."""

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

# What the `with` statement that is about to enter a scope keeps open, and that scope's rules.
_loaded: Final[ContextVar[tuple[Reference, Rules] | None]] = ContextVar("signal_patch_loaded", default=None)


def enable(*models: Spec, exclude: Iterable[Spec] = (), **options: Unpack[Keywords]) -> None:
    """Turn signals of bulk operations on in this process: for these models or, if none is named, for all.

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
    origin = scopes.Origin("enable()", callers.call_site())
    with scopes.lock:
        _turn_on(scopes.process.rules, on, off, chosen, origin)


def disable(*models: Spec, **options: NoReturn) -> None:
    """Turn them off in this process: for these models or, if none is named, for all.

    Scopes that are open stay as they are. When nothing is left on, and no scope is open, Django's own
    methods are back in place.

        disable("shop.Price")
    """
    off = named(models) or (EVERYTHING,)
    if options:
        raise TypeError(
            f"disable() takes models only, not {', '.join(map(repr, options))}; to keep some on, "
            "enable() them after it"
        )
    origin = scopes.Origin("disable()", callers.call_site())
    with scopes.lock:
        _await_models(off)
        scopes.process.rules = scopes.process.rules.turned(off, None, origin)
        _remove_if_all_is_off()


def enable_by_setting(models: Iterable[str], exclude: Iterable[str], options: Keywords) -> None:
    """Turn on what the setting says, instead of what it said before: after all that was turned by calls."""
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
    """Have the process's rules be these."""
    with scopes.lock:
        scopes.process.rules = rules
        if rules.on():
            patches.install(rules.options())
        _remove_if_all_is_off()


def set_observer(observe: scopes.Observe | None) -> None:
    """Have the bulk operations that send nothing run by this function, or by themselves."""
    with scopes.lock:
        scopes.process.observe = observe
        if observe is not None:
            patches.install(())
            patches.install_async()
        elif scopes.process.removal_due:
            _remove_if_all_is_off()


def is_enabled(model: Spec | None = None, operation: Operation | None = None) -> bool:
    """Say whether bulk operations send signals here and now: of this model, or of any; this one, or any.

    A model is on, too, if the querysets of one of its managers have the mixin. Without a model, the
    question is whether the switch is on for any.

        is_enabled("shop.Price", "update")
    """
    if operation is not None:
        if not isinstance(operation, str):
            raise TypeError("is_enabled() takes one model and the name of one operation; ask for each model")
        check_operation(operation)
    if model is None:
        return scopes.is_anything_on(operation)
    return any(_is_on(target, operation) for target in _targets(*named([model])))


def _is_on(target: Spec, operation: Operation | None) -> bool:
    if scopes.is_on(target, operation):
        return True
    # The base of all models has no managers; nor has a label, before the models are loaded.
    return (
        not isinstance(target, str) and target is not EVERYTHING and scopes.is_on_by_mixin(target, operation)
    )


def _turn_on(
    rules: Rules, on: tuple[Spec, ...], off: tuple[Spec, ...], options: Options, origin: scopes.Origin
) -> None:
    """Make the process's rules of these; call it under the lock."""
    _await_models((*on, *off, *options.batch_inserts))
    # First, as an exception may come in between: patches alone change nothing.
    patches.install([options])
    scopes.process.rules = rules.turned(on, options, origin).turned(off, None, origin)
    scopes.process.removal_due = False


def bulk_signals(*models: Spec, exclude: Iterable[Spec] = (), **options: Unpack[Keywords]) -> Scope:
    """Turn signals of bulk operations on in a `with` block or a decorated function, plain or `async`.

    It holds in this thread or task, and in what that awaits or hands to `sync_to_async`. Scopes nest: the
    innermost that covers a model wins, and turns the models in `exclude` off. The arguments are
    those of `enable()`.

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
    """Turn them off in a `with` block or a decorated function, whatever the process or outer scopes say.

    with no_bulk_signals("shop.Price"):
        Price.objects.update(currency="EUR")
    """
    off = named(models) or (EVERYTHING,)
    origin = scopes.Origin("no_bulk_signals()", callers.call_site())
    return Scope(off, scopes.NOTHING.turned(off, None, origin))


class _Exit:
    """`Scope.__exit__`: a function of its own for each `with` statement.

    The exception of a signal handler may come at the first instruction of `__exit__()`, before that has done
    anything. So a scope is open while an `OpenScope` exists to which only this function refers; both are gone
    with the statement. The statement loads `__exit__` before it calls `__enter__()` ("The with statement" in
    Python's language reference).
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
        # An argument would be a variable of `_leave()`, which a traceback keeps.
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
        """Leave the scope, for whoever takes the method from the class, as `ExitStack` does."""
        scope.__exit__(kind, error, traceback)


class Scope:
    """What holds inside a `with` block or a decorated function.

    One object may be entered again while it is open, and by any number of threads and tasks.
    """

    __slots__ = ("_by_hand", "_rules")

    def __init__(self, specs: tuple[Spec, ...], rules: Rules) -> None:
        self._rules = rules
        # What was entered without a `with` statement is open for as long as there is this object, at most.
        self._by_hand: dict[Reference, OpenScope] = {}
        with scopes.lock:
            _await_models(specs)

    def __enter__(self) -> None:
        reference = self._take_loaded() or self._opened_by_hand()
        try:
            # The patches stay when the scope is left: to change a class for each block makes it slow.
            with scopes.lock:
                patches.install(self._rules.options())
                scopes.enter(reference, self._rules)
        except BaseException:
            # Nobody leaves what has not been entered.
            self._by_hand.pop(reference, None)
            raise

    __exit__ = _Exit()

    def _take_loaded(self) -> Reference | None:
        """Return what the `with` statement that enters this scope keeps open, if it is one."""
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
        """Close what a `with` statement has opened or, by hand, the innermost that this object has opened."""
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
        """Run it as its caller would, with the scope open while its body runs only; close() throws, too."""

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
        """As `_generated`, of an async generator function."""

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
    """Take the patches off if this was the last scope to need them; it may be left to the next one."""
    with scopes.lock:
        if scopes.process.removal_due:
            _remove_if_all_is_off()


def _check_decorated(function: object) -> None:
    if isclass(function):
        raise TypeError(f"a scope decorates functions, not the class {function.__qualname__}")
    if not callable(function) or isinstance(function, staticmethod):
        raise TypeError(f"a scope decorates functions, not {function!r}: put it beneath that")


def _body(function: Any) -> Any:
    """Return the function that runs in the end: of an object that can be called, its class's `__call__`."""
    while isinstance(function, partial):
        function = function.func
    return function if isroutine(function) else type(function).__call__


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
    scopes.process.removal_due = bool(scopes.process.open_scopes) or scopes.process.observe is not None
    if not scopes.process.removal_due:
        patches.remove()
