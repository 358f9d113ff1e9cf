"""Bulk operations that send signals.

Each function takes the queryset, Django's arguments, the options and Django's own method. None of them knows
about the switch.
"""

from __future__ import annotations

from signal_patch.dispatch.bulk_create import bulk_create
from signal_patch.dispatch.bulk_update import bulk_update
from signal_patch.dispatch.cascade_updates import update_batch
from signal_patch.dispatch.delete import delete, delete_queryset
from signal_patch.dispatch.update import update

__all__ = ["bulk_create", "bulk_update", "delete", "delete_queryset", "update", "update_batch"]
