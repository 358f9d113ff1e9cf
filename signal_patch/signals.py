"""The signal `bulk_dispatched`, the limits on rows, and the receivers of the model signals.

`bulk_dispatched` is meant for metrics. It is sent after each batch of a bulk operation that has sent signals,
inside the operation's transaction or, with `atomic=False`, after each commit. Django logs exceptions of its
receivers. Its arguments:

- `sender`: the model; `using`: the alias of the database
- `operation`: "update", "bulk_update", "bulk_create" or "delete"
- `senders`: the classes of its rows, for which receivers were called
- `rows`: the number of rows in this batch; `done`, `total`: the number of rows so far, and in all
- `already_in_flight`: how many of the rows so far sent nothing, because they were already in flight
- `batches`, `statements`, `seconds`, `seconds_in_receivers`: of the operation so far. Statements of receivers
  are not counted. Django itself sends the signals of a delete, so there they are counted, and
  `seconds_in_receivers` is None
- `site`: the line of the project's code that called it, a `signal_patch.callers.Site`, or None
- `finished`: whether this was the last batch
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db.models.signals import ModelSignal, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

bulk_dispatched: Final = Signal()

# Operations are logged at DEBUG, those of more than WARN_ROWS rows at WARNING.
logger: Final = logging.getLogger("signal_patch")


class TooManyRows(RuntimeError):
    """A bulk operation has more rows than the setting MAX_ROWS allows; no signal has been sent."""


class Limits:
    """The settings WARN_ROWS and MAX_ROWS, in rows; None is no limit."""

    def __init__(self) -> None:
        self.warn_rows: int | None = 10_000
        self.max_rows: int | None = None


limits: Final = Limits()

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
    """Return the live receivers of a model by signal name, without signals that have none.

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
