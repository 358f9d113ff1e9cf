"""Receivers that get lists of instances."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import update_wrapper
from inspect import isclass, isroutine, signature
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal
from django.utils.inspect import func_accepts_kwargs

from signal_patch.dispatch.signals.rounds import ListReceiver

Function = Callable[..., Any]

_VALID = {"pre_save": pre_save, "post_save": post_save, "pre_delete": pre_delete, "post_delete": post_delete}

# What every signal gives, and each besides (Model.save_base and Collector.delete, Django 5.2 to 6.1).
_EVERY = ("signal", "sender", "instances", "using")
_OTHERS: dict[Any, tuple[str, ...]] = {
    pre_save: ("raw", "update_fields"),
    post_save: ("created", "raw", "update_fields"),
    pre_delete: ("origin",),
    post_delete: ("origin",),
}


def bulk_receiver(
    signal: Signal | Sequence[Signal], **connect_arguments: Any
) -> Callable[[Function], BulkReceiver]:
    """Connect the decorated function, plain or `async`, to a signal, as a receiver of lists of instances.

    It gets `instances` instead of `instance`; the other arguments are those of the signal. A `save()` or a
    `delete()` of one object gives a list of one, whether or not the switch is on. A bulk operation calls it
    for each batch, after the other receivers, once for each sender and each set of equal other arguments.
    Calls for `pre_save` come before the write, and the function's changes are saved. Calls for `pre_delete`
    come before any row is deleted. All calls are inside the operation's transaction.

    `signal` is one of `pre_save`, `post_save`, `pre_delete` and `post_delete`, or a list of them;
    `connect_arguments` are those of `Signal.connect()`. The decorator
    replaces the function by a receiver; pass that to `Signal.disconnect()`. Signals hold it by a weak
    reference, like other receivers.

    Raises TypeError if the function cannot be called with these arguments, or if `sender` is not a single
    model; ValueError for another signal, or if the function does not accept keyword arguments.

        @bulk_receiver(post_save, sender="shop.Product")
        def reindex(sender, instances, **kwargs):
            index.add_all(instances)
    """
    if isroutine(signal):
        raise TypeError(
            "bulk_receiver() needs a signal: @bulk_receiver(post_save, sender=\N{HORIZONTAL ELLIPSIS})"
        )
    signals: Sequence[Any] = signal if isinstance(signal, list | tuple) else [signal]
    for given in signals:
        if given not in _VALID.values():
            raise ValueError(
                f"{_name(given)} cannot be used with bulk_receiver; valid are {', '.join(_VALID)}"
            )
    _check_sender(connect_arguments.get("sender"))

    def connect(function: Function) -> BulkReceiver:
        receiver = function if isinstance(function, BulkReceiver) else _receiver(function)
        for given in signals:
            _check_signature(receiver.function, given)
        for given in signals:
            given.connect(receiver, **connect_arguments)
        return receiver

    return connect


def _name(given: object) -> str:
    """Return the name of a signal, which the signal itself does not know."""
    if not isinstance(given, Signal):
        return repr(given)
    modules = [module for name, module in sys.modules.copy().items() if name.endswith("signals")]
    names = (name for module in modules for name, value in vars(module).items() if value is given)
    return next(names, f"this {type(given).__qualname__}")


def _check_sender(sender: object) -> None:
    if not (sender is None or isinstance(sender, str) or isclass(sender)):
        raise TypeError(
            "sender must be one model class or its label 'app_label.Model'; for several models, leave it out "
            "or decorate once for each"
        )


def _check_signature(function: Function, signal: Any) -> None:
    takes = signature(function)
    # Otherwise a parameter with a default value would only ever have this value.
    is_for_lists = "instances" in takes.parameters or "instance" not in takes.parameters
    try:
        takes.bind(**dict.fromkeys([*_EVERY, *_OTHERS[signal]]))
    except TypeError:
        is_for_lists = False
    if not is_for_lists:
        name = getattr(function, "__name__", "receiver")
        raise TypeError(
            f"{name}{takes} does not fit the signal: write {name}(sender, instances, **kwargs), where kwargs "
            f"holds signal, using, {', '.join(_OTHERS[signal])}"
        )


def _receiver(function: Function) -> BulkReceiver:
    if not func_accepts_kwargs(function):
        name = getattr(function, "__name__", "receiver")
        error = TypeError if "instances" not in signature(function).parameters else ValueError
        raise error(
            f"{name}() must accept keyword arguments (**kwargs), as every signal receiver: write "
            f"{name}(sender, instances, **kwargs)"
        )
    return AsyncBulkReceiver(function) if iscoroutinefunction(function) else BulkReceiver(function)


class BulkReceiver(ListReceiver):
    """A signal receiver that calls a function with lists of instances.

    Code and tests can also call it directly with `instances`, like the function itself.
    """

    __name__: str

    def __init__(self, function: Function) -> None:
        update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        if "instance" not in arguments:
            return self.function(*args, **arguments)
        if self.is_collected(arguments):
            return None
        return self.function(*args, **_with_list(arguments))

    def receive(self, arguments: dict[str, Any]) -> None:
        self.function(**arguments)


class AsyncBulkReceiver(BulkReceiver):
    """A `BulkReceiver` for a coroutine function."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        markcoroutinefunction(self)

    async def __call__(self, *args: Any, **arguments: Any) -> Any:
        if "instance" not in arguments:
            return await self.function(*args, **arguments)
        if self.is_collected(arguments):
            return None
        return await self.function(*args, **_with_list(arguments))

    def receive(self, arguments: dict[str, Any]) -> None:
        async_to_sync(self.function)(**arguments)


def _with_list(arguments: dict[str, Any]) -> dict[str, Any]:
    others = dict(arguments)
    return {"instances": [others.pop("instance")], **others}
