from __future__ import annotations

from importlib.util import find_spec

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
    *(["tests.parity"] if find_spec("tests.parity") else []),
]
SECRET_KEY = "for tests only"
USE_TZ = True
