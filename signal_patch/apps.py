from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig, apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.core.signals import setting_changed

if TYPE_CHECKING:
    from types import FrameType

    from signal_patch.conf import Settings


class SignalPatchConfig(AppConfig):
    """Turns the switch on, as the setting `SIGNAL_PATCH` says, when the models are loaded."""

    name = "signal_patch"
    verbose_name = "Signals for bulk operations"

    def ready(self) -> None:
        # Not at the top: it reads settings.
        from signal_patch.checks import check_models, check_patches, check_quiet, check_setting

        for check in (check_setting, check_models, check_quiet, check_patches):
            checks.register(check)
        setting_changed.connect(_follow_overrides, dispatch_uid="signal_patch")
        try:
            _turn_as_set()
        except ImproperlyConfigured:
            # Everywhere else a wrong setting ends the start-up.
            if not _is_command("check"):
                raise
        if _is_command("test"):
            # Made ready again within a test, it is to write once all the same.
            atexit.unregister(_report_observation)
            atexit.register(_report_observation)


def _turn_as_set() -> None:
    """Do what the setting says; ImproperlyConfigured, with nothing changed, if it is wrong."""
    from signal_patch.conf import Settings
    from signal_patch.switch import disable_by_setting, enable_by_setting

    settings = Settings()
    wrong = settings.wrong_names() if settings.autoenable else []
    if wrong:
        raise ImproperlyConfigured("\n".join(wrong))
    _set_others(settings)
    if settings.autoenable:
        enable_by_setting(settings.models, settings.exclude, settings.options)
    else:
        disable_by_setting()


def _report_observation() -> None:
    """Write the table of what has been observed, beneath what `manage.py test` has written."""
    if "signal_patch.observing" in sys.modules:
        from signal_patch.observing import report

        sys.stderr.write(report())


def _set_others(settings: Settings) -> None:
    """Do what the setting says of other things than the switch."""
    from signal_patch import callers
    from signal_patch.signals import limits

    callers.quiet.replace(settings.quiet)
    limits.warn_rows, limits.max_rows = settings.warn_rows, settings.max_rows
    # Who does not observe does not load it.
    if settings.observe or "signal_patch.observing" in sys.modules:
        from signal_patch.observing import observe_process

        observe_process(settings.observe, settings.observe_ignore)


def _follow_overrides(*, setting: str, enter: bool, **_: Any) -> None:
    """Do as `override_settings()` says, and back."""
    # Not at the top: an app's own module is to be imported before the models are loaded.
    from signal_patch import scopes, switch
    from signal_patch.conf import Settings

    is_installed = apps.is_installed("signal_patch")
    overridden = scopes.process.overridden
    if setting == "SIGNAL_PATCH" and enter:
        overridden.append(scopes.process.rules)
        if is_installed:
            _turn_as_set()
    elif setting == "SIGNAL_PATCH" and overridden:
        switch.restore(overridden.pop())
        _set_others(Settings())
    if not is_installed:
        # The app itself was there for the length of the override.
        switch.disable_by_setting()
        _set_others(Settings({}))


def _is_command(name: str) -> bool:
    """Return whether `manage.py` is starting this command.

    ManagementUtility.execute, Django 5.2 to 6.1. By the stack: another program may have such arguments.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is ManagementUtility.execute.__code__:
            return bool(frame.f_locals["self"].argv[1:2] == [name])
        frame = frame.f_back
    return False
