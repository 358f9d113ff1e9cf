"""A panel for django-debug-toolbar, which shows the bulk operations of a request.

    DEBUG_TOOLBAR_PANELS = [*PANELS_DEFAULTS, "signal_patch.contrib.debug_toolbar.BulkSignalsPanel"]

It needs the `toolbar` extra. Neither it nor `signal_patch` has to be in INSTALLED_APPS.
"""

from __future__ import annotations

from signal_patch.contrib.debug_toolbar.panel import BulkSignalsPanel

__all__ = ["BulkSignalsPanel"]
