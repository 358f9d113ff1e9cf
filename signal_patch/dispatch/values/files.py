"""Files, which `FileField` stores on saving, and images, which are measured on assignment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from django.core.files import File
from django.db.models import Field, FileField, ImageField

if TYPE_CHECKING:
    from django.db.models import Model

    ModelField = Field[Any, Any]


def holds_files(field: ModelField) -> bool:
    """Return whether the field's values are files, which `Field.pre_save()` stores."""
    return isinstance(field, FileField)


def file_state(value: Any) -> tuple[Any, Any]:
    """Return the name of a file, and its contents if `FileField.pre_save()` has not stored them yet."""
    if not isinstance(value, File):
        return value, None
    if getattr(value, "_committed", False):
        return value.name, None
    # The descriptor wraps an assigned file in a file object of its own.
    return value.name, getattr(value, "_file", value)


def store_waiting(fields: Iterable[ModelField], instances: Collection[Model]) -> None:
    """Store the files in these fields that are not stored yet, as `save()` does before the write."""
    for field in filter(holds_files, fields):
        for instance in instances:
            if file_state(getattr(instance, field.attname))[1] is not None:
                field.pre_save(instance, False)


def leave_unmeasured(instances: Iterable[Model], fields: Iterable[ModelField]) -> None:
    """Prepare instances so that assigning an image does not read its size, which would happen for every row.

    An UPDATE does not write the columns of width and height. An image is only measured on assignment if it
    replaces another one (ImageFileDescriptor, Django 5.2 to 6.1).
    """
    measured = [field.attname for field in fields if isinstance(field, ImageField)]
    for instance in instances if measured else ():
        instance.__dict__.update(dict.fromkeys(measured))


def measures_images(receiver: Callable[..., object]) -> bool:
    """Return whether a receiver of `post_init` is an ImageField's, which measures its image.

    (ImageField.contribute_to_class, Django 5.2 to 6.1.)
    """
    return isinstance(getattr(receiver, "__self__", None), ImageField)
