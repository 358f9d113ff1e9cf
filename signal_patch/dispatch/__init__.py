"""What a bulk operation does when it is to send signals.

Each takes the queryset, Django's arguments, the options and Django's original, and knows
nothing of the switch that led here.
"""

from __future__ import annotations

from signal_patch.dispatch.bulk_create import bulk_create
from signal_patch.dispatch.bulk_update import bulk_update
from signal_patch.dispatch.cascade_updates import update_batch
from signal_patch.dispatch.delete import delete, delete_in_batches
from signal_patch.dispatch.update import update

__all__ = ["bulk_create", "bulk_update", "delete", "delete_in_batches", "update", "update_batch"]
