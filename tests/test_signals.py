"""`bulk_dispatched`, the log of operations, and the settings WARN_ROWS and MAX_ROWS."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, enable
from signal_patch.conf import Settings
from signal_patch.signals import TooManyRows, bulk_dispatched
from tests.cascade_models import Harbour, Tug
from tests.fleet import rows
from tests.models import Book, Crane, Foghorn, Machine, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django import Settings as PytestSettings

    from tests.recording import Receivers

pytestmark = pytest.mark.django_db

SIGNALS = (pre_save, post_save, pre_delete, post_delete)


def receiver(**kwargs: Any) -> None: ...


async def async_receiver(**kwargs: Any) -> None: ...


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """Collect the arguments of `bulk_dispatched`."""
    heard: list[dict[str, Any]] = []

    def hear(**arguments: Any) -> None:
        heard.append(arguments)

    bulk_dispatched.connect(hear)
    yield heard
    bulk_dispatched.disconnect(hear)


@pytest.fixture
def books(receivers: Receivers) -> list[Book]:
    for signal in SIGNALS:
        receivers.connect(signal, receiver, Book)
    return rows(Book, *({"title": title} for title in "abcde"))


OPERATIONS: dict[str, Callable[[list[Book]], object]] = {
    "update": lambda books: Book.objects.update(title="z"),
    "bulk_update": lambda books: Book.objects.bulk_update(books, ["title"]),
    "bulk_create": lambda books: Book.objects.bulk_create([Book() for _ in range(5)]),
    "delete": lambda books: Book.objects.all().delete(),
}
each_operation = pytest.mark.parametrize(("operation", "run"), OPERATIONS.items(), ids=OPERATIONS)


@each_operation
class TestAfterAnOperation:
    def test_it_says_what_was_done(
        self,
        operation: str,
        run: Callable[[list[Book]], object],
        books: list[Book],
        sent: list[dict[str, Any]],
    ) -> None:
        with bulk_signals():
            run(books)

        (said,) = sent
        assert said.pop("signal") is bulk_dispatched
        seconds, in_receivers = said.pop("seconds"), said.pop("seconds_in_receivers")
        assert seconds > 0
        assert in_receivers is None if operation == "delete" else 0 < in_receivers < seconds
        assert said.pop("statements") >= 1
        site = said.pop("site")
        assert (site.filename, site.function) == (__file__, "<lambda>")
        assert said == {
            "sender": Book,
            "operation": operation,
            "senders": [Book],
            "using": "default",
            "rows": 5,
            "done": 5,
            "total": 5,
            "already_in_flight": 0,
            "batches": 1,
            "finished": True,
        }

    def test_it_is_sent_after_each_batch(
        self,
        operation: str,
        run: Callable[[list[Book]], object],
        books: list[Book],
        sent: list[dict[str, Any]],
    ) -> None:
        with bulk_signals(batch_size=2, delete_batch_size=2):
            run(books)

        keys = ("rows", "done", "total", "batches", "finished")
        assert [tuple(said[key] for key in keys) for said in sent] == [
            (2, 2, 5, 1, False),
            (2, 4, 5, 2, False),
            (1, 5, 5, 3, True),
        ]
        statements = [said["statements"] for said in sent]
        assert statements == sorted(set(statements))

    def test_nothing_where_nothing_is_sent(
        self,
        operation: str,
        run: Callable[[list[Book]], object],
        books: list[Book],
        receivers: Receivers,
        sent: list[dict[str, Any]],
    ) -> None:
        run(books)
        with bulk_signals():
            Book.objects.none().update(title="a")
            Book.objects.filter(title="there is none").update(title="a")
            Book.objects.filter(title="there is none").delete()
            receivers.disconnect_all()
            run(books)
        assert sent == []

    def test_nothing_after_an_exception(
        self,
        operation: str,
        run: Callable[[list[Book]], object],
        books: list[Book],
        receivers: Receivers,
        sent: list[dict[str, Any]],
    ) -> None:
        def fail(**_: Any) -> None:
            raise ZeroDivisionError

        for signal in (post_save, post_delete):
            receivers.connect(signal, fail, Book)
        with bulk_signals(), pytest.raises(ZeroDivisionError):
            run(books)
        assert sent == []

    def test_more_rows_than_max_rows_are_refused_before_the_first_signal(
        self,
        operation: str,
        run: Callable[[list[Book]], object],
        books: list[Book],
        receivers: Receivers,
        installed: PytestSettings,
    ) -> None:
        log = receivers.record()
        for options in ({}, {"batch_size": 2, "delete_batch_size": 2}):
            installed.SIGNAL_PATCH = {"AUTOENABLE": False, "MAX_ROWS": 4}
            with (
                bulk_signals(**options),  # type: ignore[arg-type]  # options all the same
                transaction.atomic(),
                pytest.raises(
                    TooManyRows,
                    match=rf"^tests.Book.{operation}\(\) of 5 rows, more than MAX_ROWS \(4\), at tests/test_",
                ),
            ):
                run(books)
            assert not log
            installed.SIGNAL_PATCH = {"AUTOENABLE": False, "MAX_ROWS": 5}
        with bulk_signals():
            run(books)
        assert log

    def test_the_log_at_debug_and_beyond_warn_rows_at_warning(
        self,
        operation: str,
        run: Callable[[list[Book]], object],
        books: list[Book],
        installed: PytestSettings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG, "signal_patch")
        levels = []
        for warn_rows in (5, 4, None):
            installed.SIGNAL_PATCH = {"AUTOENABLE": False, "WARN_ROWS": warn_rows}
            with bulk_signals(), transaction.atomic():
                run(books)
                transaction.set_rollback(True)
            levels += [record.levelname for record in caplog.records if record.name == "signal_patch"]
            messages = [record.getMessage() for record in caplog.records]
            caplog.clear()
        assert levels == ["DEBUG", "WARNING", "DEBUG"]
        assert messages[0].startswith(f"tests.Book.{operation}() sent the signals of 5 rows in 0.")
        assert "s, called at tests/test_signals.py:" in messages[0]


@pytest.fixture
def installed(settings: PytestSettings) -> PytestSettings:
    settings.SIGNAL_PATCH = {"AUTOENABLE": False}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]
    return settings


def test_statements_are_counted_without_those_of_receivers(
    books: list[Book], receivers: Receivers, sent: list[dict[str, Any]]
) -> None:
    with bulk_signals(), CaptureQueriesContext(connection) as alone:
        Book.objects.update(title="z")
    receivers.connect(post_save, lambda **_: Publisher.objects.create(name="new"), Book)
    with bulk_signals(Book):
        Book.objects.update(title="y")

    statements = [said["statements"] for said in sent]
    assert statements[0] == statements[1] <= len(alone)
    assert Publisher.objects.count() == 5


def test_an_operation_of_a_receiver_is_reported_separately(
    books: list[Book], receivers: Receivers, sent: list[dict[str, Any]]
) -> None:
    Publisher.objects.create()
    receivers.connect(post_save, receiver, Publisher)
    receivers.connect(post_save, lambda instance, **_: Publisher.objects.update(name="b"), Book)
    with bulk_signals():
        Book.objects.filter(pk=books[0].pk).update(title="z")

    assert [(said["sender"], said["rows"]) for said in sent] == [(Publisher, 1), (Book, 1)]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_rows_in_flight_are_counted_in_total_and_separately(
    batch_size: int, books: list[Book], receivers: Receivers, sent: list[dict[str, Any]]
) -> None:
    receivers.connect(post_save, lambda instance, **_: Book.objects.update(status="seen"), Book)
    with bulk_signals(batch_size=batch_size):
        books[0].save()

    assert [(said["done"], said["already_in_flight"]) for said in sent if said["finished"]][-1] == (5, 1)


@pytest.mark.parametrize("delete_batch_size", [None, 1])
def test_a_deletes_senders_are_the_models_of_its_rows(
    delete_batch_size: int | None, receivers: Receivers, sent: list[dict[str, Any]]
) -> None:
    for model in (Machine, Crane, Book):
        receivers.connect(post_delete, receiver, model)
    Machine.objects.create()
    Crane.objects.create()
    with bulk_signals(delete_batch_size=delete_batch_size):
        Machine.objects.all().delete()

    assert set(sent[-1]["senders"]) == {Machine, Crane}


def test_one_delete_of_rows_and_what_it_changes(receivers: Receivers, sent: list[dict[str, Any]]) -> None:
    receivers.connect(post_save, receiver, Tug)
    receivers.connect(post_delete, receiver, Harbour)
    harbours = [Harbour.objects.create(), Harbour.objects.create()]
    Tug.objects.create(nulled=harbours[0], spared=None)
    with bulk_signals():
        harbours[0].delete()
        Harbour.objects.all().delete()

    assert [(said["sender"], said["operation"], said["rows"]) for said in sent] == [
        (Tug, "update", 1),
        (Harbour, "delete", 1),
    ]


def test_a_mixin_and_async_receivers(receivers: Receivers, sent: list[dict[str, Any]]) -> None:
    receivers.connect(post_save, async_receiver, Foghorn)
    Foghorn.objects.create()
    Foghorn.objects.update(size=5)

    assert [(said["sender"], said["rows"]) for said in sent] == [(Foghorn, 1)]
    assert sent[0]["site"].filename == __file__


def test_what_its_receiver_raises_is_logged_and_changes_nothing(
    books: list[Book], sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise ZeroDivisionError

    bulk_dispatched.connect(fail, Book)
    try:
        enable()
        assert Book.objects.update(title="z") == 5
    finally:
        bulk_dispatched.disconnect(fail, Book)
    assert len(sent) == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("key", ["WARN_ROWS", "MAX_ROWS"])
@pytest.mark.parametrize("wrong", [-1, True, "5", 2.5])
def test_a_wrong_number_of_rows_is_an_error(key: str, wrong: Any) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=rf"SIGNAL_PATCH\['{key}'\]: must be a whole number of rows, or None"
    ):
        Settings({key: wrong}).models  # noqa: B018  # the error is the point


def test_by_default_10_000_rows_are_warned_of_and_none_are_refused() -> None:
    assert (Settings({}).warn_rows, Settings({}).max_rows) == (10_000, None)
