"""Settings of the workers: they share one database, whose name `__main__` passes on."""

from __future__ import annotations

import os

import django

from tests.database import databases

DATABASES = {"default": databases()["default"]}
DATABASES["default"]["NAME"] = os.environ["JOBS_DATABASE"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # There is one writer at a time, and the others may have to wait for a long time.
    DATABASES["default"]["OPTIONS"] = {"timeout": 60}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_tasks_db", "signal_patch.contrib.jobs", "tests.jobs", "tests.jobs.kills"]
SECRET_KEY = "for tests only"
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
USE_TZ = True
if django.VERSION < (6, 0):
    INSTALLED_APPS.insert(0, "django_tasks")
