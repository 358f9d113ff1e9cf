"""The packages, and the settings that each needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9")


@dataclass(frozen=True)
class Package:
    distribution: str
    apps: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    database: str = "sqlite"
    connection: dict[str, Any] = field(default_factory=dict)
    migrate: bool = False


# By the name of the module in `runs` that tries it.
PACKAGES: dict[str, Package] = {
    "simple_history": Package("django-simple-history", ("simple_history",)),
    "auditlog": Package("django-auditlog", ("auditlog",)),
    "easy_audit": Package(
        "django-easy-audit",
        ("django.contrib.sessions", "easyaudit"),
        {
            "DJANGO_EASY_AUDIT_WATCH_AUTH_EVENTS": False,
            "DJANGO_EASY_AUDIT_WATCH_REQUEST_EVENTS": False,
            "DJANGO_EASY_AUDIT_PROPAGATE_EXCEPTIONS": True,
        },
    ),
    "reversion": Package("django-reversion", ("reversion",)),
    "cacheops": Package(
        "django-cacheops",
        ("cacheops",),
        {"CACHEOPS_REDIS": REDIS, "CACHEOPS": {"packages.*": {"ops": "all", "timeout": 60}}},
    ),
    "cachalot": Package(
        "django-cachalot",
        ("cachalot",),
        {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}},
    ),
    "dirtyfields": Package("django-dirtyfields"),
    "model_utils": Package("django-model-utils"),
    "polymorphic": Package("django-polymorphic", ("polymorphic",)),
    "typed_models": Package("django-typed-models"),
    "mptt": Package("django-mptt", ("mptt",)),
    "treebeard": Package("django-treebeard", ("treebeard",)),
    "safedelete": Package("django-safedelete", ("safedelete",)),
    "fsm": Package("django-fsm"),
    "money": Package("django-money", ("djmoney",)),
    "modeltranslation": Package(
        "django-modeltranslation",
        ("modeltranslation",),
        {
            "LANGUAGES": [("en", "English"), ("de", "German")],
            "LANGUAGE_CODE": "en",
            "MODELTRANSLATION_TRANSLATION_FILES": ("tests.packages.modeltranslation_fields",),
        },
    ),
    "parler": Package(
        "django-parler",
        ("parler",),
        {"LANGUAGES": [("en", "English"), ("de", "German")], "LANGUAGE_CODE": "en"},
    ),
    "psqlextra": Package(
        "django-postgres-extra",
        ("django.contrib.postgres", "psqlextra"),
        database="postgres",
        connection={"ENGINE": "psqlextra.backend"},
    ),
    "pgtrigger": Package("django-pgtrigger", ("pgtrigger",), database="postgres"),
    "pghistory": Package("django-pghistory", ("pgtrigger", "pghistory"), database="postgres"),
    "lifecycle": Package("django-lifecycle", ("django_lifecycle_checks",)),
    "computedfields": Package("django-computedfields", ("computedfields",)),
    "import_export": Package("django-import-export", ("import_export",)),
    "celery_beat": Package("django-celery-beat", ("django_celery_beat",)),
    "tenants": Package(
        "django-tenants",
        database="postgres",
        connection={"ENGINE": "django_tenants.postgresql_backend"},
        settings={
            "SHARED_APPS": ["django_tenants", "tests.packages", "django.contrib.contenttypes"],
            "TENANT_APPS": ["django.contrib.contenttypes", "tests.packages"],
            "TENANT_MODEL": "packages.Client",
            "TENANT_DOMAIN_MODEL": "packages.Domain",
            "INSTALLED_APPS": ["django_tenants", "django.contrib.contenttypes", "tests.packages"],
            "DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"],
        },
    ),
    "wagtail": Package(
        "wagtail",
        (
            "wagtail.users",
            "wagtail.images",
            "wagtail.documents",
            "wagtail.search",
            "wagtail.admin",
            "wagtail",
            "taggit",
            "modelcluster",
        ),
        {"WAGTAIL_SITE_NAME": "runs", "WAGTAILADMIN_BASE_URL": "http://localhost"},
        # They make the table that is searched.
        migrate=True,
    ),
    "bulk_hooks": Package("django-bulk-hooks"),
    "fieldsignals": Package("django-fieldsignals"),
    "q_signals": Package(
        "django-q-signals", ("django_q",), {"Q_CLUSTER": {"name": "runs", "orm": "default"}}
    ),
    "sentry": Package("sentry-sdk"),
    "debug_toolbar": Package(
        "django-debug-toolbar",
        ("django.contrib.staticfiles", "debug_toolbar"),
    ),
    "zeal": Package("django-zeal", ("zeal",)),
    "factory": Package("factory_boy"),
}
