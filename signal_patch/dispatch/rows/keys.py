"""How a statement names rows by their primary keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError
from django.db.models import Q

from signal_patch.dispatch import backends
from signal_patch.dispatch.backends.base import are_numbers
from signal_patch.dispatch.values import columns

if TYPE_CHECKING:
    from django.db.models import Field, Model

# Below this an IN list costs nothing worth mentioning, and reads better in a log.
FEW = 50


def condition(model: type[Model], keys: Sequence[Any], connection: Any) -> Any:
    """Return the condition that holds for exactly the rows that `pk__in=keys` finds.

    Thousands of parameters are most of the price of a statement, so the keys go into two
    parameters or one wherever that is the same set.
    """
    pk: Any = model._meta.pk
    if len(keys) > 2 and columns.is_plain(pk) and not model._meta.is_composite_pk:
        if _are_without_gap(pk, keys):
            return Q(pk__gte=min(keys), pk__lte=max(keys))
        if len(keys) > FEW:
            lookup = backends.of(connection).key_lookup(columns.target_field(pk), keys, connection)
            if lookup is not None:
                return lookup
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
    return (
        are_numbers(columns.target_field(pk), keys)
        and max(keys) - min(keys) == len(keys) - 1
        and len(set(keys)) == len(keys)
    )
