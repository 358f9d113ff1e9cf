"""Fields whose Python value is not what the column holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models


@dataclass(frozen=True)
class Colour:
    """A value object, as custom fields often give."""

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
