from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

import pytest
from django.apps import apps
from django.apps.registry import Apps
from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector
from django.db.models.sql import UpdateQuery

import signal_patch
from signal_patch import scopes
from signal_patch.dispatch.signals import in_flight
from tests.recording import SIGNALS, Log, Receivers, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

# These have their own runners, started with `python -m`.
collect_ignore = ["django_suite", "benchmarks", "packages"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("browser")
    group.addoption("--browser", action="store_true", help="run tests/browser, too, which need Chromium")
    group.addoption("--screenshots", metavar="FOLDER", help="keep pictures of the history page there")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_ignored = collection_path == BROWSER and not config.getoption("--browser")
    return True if is_ignored else None


BROWSER = Path(__file__).parent / "browser"

PATCHABLE = (Apps, Collector, Model, QuerySet, UpdateQuery)


def _attributes() -> dict[tuple[type, str], Any]:
    return {(owner, name): value for owner in PATCHABLE for name, value in vars(owner).items()}


def _is_dead(receiver: Any) -> bool:
    return isinstance(receiver, ReferenceType) and receiver() is None


def _live_receivers() -> dict[str, list[Any]]:
    return {
        name: [entry[0] for entry in signal.receivers if not _is_dead(entry[1])]
        for name, signal in SIGNALS.items()
    }


AS_FOUND = _attributes()
for name in ("update", "bulk_update", "bulk_create", "delete"):
    assert type(vars(QuerySet)[name]) is FunctionType, "patched before the first test"


@pytest.fixture(autouse=True)
def _leaves_no_trace() -> Iterator[None]:
    """Check after each test that nothing is left: no patch, no receiver, no open scope, no row in flight."""
    receivers = _live_receivers()
    yield
    signal_patch.disable()
    attributes = _attributes()
    changed = {
        f"{owner.__name__}.{name}"
        for owner, name in AS_FOUND.keys() | attributes.keys()
        if AS_FOUND.get((owner, name)) is not attributes.get((owner, name))
    }
    assert not changed, "patches left behind"
    assert scopes.process.observe is None, "still observed"
    assert _live_receivers() == receivers, "receivers left behind"
    assert not scopes.process.open_scopes, "a scope left open"
    assert not in_flight._flights.values(), "rows left in flight"
    assert not in_flight._silent.values(), "left silent"


@pytest.fixture
def everything_on(_leaves_no_trace: None) -> None:
    signal_patch.enable()


@pytest.fixture
def receivers(_leaves_no_trace: None) -> Iterator[Receivers]:
    with receiving() as receivers:
        yield receivers


@pytest.fixture
def log(receivers: Receivers) -> Log:
    """A log of every signal that is sent from the start of the test; ``log.clear()`` after the set-up."""
    return receivers.record()


@pytest.fixture(params=["returning", "without returning"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test on the database as it is, and on one without INSERT … RETURNING, like MySQL."""
    if request.param == "returning":
        yield
        return
    if connection.vendor == "postgresql":
        pytest.skip("PostgreSQL has no last_insert_id()")
    for name in ("can_return_columns_from_insert", "can_return_rows_from_bulk_insert"):
        monkeypatch.setattr(type(connection.features), name, False)
        vars(connection.features).pop(name, None)
    _forget_what_is_returned()
    yield
    monkeypatch.undo()
    _forget_what_is_returned()


def _forget_what_is_returned() -> None:
    """Drop Django's caches that depend on the features (Options.db_returning_fields, Django 5.2 to 6.1)."""
    for model in apps.get_models():
        vars(model._meta).pop("db_returning_fields", None)
        for field in model._meta.concrete_fields:
            vars(field).pop("db_returning", None)
