"""Snapshots of values, which show later whether a value, or anything inside it, has changed."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import JSONField
from django.db.models.base import DEFERRED
from django.db.models.query_utils import DeferredAttribute

from signal_patch.dispatch.values import columns, files

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field, Model

    ModelField = Field[Any, Any]

# Version 2 is the last version in which equal values have equal bytes. Later ones also record which objects
# are shared or interned.
_FORMAT = 2

# These encoders refuse bytes and other buffers, whose types marshal does not record.
_PLAIN_ENCODERS = (None, DjangoJSONEncoder)


class _Inside(NamedTuple):
    """A mutable value: what would have been saved, and a copy of the value unless the field `is_steady`.

    A field is not steady if it saves equal values differently each time, such as an encrypting field.
    """

    fingerprint: Any
    copied: Any
    is_steady: bool = True


def of_field(field: ModelField, connection: BaseDatabaseWrapper) -> Snapshots:
    """Return the object that takes snapshots of a field whose values may change in place."""
    if files.holds_files(field):
        return FileSnapshots(field, connection)
    # With this descriptor the attribute is read from the instance's __dict__, and with these encoders the
    # value consists of plain objects.
    if (
        isinstance(field, JSONField)
        and field.encoder in _PLAIN_ENCODERS
        and field.descriptor_class is DeferredAttribute
    ):
        return JsonSnapshots(field, connection)
    return Snapshots(field, connection)


class Snapshots:
    """Takes snapshots of the values of one field, and compares values with them.

    An object that cannot change is its own snapshot.
    """

    def __init__(self, field: ModelField, connection: BaseDatabaseWrapper) -> None:
        self.field = field
        self.attname = field.attname
        self.connection = connection

    def take(self, instance: Model) -> Any:
        """Return a snapshot of the value that an instance has now."""
        if self.attname not in instance.__dict__:
            return DEFERRED
        value = getattr(instance, self.attname)
        return value if columns.is_unchanging(value) else self._look_inside(value, instance)

    def _look_inside(self, value: Any, instance: Model) -> Any:
        fingerprint = self._fingerprint(value)
        if isinstance(self.field, JSONField):
            # The JSON text is enough.
            return _Inside(fingerprint, value)
        is_steady = is_same(self._fingerprint(value), fingerprint)
        return _Inside(fingerprint, None if is_steady else columns.copied(value, instance), is_steady)

    def may_differ(self, instance: Model, taken: Any) -> bool:
        """Return False only if the value certainly equals the snapshot. This must be fast."""
        if self.attname not in instance.__dict__:
            return taken is not DEFERRED
        value = getattr(instance, self.attname)
        if isinstance(taken, _Inside) and taken.is_steady:
            return not is_same(self._fingerprint(value), taken.fingerprint)
        return value is not taken

    def differs(self, instance: Model, taken: Any) -> bool:
        """Return whether the value would be saved differently from the one of the snapshot."""
        if taken is DEFERRED:
            return self.attname in instance.__dict__
        value = getattr(instance, self.attname)  # loads what a receiver has deferred
        before = self._restored(taken)
        new = self._fingerprint(value)
        if is_same(new, before.fingerprint):
            return False
        is_steady = is_same(new, self._fingerprint(value))
        return is_steady or not columns.is_as_copied(value, before.copied)

    def _restored(self, taken: Any) -> _Inside:
        return taken if isinstance(taken, _Inside) else _Inside(self._fingerprint(taken), taken)

    def _fingerprint(self, value: Any) -> Any:
        return columns.fingerprint(self.field, value, self.connection)


class JsonSnapshots(Snapshots):
    """Snapshots of JSON: marshal's bytes, which take a fifth of the time of the text.

    If the bytes are equal, the text is equal; if they differ, the text decides.
    """

    def take(self, instance: Model) -> Any:
        value = instance.__dict__.get(self.attname)
        if type(value) is dict or type(value) is list:
            try:
                return marshal.dumps(value, _FORMAT)
            except ValueError:  # an object of the project's own inside, or too deeply nested
                pass
        return super().take(instance)

    def may_differ(self, instance: Model, taken: Any) -> bool:
        if type(taken) is not bytes:
            return super().may_differ(instance, taken)
        try:
            return marshal.dumps(instance.__dict__.get(self.attname), _FORMAT) != taken
        except ValueError:  # as in take()
            return True

    def _restored(self, taken: Any) -> _Inside:
        if type(taken) is bytes:
            taken = marshal.loads(taken)  # noqa: S302  # these bytes are our own
        return super()._restored(taken)


def is_same(new: Any, old: Any) -> bool:
    """Return whether two values would be saved in the same way, as far as their equality shows."""
    # F("n") == F("n"), but an expression only counts as unchanged if it is the same object.
    return new is old or bool(new == old and not hasattr(new, "resolve_expression"))


class FileSnapshots(Snapshots):
    """Snapshots of files: the name, and the contents that are not stored yet."""

    def take(self, instance: Model) -> Any:
        value = instance.__dict__.get(self.attname, DEFERRED)
        return value if type(value) is str or value is None or value is DEFERRED else files.file_state(value)

    def may_differ(self, instance: Model, taken: Any) -> bool:
        value = instance.__dict__.get(self.attname, DEFERRED)
        return value is not taken and (value is DEFERRED or not _is_same_file(files.file_state(value), taken))

    def differs(self, instance: Model, taken: Any) -> bool:
        if taken is DEFERRED:
            return self.attname in instance.__dict__
        return not _is_same_file(files.file_state(getattr(instance, self.attname)), taken)


def _is_same_file(new: tuple[Any, Any], taken: Any) -> bool:
    name, contents = taken if type(taken) is tuple else (taken, None)
    # Contents that were not stored before `pre_save` are the caller's business.
    return bool(new[0] == name and new[1] is contents)
