from __future__ import annotations

from tests.database import databases

DATABASES = databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.sessions",
    "auditlog",
    "easyaudit",
    "polymorphic",
    "reversion",
    "signal_patch.contrib.jobs",
    "simple_history",
    "tests",
    "tests.jobs",
    "tests.parity",
]
# Otherwise django-easy-audit listens to all models. The tests connect its receivers themselves.
DJANGO_EASY_AUDIT_WATCH_MODEL_EVENTS = False
DJANGO_EASY_AUDIT_WATCH_AUTH_EVENTS = False
DJANGO_EASY_AUDIT_WATCH_REQUEST_EVENTS = False
DJANGO_EASY_AUDIT_PROPAGATE_EXCEPTIONS = True
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "tests.jobs.urls"
SECRET_KEY = "for tests only"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
USE_TZ = True
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # Without it, an hstore is read as text.
    INSTALLED_APPS.insert(0, "django.contrib.postgres")
