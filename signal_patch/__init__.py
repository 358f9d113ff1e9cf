"""Django's bulk operations send the signals that a loop of save() and delete() sends."""

from __future__ import annotations

from signal_patch.receivers.bulk_receiver import bulk_receiver
from signal_patch.switch import bulk_signals, disable, enable, is_enabled, no_bulk_signals

__all__ = ["bulk_receiver", "bulk_signals", "disable", "enable", "is_enabled", "no_bulk_signals"]
