"""A shop whose bulk updates reach its receivers: the two last settings are all that it takes."""

from __future__ import annotations

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "for the example only"
USE_TZ = True

INSTALLED_APPS = ["catalogue.apps.CatalogueConfig", "signal_patch"]
SIGNAL_PATCH = {"MODELS": ["catalogue.Product"]}
