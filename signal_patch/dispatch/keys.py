"""How a statement names rows by their primary keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import CharField, DecimalField, F, IntegerField, Lookup, Q, TextField, UUIDField

from . import fields

if TYPE_CHECKING:
    from django.db.models import Field, Model

if TYPE_CHECKING:
    _Lookup = Lookup[Any]
else:
    _Lookup = Lookup

IN_JSON_ARRAY = "IN (SELECT value FROM json_each(%s))"
# Below this an IN list costs nothing worth mentioning, and reads better in a log.
FEW = 50
# What a whole number in an array, or in JSON, may be.
_INT64 = range(-(2**63), 2**63)


def condition(model: type[Model], keys: Sequence[Any], connection: Any) -> Any:
    """Return the condition that holds for exactly the rows that `pk__in=keys` finds.

    Thousands of parameters are most of the price of a statement, so the keys go into two
    parameters or one wherever that is the same set.
    """
    pk: Any = model._meta.pk
    if len(keys) > 2 and fields.is_plain(pk) and not model._meta.is_composite_pk:
        if _are_without_gap(pk, keys):
            return Q(pk__gte=min(keys), pk__lte=max(keys))
        if len(keys) > FEW and Among.is_possible(pk, keys, connection):
            return Among(F("pk"), keys)
    return Q(pk__in=list(keys))


def refuse_shared(model: type[Model], keys: Sequence[Any]) -> None:
    """Raise an IntegrityError if two of the rows that were found have one key, or if one has none.

    A legacy table, or that of an unmanaged model, may lack the primary key that the model declares:
    a statement by keys would change other rows than those chosen.
    """
    refuse_null(model, keys)
    if _are_distinct(keys):
        return
    shared = next(key for key, count in Counter(keys).items() if count > 1)
    raise _error(
        model, f"several have the key {shared!r}. Bulk operations that send signals need unique keys."
    )


def refuse_null(model: type[Model], keys: Sequence[Any]) -> None:
    """Raise an IntegrityError if one of the rows that were found has NULL as its key, or as a part of it."""
    if None in keys or (model._meta.is_composite_pk and any(None in key for key in keys)):
        raise _error(
            model, "one has NULL there. Bulk operations that send signals need keys that are not NULL."
        )


def _error(model: type[Model], wrong: str) -> IntegrityError:
    opts = model._meta
    names = ", ".join(field.name for field in opts.pk_fields)
    key = f"{opts.label} ({names})" if opts.is_composite_pk else f"{opts.label}.{names}"
    return IntegrityError(f"The primary key {key} does not identify the rows of {opts.db_table!r}: {wrong}")


def _are_distinct(keys: Sequence[Any]) -> bool:
    try:
        return len(set(keys)) == len(keys)
    except TypeError:
        # Keys of a class without a hash can't be told apart here; the statement's count tells.
        return True


def _are_without_gap(pk: Field[Any, Any], keys: Sequence[Any]) -> bool:
    # Whole numbers without a gap are the same set as the range between their ends, if the column
    # has whole numbers only.
    return _are_numbers(pk, keys) and max(keys) - min(keys) == len(keys) - 1 and len(set(keys)) == len(keys)


def _are_numbers(pk: Field[Any, Any], keys: Sequence[Any]) -> bool:
    return fields.is_of_class(pk, IntegerField) and _are_of_type(keys, int)


def _are_texts(pk: Field[Any, Any], keys: Sequence[Any]) -> bool:
    return fields.is_of_class(pk, CharField, TextField) and _are_of_type(keys, str)


def _are_of_type(keys: Sequence[Any], kind: type) -> bool:
    return set(map(type, keys)) == {kind}


class Among(_Lookup):
    """`IN`, with all the values in one parameter: an array, or a JSON array.

    For values that need no preparation, as their field and their type say.
    """

    lookup_name = "among"
    prepare_rhs = False

    @classmethod
    def is_possible(cls, pk: Field[Any, Any], keys: Sequence[Any], connection: Any) -> bool:
        """Return whether the database can take such keys as one parameter, each as it is."""
        if _are_numbers(pk, keys):
            if min(keys) not in _INT64 or max(keys) not in _INT64:
                return False
            return cls._takes_json(connection) or connection.vendor == "postgresql"
        if connection.vendor == "postgresql":
            return _are_texts(pk, keys) or any(
                fields.is_of_class(pk, field) and _are_of_type(keys, kind)
                for field, kind in ((UUIDField, UUID), (DecimalField, Decimal))
            )
        # json_each() cuts a text at its first NUL.
        return cls._takes_json(connection) and _are_texts(pk, keys) and "\0" not in "".join(keys)

    @staticmethod
    def _takes_json(connection: Any) -> bool:
        return connection.vendor == "sqlite" and bool(connection.features.supports_json_field)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        # Not escaped, text that is no Unicode is refused by the driver, as in an IN list.
        return f"{sql} {IN_JSON_ARRAY}", (*params, json.dumps(self.rhs, ensure_ascii=False))

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        if type(self.rhs[0]) is int:
            # Too large a number for the column is in no row, and no error.
            return f"{sql} = ANY(%s::bigint[])", (*params, _array(map(str, self.rhs)))
        # Without a cast, each value is taken for one of the column's own type, as in an IN list, but
        # for its length, scale or precision, to which a cast would cut it.
        items = map(_quoted, self.rhs) if type(self.rhs[0]) is str else map(str, self.rhs)
        return f"{sql} = ANY(%s)", (*params, _array(items))


def _array(items: Iterable[str]) -> str:
    # Written out at once: the driver would look at each item by itself.
    return f"{{{','.join(items)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
