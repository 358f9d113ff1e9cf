"""System checks, run with `signal_patch` in INSTALLED_APPS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from signal_patch import patches, scopes
from signal_patch.conf import Settings
from signal_patch.specs import covers, is_never_signalled, named

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_setting(**_: Any) -> list[checks.CheckMessage]:
    """E001, E002: the setting is wrong. With AUTOENABLE, start-up fails first."""
    try:
        settings = Settings()
        names = [*settings.models, *settings.exclude]
    except ImproperlyConfigured as error:
        return [
            checks.Error(
                str(error), hint="Correct SIGNAL_PATCH in the settings file.", id="signal_patch.E001"
            )
        ]
    return list(_wrong_names(names))


def check_models(**_: Any) -> list[checks.CheckMessage]:
    """W002: MODELS names something that can never send a signal."""
    if check_setting():
        return []
    return [
        checks.Warning(
            f"SIGNAL_PATCH['MODELS'] names {label!r}, which covers no model that signals are sent for.",
            hint="An automatic many-to-many table sends m2m_changed only. Name another, or remove it.",
            id="signal_patch.W002",
        )
        for label in Settings().models
        if not _covers_any(label)
    ]


def check_patches(**_: Any) -> list[checks.CheckMessage]:
    """W001: the switch is on, but a patched method has been replaced."""
    if not scopes.process.rules.on():
        return []
    return [
        checks.Warning(
            f"{owner.__name__}.{name} was replaced by {_whereabouts(vars(owner)[name])} after the switch was "
            "turned on; its rows may send no signals.",
            hint="Let the replacement call what it replaces, and carry it as __wrapped__ as functools.wraps "
            "does; or call signal_patch.enable() after it.",
            id="signal_patch.W001",
        )
        for owner, name, _ in patches.ROADS + patches.MARKS
        if patches.ours(owner, name) is None
    ]


def _wrong_names(labels: Iterable[str]) -> Iterable[checks.CheckMessage]:
    for error in filter(None, map(_wrong, labels)):
        yield checks.Error(
            f"SIGNAL_PATCH: {error}", hint="Write 'app_label.Model' or 'app_label'.", id="signal_patch.E002"
        )


def _wrong(label: str) -> Exception | None:
    try:
        named([label])
    except (LookupError, ValueError) as error:
        return error
    return None


def _covers_any(label: str) -> bool:
    (spec,) = named([label])
    return any(covers(spec, model) and not is_never_signalled(model) for model in apps.get_models())


def _whereabouts(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
