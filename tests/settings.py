from __future__ import annotations

from tests.database import databases

DATABASES = databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "auditlog",
    "easyaudit",
    "polymorphic",
    "reversion",
    "simple_history",
    "tests",
    "tests.parity",
]
# Otherwise it listens to all models. The tests connect its receivers where they want them.
DJANGO_EASY_AUDIT_WATCH_MODEL_EVENTS = False
DJANGO_EASY_AUDIT_WATCH_AUTH_EVENTS = False
DJANGO_EASY_AUDIT_WATCH_REQUEST_EVENTS = False
DJANGO_EASY_AUDIT_PROPAGATE_EXCEPTIONS = True
SECRET_KEY = "for tests only"
USE_TZ = True
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # Without it, what is in an hstore comes as text.
    INSTALLED_APPS.insert(0, "django.contrib.postgres")
