"""Signals for the bulk operations of one queryset class, whether or not the switch is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db.models import QuerySet
from django.db.models.manager import BaseManager

from signal_patch import callers, dispatch, patches, scopes
from signal_patch.dispatch.signals import in_flight
from signal_patch.options import Options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    Base = QuerySet[Any]
else:
    Base = object


class SignalEnhancedQuerySetMixins(Base):
    """Sends the signals of bulk operations on these querysets.

    The mixin acts like a scope that is always open. `disable()` does not close it, but `no_bulk_signals()`
    silences it. If the switch is on as well, the switch's options apply, otherwise `signal_options`.

    List a queryset class whose `update()` adds values, or updates other rows, before the mixin: receivers do
    not see what a class after the mixin adds.

        class BookQuerySet(SignalEnhancedQuerySetMixins, models.QuerySet):
            signal_options = Options(batch_size=500)
    """

    signal_options: ClassVar[Options] = Options()
    # The line of code that defines the class.
    signal_site: ClassVar[callers.Site | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_options(cls)
        _check_bases(cls)
        cls.signal_site = callers.definition_site()
        options = cls.signal_options
        with scopes.lock:
            if scopes.await_models(options.batch_inserts):
                patches.await_models()
            patches.install_row_markers(options)

    def update(self, **kwargs: Any) -> int:
        """Update the rows, as Django does, and send `pre_save` and `post_save` for each."""
        options = self._signal_options("update")
        if options is None:
            return super().update(**kwargs)
        return dispatch.update(self, kwargs, options, _next_update)

    update.alters_data = True  # type: ignore[attr-defined]  # as Django marks its own

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        """Update these fields of the instances, as Django does, and send both signals for each."""
        options = self._signal_options("bulk_update")
        if options is not None:
            return dispatch.bulk_update(
                self, objs, fields, batch_size, options, _next_bulk_update, _is_djangos
            )
        if self._signal_options("update") is None:
            return super().bulk_update(objs, fields, batch_size)
        # Django's bulk_update() calls update(), which is on. But the caller's operation is off.
        return _next_bulk_update(self, objs, fields, batch_size)

    bulk_update.alters_data = True  # type: ignore[attr-defined]  # as Django marks its own

    def bulk_create(
        self,
        objs: Iterable[Any],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Any]:
        """Insert the instances, as Django does, and send both signals for each."""
        arguments: dict[str, Any] = {
            "batch_size": batch_size,
            "ignore_conflicts": ignore_conflicts,
            "update_conflicts": update_conflicts,
            "update_fields": update_fields,
            "unique_fields": unique_fields,
        }
        options = self._signal_options("bulk_create")
        if options is None:
            return super().bulk_create(objs, **arguments)
        return dispatch.bulk_create(self, objs, options, _next_bulk_create, **arguments)

    bulk_create.alters_data = True  # type: ignore[attr-defined]  # as Django marks its own

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows, as Django does. Django sends `pre_delete` and `post_delete` for each."""
        options = self._signal_options("delete")
        # If the switch is on as well, the patched delete() beneath makes the batches.
        split_beneath = scopes.options_for(self.model, "delete") is not None
        if split_beneath or options is None or not options.splits_delete:
            return super().delete()
        return dispatch.delete_queryset(self, options, _next_delete)

    delete.alters_data = True  # type: ignore[attr-defined]  # as Django marks its own
    delete.queryset_only = True  # type: ignore[attr-defined]  # as Django marks its own

    def _signal_options(self, operation: str) -> Options | None:
        if in_flight.is_silent(self.model) or callers.quiet.is_caller():
            return None
        return scopes.options_for(self.model, operation, self.signal_options)


def _check_options(queryset_class: type[SignalEnhancedQuerySetMixins]) -> None:
    options: object = queryset_class.signal_options
    if not isinstance(options, Options):
        name = f"{queryset_class.__qualname__}.signal_options"
        raise TypeError(f"{name} must be signal_patch.options.Options(…), not {options!r}")


def _check_bases(queryset_class: type[SignalEnhancedQuerySetMixins]) -> None:
    bases = queryset_class.__mro__
    if BaseManager in bases:
        name = queryset_class.__qualname__
        raise TypeError(
            f"{name} is a manager, but SignalEnhancedQuerySetMixins belongs on a queryset class; make "
            "the manager from the queryset class with as_manager() or Manager.from_queryset()"
        )
    if QuerySet in bases and bases.index(QuerySet) < bases.index(SignalEnhancedQuerySetMixins):
        name = queryset_class.__qualname__
        raise TypeError(f"{name}: SignalEnhancedQuerySetMixins must come before QuerySet in the bases")


def _is_djangos(queryset_class: type[Any], name: str) -> bool:
    return patches.is_djangos(queryset_class, name, leaving_out=[SignalEnhancedQuerySetMixins])


def _next_update(queryset: SignalEnhancedQuerySetMixins, /, **values: Any) -> int:
    """Call the next `update()` of the MRO so that it sends nothing if the switch is on as well."""
    with in_flight.silence(queryset.model):
        return super(SignalEnhancedQuerySetMixins, queryset).update(**values)


def _next_bulk_update(queryset: SignalEnhancedQuerySetMixins, /, *args: Any, **kwargs: Any) -> int:
    """Call the next `bulk_update()` of the MRO in the same way."""
    with in_flight.silence(queryset.model):
        return super(SignalEnhancedQuerySetMixins, queryset).bulk_update(*args, **kwargs)


def _next_bulk_create(queryset: SignalEnhancedQuerySetMixins, /, *args: Any, **kwargs: Any) -> list[Any]:
    """Call the next `bulk_create()` of the MRO in the same way."""
    with in_flight.silence(queryset.model):
        return super(SignalEnhancedQuerySetMixins, queryset).bulk_create(*args, **kwargs)


def _next_delete(queryset: SignalEnhancedQuerySetMixins) -> tuple[int, dict[str, int]]:
    return super(SignalEnhancedQuerySetMixins, queryset).delete()
