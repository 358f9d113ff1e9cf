from __future__ import annotations

from tests.database import databases

DATABASES = databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "auditlog",
    "polymorphic",
    "simple_history",
    "tests",
    "tests.parity",
]
SECRET_KEY = "for tests only"
USE_TZ = True
