"""System checks, run with `signal_patch` in INSTALLED_APPS."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from signal_patch import callers, patches, scopes
from signal_patch.callers import QUIET
from signal_patch.conf import Settings
from signal_patch.specs import covers, is_never_signalled, named


def check_setting(**_: Any) -> list[checks.CheckMessage]:
    """E001, E002: the setting is wrong. Except with `manage.py check`, Django has already failed to start."""
    try:
        wrong = Settings().wrong_names()
    except ImproperlyConfigured as error:
        return [
            checks.Error(
                str(error), hint="Correct SIGNAL_PATCH in the settings file.", id="signal_patch.E001"
            )
        ]
    hint = "Write 'app_label.Model' or 'app_label'."
    return [checks.Error(message, hint=hint, id="signal_patch.E002") for message in wrong]


def check_models(**_: Any) -> list[checks.CheckMessage]:
    """W002: MODELS names something that can never send a signal."""
    if check_setting():
        return []
    return [
        checks.Warning(
            f"SIGNAL_PATCH['MODELS'] names {label!r}, which covers no model that sends signals.",
            hint="An auto-created many-to-many table sends m2m_changed only. Name another, or remove it.",
            id="signal_patch.W002",
        )
        for label in Settings().models
        if not _covers_any(label)
    ]


def check_quiet(**_: Any) -> list[checks.CheckMessage]:
    """W003: QUIET names something in an installed package that is not a function."""
    if check_setting():
        return []
    return [
        checks.Warning(
            f"SIGNAL_PATCH['QUIET'] names {path!r}, which is not a function.",
            hint="Write the dotted path under which the function is defined, or remove it.",
            id="signal_patch.W003",
        )
        for path in Settings().quiet
        if not _is_function(path)
    ]


def check_observe_ignore(**_: Any) -> list[checks.CheckMessage]:
    """W004: OBSERVE_IGNORE names something that is not there."""
    if check_setting():
        return []
    return [
        checks.Warning(
            f"SIGNAL_PATCH['OBSERVE_IGNORE'] names {path!r}, which cannot be found.",
            hint="Write the dotted path of a package, module, class or function, or remove it.",
            id="signal_patch.W004",
        )
        for path in Settings().observe_ignore
        if not _may_exist(path)
    ]


def check_patches(**_: Any) -> list[checks.CheckMessage]:
    """W001: the switch is on, but a patched method has been replaced."""
    if not scopes.process.rules.on():
        return []
    return [
        checks.Warning(
            f"{owner.__name__}.{name} was replaced by {_dotted_path(vars(owner)[name])} after the switch was "
            "turned on; calls of it may send no signals.",
            hint="Let the replacement call the method that it replaces and keep it in __wrapped__, as "
            "functools.wraps() does; or call signal_patch.enable() after the replacement.",
            id="signal_patch.W001",
        )
        for owner, name, _ in patches.ENTRY_POINTS + patches.ROW_MARKERS
        if patches.ours(owner, name) is None
    ]


def _covers_any(label: str) -> bool:
    (spec,) = named([label])
    return any(covers(spec, model) and not is_never_signalled(model) for model in apps.get_models())


def _is_function(path: str) -> bool:
    package = path.partition(".")[0]
    # The default paths belong to libraries that may not be installed.
    if package not in sys.modules and find_spec(package) is None:
        return path in QUIET
    for module in accumulate(path.split(".")[:-1], "{}.{}".format):
        with suppress(ImportError):
            # The last part may name a class, which cannot be imported.
            import_module(module)
    return callers.code_at(path) is not None


def _may_exist(path: str) -> bool:
    """Return whether a package, module, class or function may have this dotted path.

    Imports no module, because a script may do its work when it is imported.
    """
    name, *parts = path.split(".")
    if name == "__main__" or name not in sys.modules:
        return name == "__main__" or find_spec(name) is not None
    found: Any = sys.modules[name]
    for part in parts:
        is_package = hasattr(found, "__path__")
        name = f"{name}.{part}"
        found = sys.modules.get(name) or getattr(found, part, None)
        if found is None:
            return is_package and find_spec(name) is not None
    return True


def _dotted_path(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"


ALL = (check_setting, check_models, check_quiet, check_observe_ignore, check_patches)
