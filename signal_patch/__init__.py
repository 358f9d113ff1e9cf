"""Django's bulk operations send the signals that a loop of save() and delete() sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signal_patch.receivers.bulk_receiver import bulk_receiver
from signal_patch.switch import bulk_signals, disable, enable, is_enabled, no_bulk_signals

if TYPE_CHECKING:
    from signal_patch.observing import observe

__all__ = ["bulk_receiver", "bulk_signals", "disable", "enable", "is_enabled", "no_bulk_signals", "observe"]


def __getattr__(name: str) -> Any:
    """Import what few need at its first use."""
    if name == "observe":
        from signal_patch.observing import observe

        return observe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
