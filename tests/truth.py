"""Checks whether instances equal their rows (contract.md, section 1.5)."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Model
from django.db.models.signals import post_save, pre_save

from signal_patch import no_bulk_signals
from tests.recording import field_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models.signals import ModelSignal as Signal

    from tests.recording import Receivers


def typed(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with their types: `1` is not `True`, nor `Decimal("1")` `Decimal("1.0")`."""
    return {name: (type(value), _comparable(value)) for name, value in values.items()}


def _comparable(value: Any) -> Any:
    # Decimals are equal whatever their scale, but their texts are not.
    return str(value) if isinstance(value, Decimal) else value


class Truth:
    """What instances held at `pre_save` and `post_save`, and what their rows held at `post_save`."""

    def __init__(
        self, receivers: Receivers, model: type[Model], heard: Sequence[Signal] = (pre_save, post_save)
    ) -> None:
        self.before: list[dict[str, Any]] = []
        self.after: list[dict[str, Any]] = []
        self.stored: list[dict[str, Any]] = []
        for signal in heard:
            receivers.connect(
                signal, self._receive_pre_save if signal is pre_save else self._receive_post_save, model
            )

    def _receive_pre_save(self, instance: Model, **arguments: Any) -> None:
        self.before.append(typed(field_values(instance)))

    def _receive_post_save(self, instance: Model, using: str, **arguments: Any) -> None:
        stored = type(instance)._base_manager.using(using).get(pk=instance.pk)
        self.after.append(typed(field_values(instance)))
        self.stored.append(typed(field_values(stored)))

    def holds(self, *database_decides: str) -> bool:
        """Return whether instances equalled their rows at `post_save`, and also at `pre_save`.

        At `pre_save`, columns that only the database can decide are not compared.
        """
        assert self.after
        assert self.after == self.stored
        for before, after in zip(self.before, self.after, strict=True):
            for name, value in after.items():
                assert name in database_decides or before[name] == value
                assert not hasattr(before[name][1], "resolve_expression")
        return True


def as_django(update: Callable[[], object], model: type[Model]) -> list[dict[str, Any]]:
    """Return the rows as Django's own statement leaves them."""
    with no_bulk_signals(), transaction.atomic():
        update()
        result = [typed(field_values(row)) for row in model._base_manager.order_by("pk")]
        transaction.set_rollback(True)
    return result


def typed_rows(model: type[Model]) -> list[dict[str, Any]]:
    """Return the rows in the order of their primary keys."""
    return [typed(field_values(row)) for row in model._base_manager.order_by("pk")]
