"""Who listens to the signals of a model's rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db.models.signals import ModelSignal, post_delete, post_save, pre_delete, pre_save

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

BY_NAME: Final[dict[str, ModelSignal]] = {
    "pre_save": pre_save,
    "post_save": post_save,
    "pre_delete": pre_delete,
    "post_delete": post_delete,
}


class Listener(NamedTuple):
    """A receiver: its dotted path, and whether it is `async`."""

    path: str
    is_async: bool

    def __str__(self) -> str:
        return f"{self.path} (async)" if self.is_async else self.path


def listeners(model: type[Model], names: Iterable[str] = BY_NAME) -> dict[str, list[Listener]]:
    """Return the live receivers of a model's rows by the names of the signals, without signals nobody hears.

    Signal._live_receivers, Django 5.2 to 6.1.
    """
    found: dict[str, list[Listener]] = {}
    for name in names:
        called, awaited = BY_NAME[name]._live_receivers(model)
        heard = [Listener(_path(receiver), receiver in awaited) for receiver in [*called, *awaited]]
        if heard:
            found[name] = heard
    return found


def _path(receiver: Any) -> str:
    if isinstance(receiver, partial):
        return f"functools.partial({_path(receiver.func)})"
    if hasattr(receiver, "__qualname__"):
        return f"{receiver.__module__}.{receiver.__qualname__}"
    return f"{type(receiver).__module__}.{type(receiver).__qualname__}()"
