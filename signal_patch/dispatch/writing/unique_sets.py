"""Sets of unique columns, which identify rows and determine which rows are in conflict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.db.models import F, Q, Value
from django.db.models.expressions import DatabaseDefault, ExpressionWrapper

from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.values import columns, files
from signal_patch.dispatch.values.expressions import UNKNOWN

if TYPE_CHECKING:
    from django.db.models import Field, Model

    ModelField = Field[Any, Any]
    UniqueSet = tuple[ModelField, ...]
    Key = tuple[Any, ...]

# SQLite nests each condition in the previous one, and accepts expressions up to 1000 levels deep. Old
# versions accept 999 parameters.
CONDITIONS = 200
VALUES = 900


def unique_sets(model: type[Model]) -> list[UniqueSet]:
    """Return the sets of columns that are unique in a model's table, the primary key first."""
    # The Meta of a proxy does not list the constraints of its concrete model.
    opts: Any = columns.concrete(model)._meta
    sets: list[UniqueSet] = [fields_of(opts.model)]
    sets += [(field,) for field in opts.concrete_fields if field.unique and not field.primary_key]
    named = [*opts.unique_together, *(constraint.fields for constraint in opts.total_unique_constraints)]
    sets += [tuple(opts.get_field(name) for name in names) for names in named]
    return list(dict.fromkeys(sets))


def flat(fields: Iterable[Any]) -> UniqueSet:
    """Return the fields, with a composite primary key replaced by its parts."""
    found: list[Any] = []
    for field in fields:
        found += fields_of(field.model) if field.primary_key else [field]
    return tuple(found)


def key_of(obj: Any, unique: UniqueSet, connection: Any) -> Key | None:
    """Return what an instance's row will hold in these columns, or None if that is not certain."""
    key = []
    for field in unique:
        # A loaded instance may hold a generated value that belongs to another row.
        value = None if field.generated else getattr(obj, field.attname)
        if value is None or hasattr(value, "resolve_expression") or not is_comparable(field):
            return None
        stored = columns.predicted(field, value, connection)
        if stored is UNKNOWN:
            return None
        key.append(stored)
    return tuple(key)


def is_comparable(field: ModelField) -> bool:
    """Return whether values of a column that are equal in Python are also equal in the database."""
    return columns.is_plain(field) and not columns.is_opaque(field) and not files.holds_files(field)


def conditions(objs: list[Any], unique: UniqueSet) -> Iterator[Q]:
    """Yield conditions that together match all rows in conflict with the instances."""
    keys = [key for obj in objs if None not in (key := [_inserted(obj, field) for field in unique])]
    size = VALUES if len(unique) == 1 else CONDITIONS
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        if len(unique) == 1:
            yield Q((f"{unique[0].attname}__in", [value for (value,) in part]))
        else:
            each = (zip((field.attname for field in unique), key, strict=True) for key in part)
            yield Q.create([Q(*pairs) for pairs in each], connector=Q.OR)


def _inserted(obj: Any, field: Any) -> Any:
    """Return the value or expression that an INSERT of the instance puts into a column."""
    if field.generated:
        return _generated(obj, field)
    value = getattr(obj, field.attname)
    return field.db_default if isinstance(value, DatabaseDefault) else value


def _generated(obj: Any, field: Any) -> Any:
    """Return the expression of a generated column, with the instance's values inserted."""
    values = {
        F(name): _as_expression(_inserted(obj, other), other)
        for other in field.model._meta.concrete_fields
        if not other.generated
        for name in (other.name, other.attname)
    }
    return ExpressionWrapper(field.expression.replace_expressions(values), field.output_field)


def _as_expression(value: Any, field: Any) -> Any:
    return value if hasattr(value, "resolve_expression") else Value(value, field)
