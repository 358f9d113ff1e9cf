"""Primary keys: one column, or several in a composite key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError

if TYPE_CHECKING:
    from django.db.models import Field, Model

    ModelField = Field[Any, Any]


def fields_of(model: type[Model]) -> tuple[ModelField, ...]:
    """Return the fields of the primary key, in their order: one, or the parts of a composite key."""
    fields: list[ModelField] = model._meta.pk_fields
    return tuple(fields)


def is_composite(model: type[Model]) -> bool:
    """Return whether the primary key consists of several columns; such a key is a tuple."""
    return bool(model._meta.is_composite_pk)


def is_part(model: type[Model], field: ModelField) -> bool:
    """Return whether a field is the primary key, or a part of it."""
    return field in model._meta.pk_fields


def getter(model: type[Model]) -> Callable[[Model], Any]:
    """Return a function that returns an instance's primary key, faster than `pk` does."""
    return attrgetter("pk" if is_composite(model) else model._meta.pk.attname)


def of_parts(parts: Sequence[Any]) -> Any:
    """Return the key with these values, one for each of its columns."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def case_over_key(model: type[Model], connection: Any) -> tuple[str, str]:
    """Return the operand of a CASE over the key, and the condition of its WHEN for one row.

    A CASE with an operand cannot compare several columns, so for a composite key the operand is empty.
    """
    columns = [connection.ops.quote_name(field.column) for field in fields_of(model)]
    if len(columns) == 1:
        return columns[0], "%s"
    return "", " AND ".join(f"{column} = %s" for column in columns)


def params_of_key(model: type[Model], connection: Any) -> Callable[[Any], Iterable[Any]]:
    """Return a function that turns a key into the parameters of `case_over_key()`."""
    fields = fields_of(model)
    if len(fields) == 1:
        prepare = fields[0].get_db_prep_value
        return lambda key: (prepare(key, connection),)
    return lambda key: [
        field.get_db_prep_value(part, connection) for field, part in zip(fields, key, strict=True)
    ]


def converter(model: type[Model]) -> Callable[[Any], Any]:
    """Return a function that converts a key to the Python types of its columns.

    The function raises ValidationError for a value that cannot be a key.
    """
    fields = fields_of(model)
    if len(fields) == 1:
        convert: Callable[[Any], Any] = fields[0].to_python
        return convert
    return lambda key: tuple(field.to_python(part) for field, part in zip(fields, key, strict=True))


def refuse_shared(model: type[Model], keys: Sequence[Any]) -> None:
    """Raise an IntegrityError if two of the rows have the same key, or if one has none.

    The table of an unmanaged model may lack the primary key that the model declares. A statement that names
    rows by their keys would then change other rows than the chosen ones.
    """
    refuse_null(model, keys)
    try:
        if len(set(keys)) == len(keys):
            return
    except TypeError:
        # Unhashable keys cannot be compared here. The number of rows that the statement matches will tell.
        return
    shared = next(key for key, count in Counter(keys).items() if count > 1)
    raise _error(
        model, f"several have the key {shared!r}. Bulk operations that send signals need unique keys."
    )


def refuse_null(model: type[Model], keys: Sequence[Any]) -> None:
    """Raise an IntegrityError if one of the rows has NULL as its key, or as a part of it."""
    if None in keys or (is_composite(model) and any(None in key for key in keys)):
        raise _error(
            model, "one has NULL there. Bulk operations that send signals need keys that are not NULL."
        )


def _error(model: type[Model], wrong: str) -> IntegrityError:
    opts = model._meta
    names = ", ".join(field.name for field in fields_of(model))
    key = f"{opts.label} ({names})" if is_composite(model) else f"{opts.label}.{names}"
    return IntegrityError(f"The primary key {key} does not identify the rows of {opts.db_table!r}: {wrong}")
