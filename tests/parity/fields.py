"""Fields whose Python value is not what the column holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models.query_utils import DeferredAttribute


@dataclass(frozen=True)
class Colour:
    """A value object, as custom fields often return it."""

    red: int
    green: int
    blue: int

    def __str__(self) -> str:
        return f"{self.red:02x}{self.green:02x}{self.blue:02x}"

    @classmethod
    def parse(cls, text: str) -> Colour:
        return cls(*bytes.fromhex(text))


class ColourField(models.CharField):  # type: ignore[type-arg]  # generic in the stubs only
    """Stores a Colour as six hexadecimal digits; ``to_python`` takes either."""

    def from_db_value(self, value: str | None, *_: Any) -> Colour | None:
        return None if value is None else Colour.parse(value)

    def to_python(self, value: Any) -> Colour | None:
        return Colour.parse(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else str(self.to_python(value))


class WordsField(models.TextField):  # type: ignore[type-arg]  # generic in the stubs only
    """Stores a list of words, mutable on the instance; like many such fields, it has no ``to_python``."""

    def from_db_value(self, value: str | None, *_: Any) -> list[str] | None:
        return None if value is None else value.split()

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else " ".join(value)


class SetOnce(DeferredAttribute):
    """An attribute that refuses every assignment after the first value."""

    def __set__(self, instance: Any, value: Any) -> None:
        if self.field.attname in instance.__dict__:
            raise AttributeError(f"{self.field.name} may be set once only")
        instance.__dict__[self.field.attname] = value


class ProtectedField(models.CharField):  # type: ignore[type-arg]  # generic in the stubs only
    """A state that must not be assigned, as in libraries of state machines."""

    descriptor_class = SetOnce


def put(instance: Any, name: str, value: Any) -> None:
    """Set an attribute, by force if it refuses."""
    try:
        setattr(instance, name, value)
    except AttributeError:
        instance.__dict__[name] = value
