"""Fields that convert a value on its way to the column or back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import django
from django.db import models

if TYPE_CHECKING:
    BinaryField = models.BinaryField[Any, Any]
    CharField = models.CharField[Any, Any]
    TextField = models.TextField[Any, Any]
else:
    BinaryField = models.BinaryField
    CharField = models.CharField
    TextField = models.TextField


class LoweredField(CharField):
    """Text that is read in small letters, by a converter."""

    def get_db_converters(self, connection: Any) -> list[Any]:
        def lower(value: Any, expression: Any, connection: Any) -> Any:
            return value if value is None else value.lower()

        return [*super().get_db_converters(connection), lower]


class RaisedField(CharField):
    """Text that the statement itself turns into capitals."""

    # Django 6.1 warns about get_placeholder(), and older versions do not know get_placeholder_sql().
    if django.VERSION < (6, 1):

        def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
            return "UPPER(%s)"

    def get_placeholder_sql(self, value: Any, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        if not hasattr(value, "as_sql"):
            return "UPPER(%s)", (value,)
        sql, params = compiler.compile(value)
        return f"UPPER({sql})", tuple(params)


class SealedField(TextField):
    """Text or a list of words, sealed as encrypting fields do it: each save gives another result."""

    _seals = itertools.count()

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if value is None:
            return None
        return f"{next(self._seals)}:{'|'.join(value) if isinstance(value, list) else value}"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        if value is None:
            return None
        seal, colon, text = value.partition(":")
        assert seal.isdigit(), f"never sealed: {value!r}"
        assert colon, f"never sealed: {value!r}"
        return text.split("|") if "|" in text else text


class Gem:
    """A class without `__eq__`."""

    def __init__(self, name: str) -> None:
        self.name = name


class GemField(BinaryField):
    """A gem, sealed in a column of bytes."""

    _seals = itertools.count()

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if value is None:
            return None
        name = value.name if isinstance(value, Gem) else value
        return connection.Database.Binary(f"{next(self._seals)}:{name}".encode())

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Gem | None:
        return None if value is None else Gem(bytes(value).decode().partition(":")[2])


class LabelField(TextField):
    """Text. Saving a value of any other type fails."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return None if value is None else value.strip()
