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
    """Turns the switch on when the models are loaded, as the setting `SIGNAL_PATCH` says."""

    name = "signal_patch"
    verbose_name = "Signals for bulk operations"

    def ready(self) -> None:
        # Imported here, because Django imports this module before the models are loaded.
        from signal_patch.checks import ALL

        for check in ALL:
            checks.register(check)
        setting_changed.connect(_follow_overrides, dispatch_uid="signal_patch")
        try:
            _apply_setting()
        except ImproperlyConfigured:
            # The `check` command reports a wrong setting itself. With any other command, Django must not
            # start.
            if not _is_command("check"):
                raise
        if _is_command("test"):
            # ready() may run again within a test, but the report must be written only once.
            atexit.unregister(_report_observation)
            atexit.register(_report_observation)


def _apply_setting() -> None:
    """Apply the setting; raise ImproperlyConfigured, and change nothing, if it is wrong."""
    from signal_patch.conf import Settings
    from signal_patch.switch import disable_by_setting, enable_by_setting

    settings = Settings()
    wrong = settings.wrong_names() if settings.autoenable else []
    if wrong:
        raise ImproperlyConfigured("\n".join(wrong))
    _apply_other_keys(settings)
    if settings.autoenable:
        enable_by_setting(settings.models, settings.exclude, settings.options)
    else:
        disable_by_setting()


def _report_observation() -> None:
    """Write the table of observed operations below the output of `manage.py test`."""
    if "signal_patch.observing" in sys.modules:
        from signal_patch.observing import report

        sys.stderr.write(report())


def _apply_other_keys(settings: Settings) -> None:
    """Apply the keys of the setting that do not concern the switch."""
    from signal_patch import callers
    from signal_patch.signals import limits

    callers.quiet.replace(settings.quiet)
    limits.warn_rows, limits.max_rows = settings.warn_rows, settings.max_rows
    # The module is not loaded in projects that do not observe.
    if settings.observe or "signal_patch.observing" in sys.modules:
        from signal_patch.observing import observe_process

        observe_process(settings.observe, settings.observe_ignore)


def _follow_overrides(*, setting: str, enter: bool, **_: Any) -> None:
    """Apply a setting that `override_settings()` changes, and restore the earlier state afterwards."""
    # Imported here, because Django imports this module before the models are loaded.
    from signal_patch import scopes, switch
    from signal_patch.conf import Settings

    is_installed = apps.is_installed("signal_patch")
    overridden = scopes.process.overridden
    if setting == "SIGNAL_PATCH" and enter:
        overridden.append(scopes.process.rules)
        if is_installed:
            _apply_setting()
    elif setting == "SIGNAL_PATCH" and overridden:
        switch.restore(overridden.pop())
        _apply_other_keys(Settings())
    if not is_installed:
        # The app was installed by an override of INSTALLED_APPS that ends now.
        switch.disable_by_setting()
        _apply_other_keys(Settings({}))


def _is_command(name: str) -> bool:
    """Return whether `manage.py` is starting this command.

    Looks for ManagementUtility.execute (Django 5.2 to 6.1) on the stack, because another program may have the
    same arguments.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is ManagementUtility.execute.__code__:
            return bool(frame.f_locals["self"].argv[1:2] == [name])
        frame = frame.f_back
    return False
