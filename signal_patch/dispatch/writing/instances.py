"""Write the values of instances as Django's `bulk_update()` does, but with a cheaper statement.

For each column Django builds a Case with a When for each instance, which takes longer than everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import CheckConstraint, Value
from django.db.models.expressions import SQLiteNumericMixin
from django.db.models.functions import Cast

from signal_patch.dispatch import backends
from signal_patch.dispatch.backends.base import are_int64, are_of_type
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import fields_of
from signal_patch.dispatch.signals import in_flight
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.per_row import PerRow

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.dispatch.rows.selection import Batch

    ModelField = Field[Any, Any]
    # Whether a class's method of that name is Django's own, possibly wrapped by this library.
    IsDjangos = Callable[[type[Any], str], bool]

# bulk_update() and the methods that it calls (QuerySet.bulk_update, Django 5.2 to 6.1).
METHODS = ("bulk_update", "using", "filter", "update", "_chain", "_clone")


class InstanceWriter:
    """Writes some fields of instances to those rows of a queryset that Django's statement would write.

    `size` is the number of instances that Django puts into one statement.
    """

    def __init__(
        self,
        queryset: Any,
        using: str,
        fields: Sequence[ModelField],
        size: int,
        connection: Any,
        is_djangos: IsDjangos,
    ) -> None:
        self.model = queryset.model
        self.using = using
        self.fields = fields
        self.connection = connection
        self.size = self._largest()
        is_exact = True
        if queryset.query.where or any(map(_may_collide, fields)):
            # Which rows match, and which values collide, depends on what earlier statements wrote.
            is_exact = size <= self.size
            self.size = size
        self.is_possible = (
            is_exact
            and all(is_djangos(type(queryset), name) for name in METHODS)
            # cacheops' querysets, and Django's own after _disable_cloning(), are their own clones.
            and queryset._chain() is not queryset
            and all(map(columns.is_plain, fields_of(self.model)))
            and all(map(self._is_writable, fields))
        )

    def _largest(self) -> int:
        """Return how many rows one statement can write."""
        limit = backends.of(self.connection).max_parameters(self.connection)
        # For each column a key, a value and, if its CASE has groups, less than one more; and the WHERE.
        key = len(fields_of(self.model))
        each = len(self.fields) * (key + 2) + key
        return querysets.UNLIMITED if limit is None else max(1, limit // each)

    def _is_writable(self, field: ModelField) -> bool:
        """Return whether the field's table has the model's key, and its column takes expressions."""
        # Options.get_path_to_parent(), Django 5.2 to 6.1.
        path = self.model._meta.get_path_to_parent(columns.concrete(field.model))
        return all(info.join_field.primary_key for info in path) and (
            field.generated or columns.takes_expressions(field, self._value(field, {}), self.connection)
        )

    def takes(self, batch: Batch) -> bool:
        """Return whether a batch can be written this way. It cannot if an instance holds an expression."""
        keys = [instance.pk for instance in batch.instances]
        # A receiver may have removed or changed a key.
        if not self.is_possible or keys != batch.keys or (are_of_type(keys, int) and not are_int64(keys)):
            return False
        names = [field.attname for field in self.fields]
        return not any(
            hasattr(getattr(instance, name), "resolve_expression")
            for name in names
            for instance in batch.instances
        )

    def write(self, queryset: Any, instances: Iterable[Model]) -> int:
        """Write what the instances hold, and return how many rows were matched."""
        by_key: dict[Any, Model] = {}
        for instance in instances:
            # If two instances have the same key, Django's statement takes the first.
            by_key.setdefault(instance.pk, instance)
        keys = [*by_key]
        matched = 0
        with in_flight.silence(self.model):
            for start in range(0, len(keys), self.size):
                part = keys[start : start + self.size]
                values = {
                    field.attname: self._value(
                        field, {key: getattr(by_key[key], field.attname) for key in part}
                    )
                    for field in self.fields
                }
                matched += querysets.with_keys(queryset.using(self.using), part).update(**values)
        return matched

    def _value(self, field: ModelField, values: dict[Any, Any]) -> Any:
        value = GivenValues(columns.concrete(field.model), field, values, Value(None))
        if self.connection.features.requires_casted_case_in_updates:
            return Cast(value, output_field=field)
        return value


class GivenValues(SQLiteNumericMixin, PerRow):
    """The values of instances, converted as by Django's Case. If a cast is needed, the caller adds it."""

    def _typed(self, sql: str, connection: Any) -> str:  # noqa: ARG002  # the signature of PerRow
        return sql


def _may_collide(field: Any) -> bool:
    """Return whether a value of the field may conflict with the value of another row."""
    opts = field.model._meta
    return bool(
        field.unique
        or any(field.name in names for names in opts.unique_together)
        or any(
            field.name in (getattr(constraint, "fields", None) or [field.name])
            for constraint in opts.constraints
            if not isinstance(constraint, CheckConstraint)
        )
    )
