"""The settings for one run of Django's tests; `runtests.py` adds apps, middleware and the rest.

Parallel workers import the settings too, so what is turned on here is on in every process.
"""

from __future__ import annotations

import os

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

# The settings that Django ships for this very run.
from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403  # all, from beside `runtests.py`

# Only upper-case names are settings, and one test of Django's wants to find no others.
mode = os.environ["DJANGO_SUITE_MODE"]

if os.environ["SIGNAL_PATCH_DB"] != "sqlite":
    from tests.database import databases

    DATABASES = databases()

TEST_RUNNER = "tests.django_suite.recorder.RecordingRunner"


def do_nothing(sender: object, **arguments: object) -> None:
    """A receiver of everything, because the library does nothing without receivers."""


if mode != "vanilla":
    for signal in (pre_save, post_save, pre_delete, post_delete):
        signal.connect(do_nothing)
if mode == "patched":
    import signal_patch

    signal_patch.enable()
