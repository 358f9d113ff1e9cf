"""What a column does to a value: questions about a single field."""

from __future__ import annotations

import copy
import datetime
import decimal
import json
import uuid
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldError, ValidationError
from django.db.models import (
    BinaryField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    Field,
    FloatField,
    GenericIPAddressField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)

from signal_patch.dispatch import backends
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.values import files, json_null
from signal_patch.dispatch.values.expressions import UNKNOWN, read_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.expressions import BaseExpression

    ModelField = Field[Any, Any]

_CONVERTERS = (
    "to_python",
    "get_prep_value",
    "get_db_prep_value",
    "get_db_prep_save",
    "from_db_value",
    "get_db_converters",
    "get_placeholder",  # Django 5.2 and 6.0
    "get_placeholder_sql",  # Django 6.1
)
_IMMUTABLE = (
    str,
    int,
    float,
    bool,
    bytes,
    type(None),
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
)
# Only these exact classes, because a subclass may have attributes. Bytes are their own fingerprint.
_UNCHANGING = frozenset(_IMMUTABLE) - {bytes}
# Equal values of one of these types are alike in every way.
_ALIKE_IF_EQUAL = frozenset((str, int, bool, type(None), uuid.UUID, datetime.date))
_BYTES = (bytes, bytearray, memoryview)
# DateTimeField comes before DateField, from which it inherits.
_KINDS: tuple[tuple[type[ModelField], ...], ...] = (
    (IntegerField, FloatField, DecimalField),
    (CharField, TextField),
    (DateTimeField,),
    (DateField,),
    (JSONField,),
)
# Wide enough for every column, so that quantize() does not fail on the digits before the point.
_SCALING = decimal.Context(prec=2000)


def is_plain(field: ModelField) -> bool:
    """Return whether Django itself converts the values of a field, in both directions.

    A foreign key is as plain as the field that it refers to. GenericIPAddressField is an exception, and left
    to the database: `to_python()` strips what an UPDATE stores.
    """
    field_class = type(target_field(field))
    return not issubclass(field_class, GenericIPAddressField) and all(
        _is_left_to_django(field_class, name) for name in _CONVERTERS
    )


def _is_left_to_django(field_class: type[ModelField], name: str) -> bool:
    method = getattr(field_class, name, None)
    return getattr(method, "__module__", "django.db.models").startswith("django.db.models")


def has_known_type(field: ModelField) -> bool:
    """Return whether a field's column has the type that Django gives it.

    Another type may round, pad or rewrite the values stored in it.
    """
    return _is_left_to_django(type(target_field(field)), "db_type")


def is_predictable(field: ModelField) -> bool:
    """Return whether `predicted()` may know what a row returns for a constant."""
    return is_plain(field) and has_known_type(field)


def target_field(field: Any) -> Any:
    """Return the field whose values a foreign key holds, or any other field itself."""
    while field.remote_field is not None:
        field = field.target_field
    return field


def predicted(field: ModelField, value: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return what a row returns for a constant that is written to a plain field, or UNKNOWN.

    First the field prepares and converts the value, as in an UPDATE and in a SELECT. Then the column has its
    effect (the scale of a decimal, the text of JSON).
    """
    if value is None:
        # BooleanField.to_python() refuses None unless the field has null=True, but only the database should
        # refuse it.
        return None
    target = target_field(field)
    try:
        if isinstance(target, JSONField):
            return row_values(target, value)()
        if isinstance(target, BinaryField):
            return backends.of(connection).bytes_read(bytes(target.to_python(value)))
        return scaled(target, _exact_text(target.to_python(target.get_prep_value(value))), connection)
    except Exception:  # noqa: BLE001  # whatever a conversion raises
        # An UPDATE may accept a value that the conversion refuses, such as an empty string for a key.
        return UNKNOWN


def row_values(field: JSONField, value: Any) -> Callable[[], Any]:
    """Return a function that returns what a row returns for JSON, each time as a new object."""
    text = json.dumps(value, cls=field.encoder)
    return lambda: json.loads(text, cls=field.decoder)


def _exact_text(value: Any) -> Any:
    # Members of TextChoices and SafeString are strings, but rows return plain ones.
    return str.__str__(value) if isinstance(value, str) else value


def scaled(field: ModelField, value: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return a value of a plain field as the column stores and shows it."""
    scale = scaling(field, connection)
    return value if scale is None else scale(value)


def scaling(field: ModelField, connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    """Return the function that `scaled()` applies to a field's values, or None if there is none."""
    target = target_field(field)
    if isinstance(target, (CharField, TextField)):
        return _as_text
    if not isinstance(target, DecimalField) or target.decimal_places is None:
        return None
    rounding = backends.of(connection).rounding()
    exponent = decimal.Decimal(1).scaleb(-target.decimal_places)

    def to_scale(value: Any) -> Any:
        if not isinstance(value, decimal.Decimal) or not value.is_finite():
            return value
        return value.quantize(exponent, rounding=rounding, context=_SCALING)

    return to_scale


def _as_text(value: Any) -> Any:
    # As the text affinity of SQLite's columns does, and as MariaDB and MySQL do.
    return str(value) if isinstance(value, (int, float, decimal.Decimal)) else value


def as_column(expression: Any, field: ModelField, connection: BaseDatabaseWrapper) -> BaseExpression:
    """Return an expression that returns, in a SELECT, what the field's column would hold."""
    return backends.of(connection).as_column(expression, target_field(field))


def is_of_its_kind(resolved: Any, field: ModelField, connection: BaseDatabaseWrapper) -> bool:
    """Return whether an expression has the type that the field's column is for, as far as that is known.

    Otherwise PostgreSQL refuses it, and SQLite stores something that the field may not be able to read.
    """
    try:
        kind = _kind(target_field(resolved.output_field))
    except FieldError:  # of mixed types, or of none
        kind = Field
    column = _kind(target_field(field))
    if kind is Field:
        return backends.of(connection).stores_only_its_type() or column is CharField
    return kind is column or column is CharField


def _kind(field: Any) -> type[Any]:
    """Return the class that represents all fields with this kind of values."""
    return next((kinds[0] for kinds in _KINDS if isinstance(field, kinds)), type(field))


def as_precomputed(expression: Any, field: ModelField, connection: BaseDatabaseWrapper) -> BaseExpression:
    """Return `as_column()` of an expression whose selected value will be written."""
    return json_null.selected(as_column(expression, field, connection), field)


def is_opaque(field: ModelField) -> bool:
    """Return whether the field's values may change in place, so that comparing them shows no difference."""
    return isinstance(field, (JSONField, BinaryField)) or not is_plain(field)


def may_change_in_place(field: ModelField) -> bool:
    """Return whether a value may change in place, as files and opaque values do."""
    return files.holds_files(field) or is_opaque(field)


def is_unchanging(value: Any) -> bool:
    """Return whether neither the value nor anything inside it can change."""
    return type(value) in _UNCHANGING or (
        # This includes named tuples, unless they have attributes of their own.
        isinstance(value, tuple)
        and not hasattr(value, "__dict__")
        and all(type(part) in _UNCHANGING for part in value)
    )


def fingerprint(field: ModelField, value: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return something that changes if the value, or anything inside it, would be saved differently."""
    if hasattr(value, "resolve_expression"):
        return value
    if isinstance(field, JSONField):
        return None if value is None else _json_text(field, value, connection)
    if isinstance(value, _BYTES):
        return bytes(value)
    try:
        return copied(field.get_db_prep_save(value, connection))
    except Exception:  # noqa: BLE001  # it cannot be saved, but perhaps nobody will
        return copied(value)


def _json_text(field: JSONField, value: Any, connection: BaseDatabaseWrapper) -> Any:
    sort_keys = not backends.of(connection).keeps_order_in_json(connection)
    try:
        return json.dumps(value, cls=field.encoder, sort_keys=sort_keys)
    except (TypeError, ValueError, RecursionError):
        # It cannot be saved, but perhaps nobody will.
        return copied(value)


def copied(value: Any, owner: Model | None = None) -> Any:
    """Return a copy that stays the same, whatever happens to the given value.

    A value may refer to the instance that holds it, its `owner`; the owner is not copied. A value that cannot
    be copied is returned itself: then only its replacement by another value is noticed.
    """
    if isinstance(value, _BYTES):
        return bytes(value)
    if isinstance(value, _IMMUTABLE):
        return value
    try:
        return copy.deepcopy(value, {id(owner): owner})
    except Exception:  # noqa: BLE001  # whatever a class of the project's raises
        return value


def is_as_copied(value: Any, copied: Any) -> bool:
    """Return whether a value still equals the copy that `copied()` made of it.

    Instances of a class without its own `__eq__` are compared by their attributes.
    """
    if type(value) is type(copied) and not _has_equality(type(value)) and hasattr(value, "__dict__"):
        return bool(vars(value) == vars(copied))
    return bool(value == copied)


def _has_equality(kind: Any) -> bool:
    return kind.__eq__ is not object.__eq__


def takes_expressions(field: ModelField, expression: Any, connection: BaseDatabaseWrapper) -> bool:
    """Return whether an UPDATE can set a field to an expression.

    A field that encrypts what it saves would encrypt the text of the expression, or fail on it.
    """
    try:
        return bool(field.get_db_prep_save(expression, connection) is expression)
    except (AttributeError, TypeError, ValueError, ValidationError):
        return False


def saves_as_it_compares(field: ModelField) -> bool:
    """Return whether a field prepares a value in the same way for SET and for WHERE."""
    return type(target_field(field)).get_db_prep_save is Field.get_db_prep_save


def concrete(model: Any) -> type[Model]:
    """Return the model whose table holds the rows of a model, which may be a proxy."""
    owner: type[Model] = model._meta.concrete_model
    return owner


def first_written(model: type[Model], names: Iterable[str]) -> ModelField:
    """Return the first of the named fields whose column may be written, or else the first of all fields."""
    opts = model._meta
    candidates: list[Any] = [*map(opts.get_field, names), *opts.concrete_fields]
    found: ModelField = next(field for field in candidates if not field.generated)
    return found


def writable_fields(model: type[Model]) -> list[ModelField]:
    """Return the concrete fields that a save may write: all but keys and generated fields."""
    keys = {field for owner in (model, *model._meta.all_parents) for field in fields_of(owner)}
    return [f for f in model._meta.concrete_fields if f not in keys and not f.generated]


def generated_from(model: type[Model], changed: Iterable[ModelField]) -> list[ModelField]:
    """Return the generated fields of a model that depend on any of the changed fields."""
    found = set(changed)
    generated = [f for f in model._meta.concrete_fields if f.generated]
    # A generated column cannot refer to another one, so a single pass finds all of them.
    return [f for f in generated if found & _referenced(f)]


def _referenced(field: Any) -> set[ModelField]:
    # GeneratedField.referenced_fields came with Django 6.0. The query against which it resolves its
    # expression exists from Django 5.0 to 6.1.
    resolved = field.expression.resolve_expression(field._query, allow_joins=False)
    return read_by(resolved)


def assign(instance: Model, field: ModelField, value: Any) -> None:
    """Assign a value to an instance by attribute, so that trackers notice the change.

    If the attribute refuses the assignment (such as django-fsm's protected states), the value is put where
    loading a row would put it.
    """
    assign_each([instance], field, [value])


def assign_each(instances: Iterable[Model], field: ModelField, values: Iterable[Any]) -> None:
    """Assign to each of the instances its value, as `assign()` does, unless the value is UNKNOWN."""
    name = field.attname
    # This loop runs for every row, so it calls no function of ours.
    for instance, value in zip(instances, values, strict=False):  # the values may be endless
        if value is UNKNOWN:
            continue
        try:
            setattr(instance, name, value)
        except Exception:  # noqa: BLE001  # whatever a descriptor raises; Django's statement takes the value
            instance.__dict__[name] = value
            if field.is_relation:
                instance._state.fields_cache.pop(field.name, None)


def assign_if_different(instance: Model, field: ModelField, value: Any) -> None:
    """Do as `assign()` does, unless the instance already holds the value."""
    held = instance.__dict__.get(field.attname, UNKNOWN)
    if held is not value and not _is_alike(held, value):
        assign(instance, field, value)


def assign_each_if_different(instances: Iterable[Model], field: ModelField, values: Iterable[Any]) -> None:
    """Do as `assign_each()` does, but skip instances that already hold their value."""
    name = field.attname
    different = [
        (instance, value)
        for instance, value in zip(instances, values, strict=True)
        if (held := instance.__dict__.get(name, UNKNOWN)) is not value and not _is_alike(held, value)
    ]
    assign_each((instance for instance, _ in different), field, (value for _, value in different))


def assign_related(instance: Model, field: Any, related: Model) -> None:
    """Assign the object that a foreign key refers to, as `assign()` assigns a value."""
    try:
        setattr(instance, field.name, related)
    except Exception:  # noqa: BLE001  # whatever a descriptor raises
        assign(instance, field, related.prepare_database_save(field))


def _is_alike(held: Any, value: Any) -> bool:
    """Return whether two values are equal in every way, and will stay so."""
    kind = type(value)
    if type(held) is not kind or not is_unchanging(value) or held != value:
        return False
    # Equal decimals may differ in scale, and equal times in their time zone.
    return kind in _ALIKE_IF_EQUAL or str(held) == str(value)
