"""How a statement names rows by their primary keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import F, Lookup, Q

from . import fields

if TYPE_CHECKING:
    from django.db.models import Model

if TYPE_CHECKING:
    _Lookup = Lookup[Any]
else:
    _Lookup = Lookup

IN_JSON_ARRAY = "IN (SELECT value FROM json_each(%s))"
# Below this an IN list costs nothing worth mentioning, and reads better in a log.
FEW = 50


def condition(model: type[Model], keys: Sequence[Any], connection: Any) -> Any:
    """Return the condition that holds for exactly the rows with the given primary keys.

    Thousands of parameters are most of the price of a statement, so the keys go into two
    parameters or one wherever that is the same set.
    """
    pk = model._meta.pk
    if len(keys) > 2 and fields.is_plain(pk) and not model._meta.is_composite_pk:
        if _are_without_gap(keys):
            return Q(pk__gte=min(keys), pk__lte=max(keys))
        if len(keys) > FEW and Among.is_possible(keys, connection):
            return Among(F("pk"), keys)
    return Q(pk__in=list(keys))


def _are_without_gap(keys: Sequence[Any]) -> bool:
    # Whole numbers without a gap are the same set as the range between their ends.
    return (
        _are_of_types(keys, {int}) and max(keys) - min(keys) == len(keys) - 1 and len(set(keys)) == len(keys)
    )


def _are_of_types(keys: Sequence[Any], types: set[type]) -> bool:
    return types.issuperset(map(type, keys))


class Among(_Lookup):
    """`IN`, with all the values in one parameter: an array, or a JSON array."""

    lookup_name = "among"
    prepare_rhs = False

    @classmethod
    def is_possible(cls, keys: Sequence[Any], connection: Any) -> bool:
        """Return whether the database can take such keys as one parameter."""
        if connection.vendor == "postgresql":
            return True
        return (
            connection.vendor == "sqlite"
            and connection.features.supports_json_field
            and _are_of_types(keys, {int, str})
        )

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        keys = json.dumps(self._prepared(connection))
        return f"{sql} {IN_JSON_ARRAY}", (*params, keys)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        sql, params = self.process_lhs(compiler, connection)
        db_type = self.lhs.output_field.cast_db_type(connection)
        return f"{sql} = ANY(%s::{db_type}[])", (*params, self._array(connection))

    def _array(self, connection: Any) -> Any:
        if _are_of_types(self.rhs, {int}):
            # Written out at once: the driver would look at each number by itself.
            return f"{{{','.join(map(str, self.rhs))}}}"
        return self._prepared(connection)

    def _prepared(self, connection: Any) -> list[Any]:
        field = self.lhs.output_field
        return [field.get_db_prep_value(key, connection) for key in self.rhs]
