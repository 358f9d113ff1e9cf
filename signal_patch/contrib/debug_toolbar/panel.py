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

# A separate engine, because the package need not be in INSTALLED_APPS.
_TEMPLATES = Engine(dirs=[str(Path(__file__).parent / "templates")])

_OF_SAVES = ("pre_save", "post_save")
_OF_DELETES = ("pre_delete", "post_delete")

_IN_FLIGHT = "these rows were already in flight"
_INTENDED = "no_bulk_signals(), or a function in QUIET"
_OFF = "the switch is off for this model"


class BulkSignalsPanel(Panel):
    """Shows the bulk operations of a request: what was sent, missed and suppressed.

    Signals are missed if there are receivers but the switch is off, as `observe()` finds them. They are
    suppressed under `no_bulk_signals()`, in a function of the setting QUIET, and for rows in flight.
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
        # This also gets the signals of other threads and tasks; `_note()` ignores them.
        bulk_dispatched.connect(self._note)

    async def aenable_instrumentation(self) -> None:
        # In the request's own task, because a thread may have another context.
        self.enable_instrumentation()

    def disable_instrumentation(self) -> None:
        bulk_dispatched.disconnect(self._note)
        observing.end(self._observation)

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:  # noqa: ARG002  # the toolbar calls it
        operations = [
            *self._dispatched,
            *(_unsent("missed", _OFF, missed) for missed in self._observation.missed),
            *(_unsent("suppressed", _INTENDED, missed) for missed in self._observation.suppressed),
        ]
        counts = {
            state: sum(operation["calls"] for operation in operations if operation["state"] == state)
            for state in ("sent", "missed", "suppressed")
        }
        self.record_stats({"operations": operations, **counts})

    def _note(self, **sent: Any) -> None:
        """Note a finished operation of this request; a receiver of `bulk_dispatched`."""
        if not sent["finished"] or not observing.is_begun(self._observation):
            return
        suppressed = sent["already_in_flight"]
        if signalled := sent["done"] - suppressed:
            self._dispatched.append(_operation("sent", "", signalled, sent))
        if suppressed:
            self._dispatched.append(_operation("suppressed", _IN_FLIGHT, suppressed, sent))


def _operation(state: str, why: str, rows: int, sent: Stats) -> Stats:
    in_receivers = sent["seconds_in_receivers"]
    return {
        "state": state,
        "why": why,
        "calls": 1,
        "name": f"{sent['sender']._meta.label}.{sent['operation']}()",
        "rows": rows,
        "batches": sent["batches"],
        "statements": sent["statements"],
        "receivers": _receivers(sent["senders"], sent["operation"]),
        "milliseconds": sent["seconds"] * 1000,
        "milliseconds_in_receivers": None if in_receivers is None else in_receivers * 1000,
        "site": str(sent["site"] or UNKNOWN),
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
    """Return each receiver once, in order, after the name of its signal."""
    return list(dict.fromkeys(f"{signal}: {receiver}" for signal, found in heard for receiver in found))
