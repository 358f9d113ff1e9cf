"""The names that the option `prefetch` takes, and related objects of instances without rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import ForeignObject, Model, prefetch_related_objects
from django.db.models.constants import LOOKUP_SEP


def check(model: type[Model], names: Iterable[str]) -> None:
    """Raise FieldError for a name that `prefetch_related()` would not take.

    Django itself raises an error only when a row has a related object, which may be in a later batch.
    """
    for name in names:
        _check(model, name)


def load_before_insert(instances: list[Any], names: Iterable[str]) -> None:
    """Load the related objects of instances whose rows do not exist yet, as far as they can be loaded.

    Only a row with a key can be referred to.
    """
    by_name = {
        name: _fields(type(instance)).get(name.partition(LOOKUP_SEP)[0])
        for instance in instances[:1]
        for name in names
    }
    own = [name for name, field in by_name.items() if field is not None]
    prefetch_related_objects(instances, *own)
    with_keys = [instance for instance in instances if instance._is_pk_set()]
    prefetch_related_objects(with_keys, *(name for name in by_name if name not in own))
    for field in by_name.values():
        if isinstance(field, ForeignObject):
            _forget_missing(instances, field)


def _fields(model: type[Model]) -> dict[str, Any]:
    """Return the relations of a model that its own columns hold: foreign keys, generic ones included."""
    return {
        field.name: field
        for field in model._meta.get_fields()
        if not field.auto_created and (field.many_to_one or field.one_to_one)
    }


def _forget_missing(instances: list[Any], field: Any) -> None:
    """Let the objects be loaded later that do not exist yet, such as those of the same batch."""
    for instance in instances:
        refers = None not in field.get_local_related_value(instance)
        if refers and field.get_cached_value(instance, default=None) is None:
            instance._state.fields_cache.pop(field.cache_name, None)


def _check(model: type[Model], name: str) -> None:
    owner: Any = model
    for part in name.split(LOOKUP_SEP):
        relations = _relations(owner)
        if part not in relations:
            if _is_of_the_project(owner, part):
                return
            raise FieldError(
                f"prefetch: {name!r} is wrong for {model._meta.label}: {owner._meta.label} has no relation "
                f"{part!r}; valid are {', '.join(sorted(relations)) or 'none'}"
            )
        owner = relations[part]
        if owner is None:
            # Only the rows say which models a generic foreign key leads to.
            return


def _relations(model: type[Model]) -> dict[str, type[Model] | None]:
    """Return the models that a model's relations lead to, by the names of the attributes."""
    fields: Iterable[Any] = model._meta.get_fields()
    return {
        field.get_accessor_name() if field.auto_created and not field.concrete else field.name: (
            field.related_model
        )
        for field in fields
        if field.is_relation
    }


def _is_of_the_project(model: type[Model], name: str) -> bool:
    """Return whether a name is an attribute but not a concrete field; it may support prefetching."""
    columns = {name for field in model._meta.concrete_fields for name in (field.name, field.attname)}
    return name not in columns and hasattr(model, name)
