from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class JobsConfig(AppConfig):
    """Finds the jobs in the `bulk_jobs` module of each installed app, as the admin finds `admin`."""

    name = "signal_patch.contrib.jobs"
    label = "signal_patch_jobs"
    verbose_name = "Bulk jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        autodiscover_modules("bulk_jobs")
