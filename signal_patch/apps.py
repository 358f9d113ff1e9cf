from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class SignalPatchConfig(AppConfig):
    """Turns the switch on, as the setting `SIGNAL_PATCH` says, when the models are loaded."""

    name = "signal_patch"
    verbose_name = "Signals for bulk operations"

    def ready(self) -> None:
        # Not at the top: they read settings.
        from signal_patch.checks import check_models, check_patches, check_setting
        from signal_patch.conf import Settings
        from signal_patch.switch import enable

        for check in (check_setting, check_models, check_patches):
            checks.register(check)
        settings = Settings()
        if settings.autoenable:
            enable(*settings.models, exclude=settings.exclude, **settings.options)
