"""Settings of processes that work on an SQLite file together."""

from __future__ import annotations

import os

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["JOBS_FILE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["signal_patch.contrib.jobs", "tests.jobs"]
SECRET_KEY = "for tests only"
USE_TZ = True
