from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from debug_toolbar.panels import Panel
from django.template import Context, Engine

from signal_patch import observing
from signal_patch.observing import UNKNOWN, Observation
from signal_patch.signals import bulk_dispatched, listeners

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model
    from django.http import HttpRequest, HttpResponse

    from signal_patch.observing import Missed
    from signal_patch.signals import Listener

    Stats = dict[str, Any]

# An engine of its own: the package need not be in INSTALLED_APPS for it.
_TEMPLATES = Engine(dirs=[str(Path(__file__).parent / "templates")])

_OF_SAVES = ("pre_save", "post_save")
_OF_DELETES = ("pre_delete", "post_delete")

_IN_FLIGHT = "their signals were being sent already"
_MEANT_SO = "no_bulk_signals(), or a function of QUIET"
_OFF = "the switch is off for them"


class BulkSignalsPanel(Panel):
    """Shows the bulk operations of a request: what they sent, what was missed, what was suppressed.

    Missed is what `observe()` finds: somebody listens, but the switch is off. Suppressed is what happens
    under `no_bulk_signals()` or in a function of the setting QUIET, and rows whose signals were being sent
    already when a receiver changed them.
    """

    is_async = True
    title = "Bulk signals"
    template = "signal_patch/debug_toolbar/bulk_signals.html"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dispatched: list[Stats] = []
        self._observation = Observation("collect")

    @property
    def nav_subtitle(self) -> str:
        stats = self.get_stats()
        if not stats.get("operations"):
            return "none"
        return ", ".join(f"{stats[state]} {state}" for state in ("sent", "missed", "suppressed"))

    @property
    def content(self) -> str:
        return _TEMPLATES.get_template(self.template).render(Context(self.get_stats()))

    def enable_instrumentation(self) -> None:
        if not observing.is_begun(self._observation):
            observing.begin(self._observation)
        # Of other threads and tasks, too: `_note()` tells them apart.
        bulk_dispatched.connect(self._note)

    async def aenable_instrumentation(self) -> None:
        # In the task of the request, and not in a thread, whose context might be another.
        self.enable_instrumentation()

    def disable_instrumentation(self) -> None:
        bulk_dispatched.disconnect(self._note)
        observing.end(self._observation)

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:  # noqa: ARG002  # the toolbar calls it
        operations = [
            *self._dispatched,
            *(_unsent("missed", _OFF, missed) for missed in self._observation.missed),
            *(_unsent("suppressed", _MEANT_SO, missed) for missed in self._observation.suppressed),
        ]
        counts = {
            state: sum(operation["calls"] for operation in operations if operation["state"] == state)
            for state in ("sent", "missed", "suppressed")
        }
        self.record_stats({"operations": operations, **counts})

    def _note(self, **said: Any) -> None:
        """Note an operation of this request that is at its end: a receiver of `bulk_dispatched`."""
        if not said["finished"] or not observing.is_begun(self._observation):
            return
        suppressed = said["already_in_flight"]
        if sent := said["done"] - suppressed:
            self._dispatched.append(_operation("sent", "", sent, said))
        if suppressed:
            self._dispatched.append(_operation("suppressed", _IN_FLIGHT, suppressed, said))


def _operation(state: str, why: str, rows: int, said: Stats) -> Stats:
    in_receivers = said["seconds_in_receivers"]
    return {
        "state": state,
        "why": why,
        "calls": 1,
        "name": f"{said['sender']._meta.label}.{said['operation']}()",
        "rows": rows,
        "batches": said["batches"],
        "statements": said["statements"],
        "receivers": _receivers(said["senders"], said["operation"]),
        "milliseconds": said["seconds"] * 1000,
        "milliseconds_in_receivers": None if in_receivers is None else in_receivers * 1000,
        "site": str(said["site"] or UNKNOWN),
    }


def _unsent(state: str, why: str, missed: Missed) -> Stats:
    return {
        "state": state,
        "why": why,
        "calls": missed.calls,
        "name": f"{missed.model._meta.app_label}.{missed.name}",
        "rows": missed.rows,
        "receivers": _texts(missed.receivers.items()),
        "site": str(missed.site or UNKNOWN),
    }


def _receivers(senders: list[type[Model]], operation: str) -> list[str]:
    names = _OF_DELETES if operation == "delete" else _OF_SAVES
    return _texts(item for sender in senders for item in listeners(sender, names).items())


def _texts(heard: Iterable[tuple[str, list[Listener]]]) -> list[str]:
    """Return each receiver once, in order, with the name of its signal."""
    return list(dict.fromkeys(f"{signal}: {receiver}" for signal, found in heard for receiver in found))
