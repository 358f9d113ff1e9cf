"""Finds out what receivers have changed on the instances."""

from __future__ import annotations

from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any

from django.db.models.base import DEFERRED

from signal_patch.dispatch.values import columns, snapshots

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.db.models import Field, Model

    ModelField = Field[Any, Any]


Changes = dict["ModelField", Any]


class ChangeTracker:
    """Compares the instances of one class before and after their `pre_save`.

    It compares the given fields only. For most of them, comparing two tuples is enough; for fields whose
    values may change in place, it compares snapshots. The caller's own instances `may_hold_expressions`;
    instances that were loaded from rows do not.
    """

    def __init__(
        self, tracked: Collection[ModelField], connection: Any, *, may_hold_expressions: bool
    ) -> None:
        self.may_hold_expressions = may_hold_expressions
        self.plain = [field for field in tracked if not columns.may_change_in_place(field)]
        others = [field for field in tracked if columns.may_change_in_place(field)]
        self.snapshots = [snapshots.of_field(field, connection) for field in others]
        self.attnames = [field.attname for field in self.plain]
        # With a single name, itemgetter would not return a tuple.
        self.state = itemgetter(*self.attnames, *self.attnames[:1]) if self.plain else _nothing

    def snapshot(self, instance: Model) -> Any:
        """Return the present state of an instance, for `changes()`."""
        attributes = instance.__dict__
        try:
            state = self.state(attributes)
        except KeyError:  # the caller's own instance, with deferred fields
            state = tuple(attributes.get(name, DEFERRED) for name in self.attnames)
        if not self.snapshots:
            return state, ()
        return state, [of_field.take(instance) for of_field in self.snapshots]

    def may_differ(self, instance: Model, snapshot: Any) -> bool:
        """Return False if `changes()` would find nothing. This must be fast."""
        state, taken = snapshot
        try:
            new = self.state(instance.__dict__)
        except KeyError:  # deferred before, or by a receiver
            return True
        if new != state or (self.may_hold_expressions and not all(map(is_, new, state))):
            return True
        if not taken:
            return False
        # Not a generator, because this runs for every row.
        for of_field, value in zip(self.snapshots, taken, strict=True):
            if of_field.may_differ(instance, value):
                return True
        return False

    def changes(self, instance: Model, snapshot: Any) -> Changes:
        """Return the fields that have changed since the snapshot, with the results of `Field.pre_save()`."""
        state, taken = snapshot
        changed = self._different(instance, state)
        changed += [
            of_field.field
            for of_field, value in zip(self.snapshots, taken, strict=True)
            if of_field.differs(instance, value)
        ]
        return {field: field.pre_save(instance, False) for field in changed}

    def _different(self, instance: Model, before: tuple[Any, ...]) -> list[ModelField]:
        # getattr() loads a value that a receiver has deferred, as save() would.
        return [
            field
            for field, old in zip(self.plain, before, strict=False)
            # A field that is still deferred has not changed.
            if (old is not DEFERRED or field.attname in instance.__dict__)
            and not snapshots.is_same(getattr(instance, field.attname), old)
        ]


def _nothing(_: dict[str, Any]) -> tuple[()]:
    return ()
