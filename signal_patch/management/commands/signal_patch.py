from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from signal_patch import scopes
from signal_patch.options import OPERATIONS

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.signals import ModelSignal

    from signal_patch.options import Options
    from signal_patch.specs import Spec

SIGNALS = {"pre_save": pre_save, "post_save": post_save, "pre_delete": pre_delete, "post_delete": post_delete}


class Command(BaseCommand):
    help = "Show whose bulk operations send signals, with which options, and how many receivers listen."
    requires_system_checks = ()

    def handle(self, *_: Any, **__: Any) -> None:
        entries = scopes.process.rules.entries
        if not entries:
            self.stdout.write("off")
        for spec, rule in entries.items():
            self.stdout.write(f"{_shown(spec)}: {_described(rule)}")
        for model in apps.get_models():
            self._show(model)

    def _show(self, model: type[Model]) -> None:
        operations = [name for name in sorted(OPERATIONS) if scopes.is_on(model, name)]
        if operations:
            counts = ", ".join(f"{name} {live_receivers(signal, model)}" for name, signal in SIGNALS.items())
            self.stdout.write(f"  {model._meta.label}: {', '.join(operations)}; receivers: {counts}")


def live_receivers(signal: ModelSignal, model: type[Model]) -> int:
    """Count who listens. Private in Django (5.2 to 6.1: the plain and the async receivers)."""
    return sum(map(len, signal._live_receivers(model)))


def _shown(spec: Spec) -> str:
    if isinstance(spec, str):
        return spec
    return spec._meta.label if hasattr(spec, "_meta") else "every model"


def _described(rule: Options | None) -> str:
    if rule is None:
        return "off"
    return "on, " + "; ".join(f"{field.name} {_valued(getattr(rule, field.name))}" for field in fields(rule))


def _valued(value: object) -> object:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    return getattr(value, "__qualname__", value)
