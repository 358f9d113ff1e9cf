"""Records signals with the values of their instances at that moment."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.models import Model
    from django.dispatch import Signal

SIGNALS: dict[str, Signal] = {
    "pre_save": pre_save,
    "post_save": post_save,
    "pre_delete": pre_delete,
    "post_delete": post_delete,
}


def field_values(instance: Model) -> dict[str, Any]:
    """Return the instance's loaded concrete fields by attname, without fetching deferred ones."""
    loaded = instance.__dict__
    return {f.attname: loaded[f.attname] for f in instance._meta.concrete_fields if f.attname in loaded}


def _texts(values: dict[str, Any]) -> dict[str, tuple[type, str]]:
    return {name: (type(value), str(value)) for name, value in values.items()}


@dataclass(frozen=True)
class Sent:
    """One signal as a receiver saw it; ``values`` is a copy from that moment, ``instance`` lives on."""

    signal: str
    sender: type[Model]
    instance: Model
    arguments: dict[str, Any]
    values: dict[str, Any]


class Log(list[Sent]):
    """The signals in the order in which they came."""

    def of(self, signal: str) -> list[Sent]:
        return [sent for sent in self if sent.signal == signal]

    def names(self) -> list[str]:
        return [sent.signal for sent in self]


def _recorder(log: Log, name: str) -> Callable[..., None]:
    def record(sender: type[Model], instance: Model, **arguments: Any) -> None:
        arguments.pop("signal")
        log.append(Sent(name, sender, instance, arguments, field_values(instance)))

    return record


class Receivers:
    """Connect receivers that are disconnected, whatever happens, when the test ends."""

    def __init__(self) -> None:
        self._connected: list[tuple[Signal, Callable[..., object], Any]] = []

    def connect(self, signal: Signal, receiver: Callable[..., object], sender: Any = None) -> None:
        signal.connect(receiver, sender=sender, weak=False)
        self._connected.append((signal, receiver, sender))

    def adopt(self, signals: Iterable[Signal], receiver: Callable[..., object], sender: Any = None) -> None:
        """Disconnect this receiver, which something else has connected, when the test ends."""
        self._connected += [(signal, receiver, sender) for signal in signals]

    def record(self, *senders: type[Model]) -> Log:
        """Return a log of the four signals, of these senders or, if none is given, of all."""
        log = Log()
        for name, signal in SIGNALS.items():
            record = _recorder(log, name)
            for sender in senders or (None,):
                self.connect(signal, record, sender)
        return log

    def before_saves(self, model: type[Model], change: Callable[[Any], object]) -> None:
        """Change each instance of the model at `pre_save`."""

        def receive(instance: Model, **arguments: Any) -> None:
            change(instance)

        self.connect(pre_save, receive, model)

    def check_truth(self, model: type[Model]) -> list[bool]:
        """Return a list of whether the instances of `post_save` hold what their rows do, types included."""
        truth: list[bool] = []

        def compare(instance: Model, **arguments: Any) -> None:
            stored = model._base_manager.get(pk=instance.pk)
            truth.append(_texts(field_values(instance)) == _texts(field_values(stored)))

        self.connect(post_save, compare, model)
        return truth

    def disconnect_all(self) -> None:
        while self._connected:
            signal, receiver, sender = self._connected.pop()
            signal.disconnect(receiver, sender=sender)


@contextmanager
def receiving() -> Iterator[Receivers]:
    receivers = Receivers()
    try:
        yield receivers
    finally:
        receivers.disconnect_all()
