from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError

from signal_patch import scopes
from signal_patch.options import OPERATIONS, Options, changed, changed_as_json
from signal_patch.signals import Listener, listeners
from signal_patch.specs import covers, label_of, named

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.db.models import Model

    from signal_patch.specs import Spec

ON, MISSED, SILENT = "ON", "MISSED", "SILENT"


class Command(BaseCommand):
    help = (
        "Show which models' bulk operations send signals, what turned them on, and their receivers. A model "
        "is ON, MISSED (it has receivers, but the switch is off for it) or SILENT (it has no receivers)."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="Also list models that are SILENT.")
        parser.add_argument(
            "--model",
            action="append",
            default=[],
            metavar="app_label.Model",
            help="List this model, or the models of this app. Can be repeated.",
        )
        parser.add_argument("--json", action="store_true", help="Write JSON.")
        parser.add_argument(
            "--fail-on", choices=[MISSED.lower()], help="Exit with status 1 if a listed model is MISSED."
        )

    def handle(self, *_: Any, **given: Any) -> None:
        chosen = _chosen(given["model"])
        reports = [Report(model) for model in apps.get_models() if _is_chosen(model, chosen)]
        shown = [report for report in reports if report.state != SILENT or given["all"] or chosen]
        if given["json"]:
            self.stdout.write(json.dumps(_as_json(shown), indent=2))
        else:
            self._write(reports, shown)
        missed = [report.label for report in reports if report.state == MISSED]
        if given["fail_on"] and missed:
            raise CommandError(f"receivers miss the bulk operations of these models: {', '.join(missed)}")

    def _write(self, reports: list[Report], shown: list[Report]) -> None:
        entries = scopes.process.rules.entries
        for spec in entries:
            self.stdout.write(f"{label_of(spec)}: {_entry(spec)}")
        if not entries:
            self.stdout.write("The switch is off.")
        for report in shown:
            self.stdout.write("")
            self.stdout.write("\n".join(report.lines()))
        counts = [sum(report.state == state for report in reports) for state in (ON, MISSED, SILENT)]
        summary = "{} ON, {} MISSED, {} SILENT".format(*counts)
        hint = "" if len(shown) == len(reports) else " (--all lists them)"
        self.stdout.write(f"\n{summary}{hint}")


class Report:
    """What the command shows of one model."""

    def __init__(self, model: type[Model]) -> None:
        self.model = model
        self.label = model._meta.label
        self.receivers: dict[str, list[Listener]] = listeners(model)
        self.mixins = scopes.mixin_options(model)
        self.operations = sorted(name for name in OPERATIONS if self._is_on(name))

    @property
    def state(self) -> str:
        if not self.receivers:
            return SILENT
        return ON if self.operations else MISSED

    @property
    def options(self) -> Options | None:
        decision = scopes.process.rules.decision(self.model)
        if isinstance(decision, Options):
            return decision
        return next(iter(self.mixins.values()), None)

    def reasons(self) -> list[str]:
        """Return why the model is on: the deciding entry of the process, and the managers with the mixin."""
        found = []
        spec = scopes.process.rules.deciding(self.model)
        if spec is not None and scopes.process.rules.entries[spec] is not None:
            found.append(_origin(spec))
        for manager in self.model._meta.managers:
            if manager.name in self.mixins:
                # Manager._queryset_class, Django 5.2 to 6.1, as in scopes.mixin_options().
                # Django sets it on each manager made by from_queryset().
                queryset_class: Any = manager._queryset_class  # type: ignore[attr-defined]  # private
                where = f"{queryset_class.__qualname__}, {queryset_class.signal_site}"
                found.append(f"the mixin of {manager.name}: {where}")
        return found

    def lines(self) -> list[str]:
        lines = [f"{self.label}  {self.state}"]
        if self.operations:
            lines.append(f"  operations  {', '.join(self.operations)}")
            options = [f"{name}={value}" for name, value in changed(self.options).items()]
            lines.append(f"  options     {', '.join(options) or 'defaults'}")
            lines += [f"  on by       {reason}" for reason in self.reasons()]
        for name, receivers in self.receivers.items():
            lines += [f"  {name:<11} {receiver}" for receiver in receivers]
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.label,
            "state": self.state,
            "operations": self.operations,
            "options": changed_as_json(self.options) if self.operations else {},
            "on_by": self.reasons() if self.operations else [],
            "receivers": {
                name: [{"path": path, "async": is_async} for path, is_async in receivers]
                for name, receivers in self.receivers.items()
            },
        }

    def _is_on(self, operation: str) -> bool:
        return scopes.is_on(self.model, operation) or scopes.is_on_by_mixin(self.model, operation)


def _chosen(labels: list[str]) -> tuple[Spec, ...]:
    try:
        return named(labels)
    except (LookupError, ValueError) as error:
        raise CommandError(str(error)) from error


def _is_chosen(model: type[Model], chosen: tuple[Spec, ...]) -> bool:
    return not chosen or any(
        spec is model or (isinstance(spec, str) and covers(spec, model)) for spec in chosen
    )


def _as_json(shown: list[Report]) -> dict[str, Any]:
    return {
        "process": [
            {
                "models": label_of(spec),
                "on": options is not None,
                "options": changed_as_json(options),
                "by": _origin(spec),
            }
            for spec, options in scopes.process.rules.entries.items()
        ],
        "models": [report.as_json() for report in shown],
    }


def _entry(spec: Spec) -> str:
    state = "off" if scopes.process.rules.entries[spec] is None else "on"
    return f"{state} by {_origin(spec)}"


def _origin(spec: Spec) -> str:
    name, site = scopes.process.rules.origins[spec]
    return f"{name}, {site}" if site else name
