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
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # Without it, what is in an hstore comes as text.
    INSTALLED_APPS.insert(0, "django.contrib.postgres")
