"""The setting `SIGNAL_PATCH`, read anew at each access."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from signal_patch.options import Keywords, Options

_NAMES = ("MODELS", "EXCLUDE")
_OPTIONS = (
    "OPERATIONS",
    "BATCH_SIZE",
    "LOCK",
    "WRITE_BACK",
    "PROGRESS",
    "DELETE_BATCH_SIZE",
    "PREFETCH",
    "BATCH_INSERTS",
    "BATCH_READS",
)
_VALID = (*_NAMES, *_OPTIONS, "AUTOENABLE")


class Settings:
    """
    What `signal_patch` in INSTALLED_APPS turns on.

    ImproperlyConfigured, at each access, if anything in the setting is wrong; whether the models that it
    names exist is for the switch to say.
    """

    @property
    def models(self) -> list[str]:
        return list(self._given().get("MODELS", []))

    @property
    def exclude(self) -> list[str]:
        return list(self._given().get("EXCLUDE", []))

    @property
    def options(self) -> Keywords:
        return _options(self._given())

    @property
    def autoenable(self) -> bool:
        return bool(self._given().get("AUTOENABLE", True))

    def _given(self) -> dict[str, Any]:
        given = getattr(settings, "SIGNAL_PATCH", {})
        _check_keys(given)
        for name in _NAMES:
            _check_labels(name, given.get(name, []))
        _check_models(given)
        _check_autoenable(given.get("AUTOENABLE", True))
        _check_options(given)
        return given


def _check_keys(given: object) -> None:
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"SIGNAL_PATCH must be a dictionary, not {given!r}")
    unknown = [key for key in given if key not in _VALID]
    if unknown:
        raise ImproperlyConfigured(f"SIGNAL_PATCH: unknown keys {unknown}; valid are {', '.join(_VALID)}")


def _check_labels(name: str, labels: Any) -> None:
    collection = isinstance(labels, list | tuple | set | frozenset)
    if not collection or not all(isinstance(label, str) for label in labels):
        raise ImproperlyConfigured(
            f"SIGNAL_PATCH[{name!r}] must be a list of labels such as 'shop.Book' or 'shop', not {labels!r}"
        )


def _check_models(given: dict[str, Any]) -> None:
    # A list made from the environment, say: whoever gives none does not mean all.
    if "MODELS" in given and not given["MODELS"]:
        raise ImproperlyConfigured(
            "SIGNAL_PATCH['MODELS'] is empty; left out, it means every model, and 'AUTOENABLE': False none"
        )


def _check_autoenable(value: object) -> None:
    if not isinstance(value, bool):
        raise ImproperlyConfigured(f"SIGNAL_PATCH['AUTOENABLE'] must be True or False, not {value!r}")


def _check_options(given: dict[str, Any]) -> None:
    try:
        Options.from_keywords(_options(given))
    except (TypeError, ValueError, ImportError) as error:
        raise ImproperlyConfigured(f"SIGNAL_PATCH: {error}") from error


def _options(given: dict[str, Any]) -> Keywords:
    return {name.lower(): given[name] for name in _OPTIONS if name in given}  # type: ignore[return-value]  # the keys of Keywords, in lower case
