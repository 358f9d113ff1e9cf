"""Other libraries' `update()` of the same rows, as far as they are installed.

None of them sends `pre_save` and `post_save`, so they do less: the table says what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from django.db.models import QuerySet
from django.db.models.manager import Manager

from . import contenders as work
from .measures import Bench, all_rows
from .models import Parcel
from .racing import Contender, race
from .table import Line, markdown, paired


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, what its receivers get, and a manager with one receiver connected."""

    distribution: str
    module: str
    gives: str
    manager: Callable[[], Manager[Any]]


def _proxy(name: str, manager: Manager[Any]) -> type[Parcel]:
    """Return a proxy of the parcels, which has their table and another manager."""
    meta = type("Meta", (), {"proxy": True, "app_label": "benchmarks"})
    return type(name, (Parcel,), {"__module__": __name__, "Meta": meta, "objects": manager})


def _receive(**arguments: Any) -> None:
    """Listen, and do nothing."""


def _bulk_tracker() -> Manager[Any]:
    from bulk_tracker.managers import BulkTrackerQuerySet
    from bulk_tracker.signals import post_update_signal

    model = _proxy("TrackedParcel", Manager.from_queryset(BulkTrackerQuerySet)())
    post_update_signal.connect(_receive, sender=model)
    return model.objects


def _signals_all() -> Manager[Any]:
    from django_signals_all.orm.manager import BulkSignalManager
    from django_signals_all.signals import post_bulk_update

    model = _proxy("SignalledParcel", BulkSignalManager())
    post_bulk_update.connect(_receive, sender=model)
    return model.objects


def _bulk_hooks() -> Manager[Any]:
    from django_bulk_hooks.constants import AFTER_UPDATE, BEFORE_UPDATE
    from django_bulk_hooks.manager import BulkHookManager
    from django_bulk_hooks.priority import Priority
    from django_bulk_hooks.registry import register_hook

    class Hooks:
        def receive(self, **records: Any) -> None:
            """Listen, and do nothing."""

    model = _proxy("HookedParcel", BulkHookManager())
    for event in (BEFORE_UPDATE, AFTER_UPDATE):
        register_hook(model, event, Hooks, "receive", None, Priority.NORMAL)
    return model.objects


PEERS = (
    Peer(
        "django-bulk-tracker", "bulk_tracker", "one signal after the write, with all instances", _bulk_tracker
    ),
    Peer(
        "django-bulk-hooks", "django_bulk_hooks", "a hook before and after, with all instances", _bulk_hooks
    ),
    Peer("django-signals-all", "django_signals_all", "one signal after the write, with keys", _signals_all),
)


def compare(bench: Bench) -> str:
    """Return a table of the installed peers against the library, and name those that are not."""
    installed = [peer for peer in PEERS if find_spec(peer.module)]
    runs = {peer.distribution: _contender(bench, peer) for peer in installed}
    ours = Contender("signal_patch", partial(all_rows, bench.rows), work.patched_update)
    with work.listening():
        times = race([ours, *runs.values()], bench.rounds, bench.clock)
    rows = [
        _row(peer, Line(peer.distribution, paired(times[peer.distribution], times[ours.name])))
        for peer in installed
    ]
    lines = [markdown(("`update()`, constants", "its time / ours", "quartiles", "what receivers get"), rows)]
    lines += [f"{peer.distribution}: not installed" for peer in PEERS if peer not in installed]
    return "\n".join(lines)


def _contender(bench: Bench, peer: Peer) -> Contender:
    manager = peer.manager()

    def rows() -> QuerySet[Any]:
        all_rows(bench.rows)
        return manager.all()

    return Contender(peer.distribution, rows, lambda queryset: queryset.update(**work.CONSTANTS))


def _row(peer: Peer, line: Line) -> list[str]:
    _, shown, spread, *_ = line.cells()
    return [f"{peer.distribution} {version(peer.distribution)}", shown, spread, peer.gives]
