"""The panel of django-debug-toolbar, in the toolbar itself."""

from __future__ import annotations

import asyncio
import json
import threading
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.core.checks.registry import registry
from django.db.models.signals import post_delete, post_save, pre_delete
from django.test import AsyncClient, Client

from signal_patch import bulk_signals, scopes
from signal_patch.signals import bulk_dispatched
from tests.fleet import rows
from tests.models import Book, Crane, Machine
from tests.startup import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from django.http import HttpResponse
    from pytest_django import Settings

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("toolbar")]


def receiver(**kwargs: Any) -> None: ...


def delete_receiver(**kwargs: Any) -> None: ...


@pytest.fixture
def toolbar(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Where it is first imported, the toolbar registers checks that need it to be installed.
    monkeypatch.setattr(registry, "registered_checks", {*registry.registered_checks})
    settings.DEBUG = True
    settings.INTERNAL_IPS = ["127.0.0.1"]
    settings.STATIC_URL = "static/"
    # The toolbar adds itself to this setting, and pytest-django's default cannot be changed.
    settings.MIGRATION_MODULES = {}
    settings.DEBUG_TOOLBAR_PANELS = [
        "debug_toolbar.panels.history.HistoryPanel",
        "signal_patch.contrib.debug_toolbar.BulkSignalsPanel",
    ]
    settings.INSTALLED_APPS = [
        *settings.INSTALLED_APPS,
        "django.contrib.staticfiles",
        "debug_toolbar",
    ]
    settings.MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
    settings.ROOT_URLCONF = "tests.toolbar_urls"
    yield
    assert not bulk_dispatched.receivers
    assert scopes.process.observe is None


@pytest.fixture
def books(receivers: Receivers) -> list[Book]:
    receivers.connect(post_save, receiver, Book)
    receivers.connect(pre_delete, delete_receiver, Book)
    return rows(Book, *({"title": title} for title in "abc"))


def stats_of(response: HttpResponse | Any) -> dict[str, Any]:
    """Return the panel's data for a request, from the toolbar's store."""
    from debug_toolbar.store import get_store

    stats: dict[str, Any] = get_store().panel(response["djdt-request-id"], "BulkSignalsPanel")
    assert json.loads(json.dumps(stats)) == stats
    return stats


def shown_of(response: HttpResponse | Any) -> str:
    """Return the panel's content as the toolbar loads it from its store."""
    parameters = {"request_id": response["djdt-request-id"], "panel_id": "BulkSignalsPanel"}
    loaded = Client().get("/__debug__/render_panel/", parameters)
    return unescape(loaded.json()["content"])


def lines(stats: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(found[key] for key in ("state", "name", "calls", "rows")) for found in stats["operations"]]


def test_a_request_shows_what_was_sent_missed_and_suppressed(client: Client, books: list[Book]) -> None:
    response = client.get("/everything/")

    stats = stats_of(response)
    assert lines(stats) == [
        ("sent", "tests.Book.update()", 1, 3),
        ("sent", "tests.Book.delete()", 1, 3),
        ("sent", "tests.Book.bulk_create()", 1, 2),
        ("missed", "tests.Book.update(title)", 3, 6),
        ("suppressed", "tests.Book.update(title)", 1, 2),
    ]
    assert (stats["sent"], stats["missed"], stats["suppressed"]) == (3, 3, 1)
    assert "3 sent, 3 missed, 1 suppressed" in response.content.decode()
    update, delete, *_ = stats["operations"]
    assert update["batches"] == delete["batches"] == 2
    assert update["statements"] >= 2
    assert 0 < update["milliseconds_in_receivers"] < update["milliseconds"]
    # Django itself sends these signals.
    assert delete["milliseconds_in_receivers"] is None
    assert update["receivers"] == ["post_save: tests.test_debug_toolbar.receiver"]
    assert delete["receivers"] == ["pre_delete: tests.test_debug_toolbar.delete_receiver"]
    assert {found["site"].partition(":")[0] for found in stats["operations"]} == {"tests/toolbar_urls.py"}
    assert {found["site"].rpartition(" ")[2] for found in stats["operations"]} == {"everything"}


def test_the_panel_is_shown_from_the_toolbars_store(client: Client, books: list[Book]) -> None:
    first, second = client.get("/everything/"), client.get("/nothing/")

    shown = shown_of(first)
    for text in (
        "3 sent, 3 missed, 1 suppressed",
        "<code>tests.Book.update(title)</code> 3 times",
        "post_save: tests.test_debug_toolbar.receiver",
        "the switch is off for this model",
        "no_bulk_signals(), or a function in QUIET",
    ):
        assert text in shown
    assert "No bulk operation has changed rows of models with receivers." in shown_of(second)
    assert "<small>none</small>" in second.content.decode()
    history = Client().get("/__debug__/history_sidebar/", {"request_id": first["djdt-request-id"]})
    assert "3 sent, 3 missed, 1 suppressed" in history.json()["BulkSignalsPanel"]["button"]


def test_rows_in_flight_are_suppressed(client: Client, books: list[Book], receivers: Receivers) -> None:
    from tests import toolbar_urls

    receivers.connect(post_save, lambda **_: Book.objects.update(status="seen"), Book)

    def update_one() -> None:
        # Its receiver updates the two others as well, whose receivers update all three.
        with bulk_signals():
            Book.objects.filter(pk=books[0].pk).update(title="z")

    toolbar_urls.during["one"] = update_one
    stats = stats_of(client.get("/wait/one/"))

    update = "tests.Book.update()"
    assert lines(stats) == [
        ("suppressed", update, 1, 3),
        ("suppressed", update, 1, 3),
        ("sent", update, 1, 2),
        ("suppressed", update, 1, 1),
        ("sent", update, 1, 1),
    ]
    assert [found["why"] for found in stats["operations"] if found["state"] == "suppressed"] == [
        "these rows were already in flight"
    ] * 3


def test_receivers_of_a_polymorphic_models_subclasses(client: Client, receivers: Receivers) -> None:
    from tests import toolbar_urls

    receivers.connect(post_save, receiver, Crane)
    receivers.connect(post_delete, receiver, Crane)
    Crane.objects.create()

    def change() -> None:
        with bulk_signals():
            Machine.objects.update(name="b")
            Machine.objects.all().delete()

    toolbar_urls.during["machines"] = change
    stats = stats_of(client.get("/wait/machines/"))

    assert [found["receivers"] for found in stats["operations"]] == [
        ["post_save: tests.test_debug_toolbar.receiver"],
        ["post_delete: tests.test_debug_toolbar.receiver"],
    ]


def test_requests_in_two_threads_do_not_mix(client: Client, books: list[Book]) -> None:
    from tests import toolbar_urls

    is_there, may_leave = threading.Event(), threading.Event()

    def stay() -> None:
        is_there.set()
        assert may_leave.wait(timeout=60)

    others: list[Any] = []
    toolbar_urls.during["other"] = stay
    other = threading.Thread(target=lambda: others.append(Client().get("/wait/other/")))

    def begin_another() -> None:
        other.start()
        assert is_there.wait(timeout=60)
        Book.objects.update(title="missed")
        with bulk_signals():
            Book.objects.update(title="sent")

    toolbar_urls.during["this"] = begin_another
    this = client.get("/update/this/")
    may_leave.set()
    other.join()

    assert [state for state, *_ in lines(stats_of(this))] == ["sent", "sent", "missed"]
    assert lines(stats_of(others[0])) == []


def test_under_asgi(async_client: AsyncClient, books: list[Book]) -> None:
    response = async_to_sync(async_client.get)("/async/everything/")

    stats = stats_of(response)
    assert lines(stats) == [
        ("sent", "tests.Book.update()", 1, 3),
        ("missed", "tests.Book.update(title)", 1, 3),
    ]
    assert {found["site"].rpartition(" ")[2] for found in stats["operations"]} == {"everything_async"}
    assert "1 sent, 1 missed, 0 suppressed" in response.content.decode()


def test_a_sync_view_under_asgi(async_client: AsyncClient, books: list[Book]) -> None:
    stats = stats_of(async_to_sync(async_client.get)("/everything/"))

    assert (stats["sent"], stats["missed"], stats["suppressed"]) == (3, 3, 1)


def test_concurrent_requests_under_asgi_do_not_mix(books: list[Book]) -> None:
    from tests import toolbar_urls

    async def run() -> list[Any]:
        a_has_updated, b_has_updated = asyncio.Event(), asyncio.Event()

        async def after_a() -> None:
            a_has_updated.set()
            await b_has_updated.wait()

        async def after_b() -> None:
            await a_has_updated.wait()
            await Book.objects.aupdate(status="missed")
            b_has_updated.set()

        toolbar_urls.during_async.update(a=after_a, b=after_b)
        return await asyncio.gather(*(AsyncClient().get(f"/async/update/{name}/") for name in "ab"))

    a, b = async_to_sync(run)()

    assert lines(stats_of(a)) == [("sent", "tests.Book.update()", 1, 1)]
    assert lines(stats_of(b)) == [
        ("sent", "tests.Book.update()", 1, 1),
        ("missed", "tests.Book.update(status)", 1, 3),
    ]


def test_a_view_that_raises_leaves_nothing_behind(client: Client, books: list[Book]) -> None:
    from tests import toolbar_urls

    def fail() -> None:
        raise ZeroDivisionError

    toolbar_urls.during["error"] = fail
    with pytest.raises(ZeroDivisionError):
        client.get("/update/error/")


def test_enabling_it_twice_counts_once(client: Client, books: list[Book]) -> None:
    from debug_toolbar.toolbar import DebugToolbar

    from tests import toolbar_urls

    def enable_again(sender: Any, toolbar: DebugToolbar, **_: Any) -> None:
        toolbar.get_panel_by_id("BulkSignalsPanel").enable_instrumentation()

    toolbar_urls.during["twice"] = lambda: Book.objects.update(title="missed")
    DebugToolbar._created.connect(enable_again)
    try:
        stats = stats_of(client.get("/update/twice/"))
    finally:
        DebugToolbar._created.disconnect(enable_again)

    assert (stats["sent"], stats["missed"], stats["suppressed"]) == (1, 1, 0)


def test_a_panel_that_is_turned_off_observes_nothing(client: Client, books: list[Book]) -> None:
    from tests import toolbar_urls

    observed: list[Any] = []
    toolbar_urls.during["off"] = lambda: observed.append(scopes.process.observe)
    client.cookies["djdtBulkSignalsPanel"] = "off"
    response = client.get("/update/off/")

    assert observed == [None]
    assert stats_of(response) == {}


def test_projects_without_the_panel_do_not_import_it(tmp_path: Path) -> None:
    Project(tmp_path).check(
        "import sys, signal_patch\n"
        "from library.models import Book\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', run_syncdb=True, verbosity=0)\n"
        "with signal_patch.bulk_signals():\n"
        "    Book.objects.update(title='b')\n"
        "unused = ('debug_toolbar', 'signal_patch.contrib', 'signal_patch.observing')\n"
        "names = [name for name in sys.modules if name.startswith(unused)]\n"
        "assert not names, names"
    )
