"""Makes instances from rows faster, if Django alone would make them."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.db.models.base import ModelBase, ModelState
from django.db.models.fields.files import FileDescriptor, ImageFileDescriptor
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query import ModelIterable
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

if TYPE_CHECKING:
    _ModelIterable = ModelIterable[Any]
else:
    _ModelIterable = ModelIterable

_INIT: Any = Model.__init__
_FROM_DB: Any = getattr(Model.from_db, "__func__", Model.from_db)

# Setting an attribute with one of these descriptors on a new instance only fills its __dict__.
_PLAIN_DESCRIPTORS = (DeferredAttribute, ForeignKeyDeferredAttribute, FileDescriptor, ImageFileDescriptor)


class PlainIterable(_ModelIterable):
    """Yields what ModelIterable yields, for a queryset that `is_plain`.

    Skips `Model.__init__`, which repeats per-field checks for every row; loading costs about a third less.
    (ModelIterable, SQLCompiler.results_iter and ModelState, Django 5.2 to 6.1.)
    """

    def __iter__(self) -> Iterator[Any]:
        queryset: Any = self.queryset
        compiler = queryset.query.get_compiler(using=queryset.db)
        results = compiler.execute_sql(chunked_fetch=self.chunked_fetch, chunk_size=self.chunk_size)
        model = queryset.model
        names = _names(compiler)
        using = queryset.db
        fetch_mode = getattr(queryset, "_fetch_mode", None)  # Django 6.1
        new = model.__new__
        for row in compiler.results_iter(results):
            instance = new(model)
            instance.__dict__ = attributes = dict(zip(names, row, strict=True))
            attributes["_state"] = own = ModelState()
            own.adding, own.db = False, using
            if fetch_mode is not None:
                own.fetch_mode = fetch_mode
            yield instance


def _names(compiler: Any) -> list[str]:
    """Return the attribute names for the columns of a row: first the fields, then the annotations."""
    columns = compiler.klass_info["select_fields"]
    names = [compiler.select[index][0].target.attname for index in columns]
    annotations = sorted(compiler.annotation_col_map.items(), key=lambda item: item[1])
    return [*names, *(name for name, _ in annotations)]


def is_plain(queryset: Any) -> bool:
    """Return whether Django alone makes the queryset's instances, with no signals and no overrides.

    (QuerySet._iterable_class, _known_related_objects and, in 6.1, _fetch_mode, Django 5.2 to 6.1.)
    """
    fetch_mode = getattr(queryset, "_fetch_mode", None)
    return (
        queryset._iterable_class is ModelIterable
        and not queryset._known_related_objects
        and not queryset.query.extra_select
        and not queryset.query.select_related
        and not getattr(fetch_mode, "track_peers", False)
        and not pre_init.has_listeners(queryset.model)
        and not post_init.has_listeners(queryset.model)
        and _is_plain_model(queryset.model)
    )


def is_of_djangos_making(model: type[Model]) -> bool:
    """Return whether each row becomes an instance of the model itself.

    Typed models change the class in `__init__`, `__new__`, `from_db` or their metaclass.
    """
    return (
        model.__init__ is _INIT
        and model.__new__ is object.__new__
        and getattr(from_db := model.from_db, "__func__", from_db) is _FROM_DB
        and (type(model) is ModelBase or type(model).__call__ is type.__call__)
    )


def _is_plain_model(model: type[Model]) -> bool:
    return (
        is_of_djangos_making(model)
        and model.__setattr__ is object.__setattr__
        # Model.__init__() calls the __init__() of a class that comes after Model.
        and not any("__init__" in vars(cls) for cls in model.__mro__ if cls not in (Model, object))
        and all(
            type(getattr_static(model, field.attname, None)) in _PLAIN_DESCRIPTORS
            for field in model._meta.concrete_fields
        )
    )
