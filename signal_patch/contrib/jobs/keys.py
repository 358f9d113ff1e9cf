"""Primary keys as text, and the position of a key between two others.

Only the database decides which of two keys comes first. It may use a collation or, like MariaDB for UUIDs, an
order of its own. What is computed here is an estimate: of progress, and of where to divide a lane.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from django.db.models import Model

# Text is measured by this many characters after the prefix that both ends share.
_LENGTH = 8
_BASE = 0x110000
_SURROGATES = range(0xD800, 0xE000)


def to_text(key: Any) -> str:
    return str(key)


def from_text(model: type[Model], text: str) -> Any:
    """Return the key that a text in the ledger stands for."""
    return model._meta.pk.to_python(text)


class Scale:
    """Measures keys between a low and a high one, if they are whole numbers, UUIDs or text."""

    def __init__(self, low: Any, high: Any) -> None:
        self._prefix = _common_length(low, high) if isinstance(low, str) else 0
        self._low = low
        self._start = self._number(low)
        self._end = self._number(high)

    def share(self, key: Any) -> float:
        """Return a key's position in the range, from 0 to 1; 0 for keys of other types."""
        width = self._end - self._start
        if width <= 0:
            return 0.0
        return min(max((self._number(key) - self._start) / width, 0.0), 1.0)

    def middle(self) -> Any:
        """Return a key near the middle of the range, or None for keys of other types."""
        number = (self._start + self._end) // 2
        if isinstance(self._low, int):
            return number
        if isinstance(self._low, UUID):
            return UUID(int=number)
        if isinstance(self._low, str):
            return self._low[: self._prefix] + _letters(number)
        return None

    def _number(self, key: Any) -> int:
        if isinstance(key, int):
            return key
        if isinstance(key, UUID):
            return key.int
        if isinstance(key, str):
            return _digits(key[self._prefix : self._prefix + _LENGTH])
        return 0


def _common_length(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _digits(text: str) -> int:
    number = 0
    for character in text.ljust(_LENGTH, "\0"):
        number = number * _BASE + ord(character)
    return number


def _letters(number: int) -> str:
    letters = []
    for _ in range(_LENGTH):
        number, code = divmod(number, _BASE)
        letters.append(chr(_SURROGATES.start - 1 if code in _SURROGATES else code))
    # NUL is only padding and must not reach the database.
    return "".join(reversed(letters)).partition("\0")[0]
