"""The setting `SIGNAL_PATCH`, read anew on each access."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from signal_patch.callers import QUIET
from signal_patch.options import Keywords, Options
from signal_patch.specs import named, suggestion

_NAMES = ("MODELS", "EXCLUDE")
_MODEL_OPTIONS = ("BATCH_INSERTS",)
_OPTIONS = tuple(field.name.upper() for field in fields(Options))
_VALID = (*_NAMES, *_OPTIONS, "AUTOENABLE", "QUIET", "OBSERVE", "OBSERVE_IGNORE", "WARN_ROWS", "MAX_ROWS")
_OBSERVE = (True, False, "log", "raise", "collect")


class Settings:
    """The values of the setting `SIGNAL_PATCH`, or of the dictionary given instead.

    Each access raises ImproperlyConfigured if anything in the setting is wrong; the message names the key.
    `wrong_names()` tells whether the models that the setting names exist.
    """

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        self._value = given

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

    @property
    def quiet(self) -> list[str]:
        return list(self._given().get("QUIET", QUIET))

    @property
    def observe(self) -> Any:
        """What to do with missed signals, or None if nothing is observed."""
        action = self._given().get("OBSERVE", False)
        return "log" if action is True else action or None

    @property
    def observe_ignore(self) -> list[str]:
        return list(self._given().get("OBSERVE_IGNORE", []))

    @property
    def warn_rows(self) -> int | None:
        return self._rows("WARN_ROWS", 10_000)

    @property
    def max_rows(self) -> int | None:
        return self._rows("MAX_ROWS", None)

    def wrong_names(self) -> list[str]:
        """Return a message for each label that names nothing. The models must be loaded."""
        given = self._given()
        return [
            f"SIGNAL_PATCH[{name!r}]: {error}"
            for name in (*_NAMES, *_MODEL_OPTIONS)
            for error in map(_wrong, given.get(name, []))
            if error
        ]

    def _rows(self, name: str, default: int | None) -> int | None:
        given: int | None = self._given().get(name, default)
        return given

    def _given(self) -> dict[str, Any]:
        given = getattr(settings, "SIGNAL_PATCH", {}) if self._value is None else self._value
        _check_keys(given)
        for name in _NAMES:
            _check_labels(name, given.get(name, []))
        _check_models(given)
        _check_autoenable(given.get("AUTOENABLE", True))
        _check_paths("QUIET", given.get("QUIET", []), "'shop.utils.import_books'")
        _check_observe(given.get("OBSERVE", False))
        _check_paths("OBSERVE_IGNORE", given.get("OBSERVE_IGNORE", []), "'shop.jobs' or 'shop.jobs.expire'")
        for name in ("WARN_ROWS", "MAX_ROWS"):
            _check_rows(name, given.get(name))
        _check_options(given)
        return given


def _check_keys(given: object) -> None:
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"SIGNAL_PATCH must be a dictionary, not {given!r}")
    for key in given:
        if key not in _VALID:
            raise _wrong_value(key, f"unknown key{suggestion(str(key).upper(), _VALID)}")


def _check_labels(name: str, labels: Any) -> None:
    collection = isinstance(labels, list | tuple | set | frozenset)
    if not collection or not all(isinstance(label, str) for label in labels):
        raise _wrong_value(name, f"must be a list of labels such as 'shop.Book' or 'shop', not {labels!r}")


def _check_models(given: dict[str, Any]) -> None:
    # A list that is made from the environment, say, may be empty without meaning all models.
    if "MODELS" in given and not given["MODELS"]:
        raise _wrong_value(
            "MODELS", "is empty; leave it out for every model, or set 'AUTOENABLE' to False for none"
        )


def _check_autoenable(value: object) -> None:
    if not isinstance(value, bool):
        raise _wrong_value("AUTOENABLE", f"must be True or False, not {value!r}")


def _check_paths(name: str, paths: Any, example: str) -> None:
    if not isinstance(paths, list | tuple | set | frozenset) or not all(map(_is_path, paths)):
        raise _wrong_value(name, f"must be a list of dotted paths such as {example}, not {paths!r}")


def _is_path(path: object) -> bool:
    return isinstance(path, str) and all(part.isidentifier() for part in path.split("."))


def _check_observe(value: object) -> None:
    if not isinstance(value, bool | str) or value not in _OBSERVE:
        raise _wrong_value("OBSERVE", f"must be one of {', '.join(map(repr, _OBSERVE))}, not {value!r}")


def _check_rows(name: str, value: object) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_number and value is not None:
        raise _wrong_value(name, f"must be a whole number of rows, or None for no limit, not {value!r}")


def _check_options(given: dict[str, Any]) -> None:
    """Check the options one by one, each together with those before it, so that errors name the right one."""
    keywords: dict[str, Any] = {}
    for name, value in _options(given).items():
        keywords[name] = value
        try:
            Options.from_keywords(keywords)  # type: ignore[arg-type]  # some of the keys of Keywords
        except LookupError:
            # A label that names nothing, which `wrong_names()` reports.
            del keywords[name]
        except (TypeError, ValueError, ImportError) as error:
            raise _wrong_value(name.upper(), str(error)) from error


def _options(given: dict[str, Any]) -> Keywords:
    return {name.lower(): given[name] for name in _OPTIONS if name in given}  # type: ignore[return-value]  # the keys of Keywords, in lower case


def _wrong_value(key: object, message: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"SIGNAL_PATCH[{key!r}]: {message}")


def _wrong(label: str) -> Exception | None:
    try:
        named([label])
    except (LookupError, ValueError) as error:
        return error
    return None
