"""Makes Django's bulk operations send the signals that a loop of save() or delete() sends."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from signal_patch.receivers.bulk_receiver import bulk_receiver
from signal_patch.switch import bulk_signals, disable, enable, is_enabled, no_bulk_signals

if TYPE_CHECKING:
    from signal_patch.explaining import explain
    from signal_patch.observing import observe

__all__ = [
    "bulk_receiver",
    "bulk_signals",
    "disable",
    "enable",
    "explain",
    "is_enabled",
    "no_bulk_signals",
    "observe",
]

# Few projects need these, so they are imported when they are first used.
_MODULES = {"explain": "signal_patch.explaining", "observe": "signal_patch.observing"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
