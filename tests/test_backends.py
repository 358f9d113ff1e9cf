"""What each database does differently, and what is assumed about an unknown database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import CharField, F, IntegerField, Value
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals
from signal_patch.dispatch import backends
from signal_patch.dispatch.backends.base import Backend
from tests.fleet import column, ships
from tests.models import Ship
from tests.startup import ROOT

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = pytest.mark.django_db


def test_only_the_backends_ask_for_a_vendor() -> None:
    asking = {
        str(path.relative_to(ROOT / "signal_patch").parent)
        for path in (ROOT / "signal_patch").rglob("*.py")
        if "vendor" in path.read_text()
    }
    assert asking == {"dispatch/backends"}


@pytest.fixture
def unknown_database(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Make the tests' database answer like an unknown one."""
    monkeypatch.delitem(backends.BACKENDS, connection.vendor)
    return backends.of(connection)


def test_an_unknown_database_gets_the_cautious_answers(unknown_database: Backend) -> None:
    assert type(unknown_database) is Backend
    keys = list(range(0, 200, 2))
    assert unknown_database.key_lookup(IntegerField(), keys, connection) is None
    assert unknown_database.inserted_marker(Ship, connection) is None
    resolved = Value("x", output_field=CharField())
    assert unknown_database.with_committed_subqueries(resolved) is resolved


def test_an_update_on_an_unknown_database_sends_what_it_writes(
    unknown_database: Backend, receivers: Receivers
) -> None:
    ships(*range(120), tonnage=7)
    shown: list[Any] = []

    def note(instance: Ship, **arguments: Any) -> None:
        shown.append(instance.tonnage)

    receivers.connect(pre_save, note, Ship)
    receivers.connect(post_save, note, Ship)
    with bulk_signals(batch_size=100):
        assert Ship.objects.update(tonnage=F("tonnage") * 2) == 120
    assert shown == [14] * 240
    assert set(column(Ship, "tonnage")) == {14}
