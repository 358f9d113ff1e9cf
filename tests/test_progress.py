from __future__ import annotations

from typing import Any

import pytest

from signal_patch import bulk_signals
from tests.models import Book
from tests.recording import Log

pytestmark = pytest.mark.django_db


@pytest.fixture
def books(log: Log) -> list[Book]:
    return [Book.objects.create(title=title) for title in "abcde"]


def test_a_callable_gets_the_rows_done_and_the_rows_in_all_after_each_batch(books: list[Book]) -> None:
    seen: list[tuple[int, int]] = []
    with bulk_signals(batch_size=2, progress=lambda done, total: seen.append((done, total))):
        Book.objects.update(status="x")
        Book.objects.bulk_update(books, ["title"])
        Book.objects.bulk_create([Book(), Book(), Book()])
    assert seen == [(2, 5), (4, 5), (5, 5)] * 2 + [(2, 3), (3, 3)]


def test_a_delete_in_batches_reports_it_too(books: list[Book]) -> None:
    seen: list[tuple[int, int]] = []
    with bulk_signals(delete_batch_size=2, progress=lambda done, total: seen.append((done, total))):
        Book.objects.all().delete()
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_true_shows_a_bar(books: list[Book], capsys: pytest.CaptureFixture[str]) -> None:
    with bulk_signals(batch_size=2, progress=True):
        Book.objects.update(status="x")
    shown = capsys.readouterr().err
    assert "tests.Book" in shown
    assert "5/5" in shown


def test_none_and_false_show_nothing(books: list[Book], capsys: pytest.CaptureFixture[str]) -> None:
    silent: list[Any] = [None, False]
    for progress in silent:
        with bulk_signals(progress=progress):
            Book.objects.update(status="x")
    assert capsys.readouterr() == ("", "")
