"""The names that the option `prefetch` takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Model
from django.db.models.constants import LOOKUP_SEP


def check(model: type[Model], names: Iterable[str]) -> None:
    """Raise FieldError for a name that `prefetch_related()` would not take.

    Django itself raises an error only when a row has a related object, which may be in a later batch.
    """
    for name in names:
        _check(model, name)


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
