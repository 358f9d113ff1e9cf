"""Models whose rows become instances of other classes, which a column names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from tests.parity.common import Common

if TYPE_CHECKING:
    from collections.abc import Collection

KINDS = ["", "swift", "slow"]


class Wagon(Common):
    """It uses `from_db()`: loaded instances have another class, new ones do not."""

    id = models.AutoField(primary_key=True)
    kind = models.CharField(max_length=60, default="")

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **keywords: Any
    ) -> Any:
        # Django 6.1 adds fetch_mode.
        wagon = super().from_db(db, field_names, values, **keywords)
        if "kind" not in wagon.get_deferred_fields():
            wagon.__class__ = {"swift": SwiftWagon, "slow": SlowWagon}.get(wagon.kind, Wagon)
        return wagon


class SwiftWagon(Wagon):
    class Meta:
        proxy = True


class SlowWagon(Wagon):
    class Meta:
        proxy = True
        ordering = ("-rank",)


class Horse(Common):
    """It uses `__init__()`: new instances have another class, too."""

    id = models.AutoField(primary_key=True)
    kind = models.CharField(max_length=60, default="")

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        if "kind" not in self.get_deferred_fields():
            self.__class__ = {"swift": SwiftHorse, "slow": SlowHorse}.get(self.kind, Horse)


class SwiftHorse(Horse):
    class Meta:
        proxy = True


class SlowHorse(Horse):
    class Meta:
        proxy = True


BASES: tuple[type[Common], ...] = (Wagon, Horse)
MODELS: tuple[type[Common], ...] = (Wagon, SwiftWagon, Horse, SlowHorse)


def base_of(model: type[models.Model]) -> type[models.Model]:
    """Return the model of which a typed model is a proxy, or any other model itself."""
    return next((base for base in BASES if issubclass(model, base)), model)


def classes_of(model: type[models.Model]) -> set[type[models.Model]]:
    """Return the classes of which a model's rows may become instances."""
    base = base_of(model)
    return {model, base, *base.__subclasses__()} if base in BASES else {model}
