from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

import pytest
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector
from django.db.models.sql import UpdateQuery

import signal_patch
from tests.recording import SIGNALS, Log, Receivers, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

# Runners of their own, started with `python -m`.
collect_ignore = ["django_suite", "benchmarks"]

PATCHABLE = (QuerySet, Model, Collector, UpdateQuery)


def _attributes() -> dict[tuple[type, str], Any]:
    return {(owner, name): value for owner in PATCHABLE for name, value in vars(owner).items()}


def _is_dead(receiver: Any) -> bool:
    return isinstance(receiver, ReferenceType) and receiver() is None


def _live_receivers() -> dict[str, list[Any]]:
    return {
        name: [entry[0] for entry in signal.receivers if not _is_dead(entry[1])]
        for name, signal in SIGNALS.items()
    }


DJANGOS_OWN = _attributes()


@pytest.fixture(autouse=True)
def _leaves_no_trace() -> Iterator[None]:
    """After each test Django is as it was: its own methods, the same receivers, no switch on."""
    receivers = _live_receivers()
    yield
    if hasattr(signal_patch, "disable"):
        signal_patch.disable()
    attributes = _attributes()
    changed = {
        f"{owner.__name__}.{name}"
        for owner, name in DJANGOS_OWN.keys() | attributes.keys()
        if DJANGOS_OWN.get((owner, name)) is not attributes.get((owner, name))
    }
    assert not changed, "patches left behind"
    assert _live_receivers() == receivers, "receivers left behind"


@pytest.fixture
def receivers(_leaves_no_trace: None) -> Iterator[Receivers]:
    with receiving() as receivers:
        yield receivers


@pytest.fixture
def log(receivers: Receivers) -> Log:
    """A log of every signal that is sent from the start of the test; ``log.clear()`` after the set-up."""
    return receivers.record()
