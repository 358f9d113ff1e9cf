"""Views that change rows in bulk, and the toolbar's own views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.urls import include, path

from signal_patch import bulk_signals, no_bulk_signals
from tests.models import Book

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest

# What the pages `here` and `there` do besides, as a test wants it.
during: dict[str, Callable[[], object]] = {}
during_async: dict[str, Callable[[], Awaitable[object]]] = {}


def page() -> HttpResponse:
    return HttpResponse("<html><body>A page.</body></html>")


def nothing(request: HttpRequest) -> HttpResponse:
    return page()


def everything(request: HttpRequest) -> HttpResponse:
    with bulk_signals(Book, batch_size=2, delete_batch_size=2):
        Book.objects.update(title="sent")
        Book.objects.filter(title="sent").delete()
        Book.objects.bulk_create([Book(), Book()])
    for _ in range(3):
        Book.objects.update(title="missed")
    with bulk_signals(), no_bulk_signals():
        Book.objects.update(title="meant so")
    return page()


def update(request: HttpRequest, name: str) -> HttpResponse:
    with bulk_signals():
        Book.objects.update(title=name)
    during[name]()
    return page()


async def everything_async(request: HttpRequest) -> HttpResponse:
    with bulk_signals(Book):
        await Book.objects.aupdate(title="sent")
    await Book.objects.aupdate(title="missed")
    return page()


async def update_async(request: HttpRequest, name: str) -> HttpResponse:
    with bulk_signals():
        await Book.objects.filter(title=name).aupdate(title=name)
    await during_async[name]()
    return page()


def wait(request: HttpRequest, name: str) -> HttpResponse:
    during[name]()
    return page()


urlpatterns = [
    path("nothing/", nothing),
    path("everything/", everything),
    path("update/<name>/", update),
    path("wait/<name>/", wait),
    path("async/everything/", everything_async),
    path("async/update/<name>/", update_async),
    path("__debug__/", include("debug_toolbar.urls")),
]
