from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_delete, pre_delete
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from signal_patch.options import Options
from tests.models import Book, Foghorn, FoghornQuerySet, Publisher
from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db


@pytest.fixture
def books() -> list[Book]:
    publisher = Publisher.objects.create(name="p")
    return [Book.objects.create(publisher=publisher, title=title) for title in "abcde"]


def test_batch_size_alone_does_not_split_a_delete(books: list[Book], log: Log) -> None:
    with bulk_signals(batch_size=1):
        assert Book.objects.all().delete() == (5, {"tests.Book": 5})
    assert log.names() == ["pre_delete"] * 5 + ["post_delete"] * 5


def test_delete_batch_size_splits_it_and_sums_the_counts(books: list[Book], log: Log) -> None:
    with bulk_signals(delete_batch_size=2):
        assert Book.objects.all().delete() == (5, {"tests.Book": 5})
    batch = ["pre_delete"] * 2 + ["post_delete"] * 2
    assert log.names() == [*batch, *batch, "pre_delete", "post_delete"]
    assert not Book.objects.exists()


def test_the_rows_are_chosen_once_though_a_receiver_changes_what_matches(
    books: list[Book], receivers: Receivers
) -> None:
    def relabel(**arguments: Any) -> None:
        Book.objects.update(status="gone")

    receivers.connect(pre_delete, relabel, Book)
    with bulk_signals(Book, operations=["delete"], delete_batch_size=1):
        assert Book.objects.filter(status="draft").delete()[0] == 5


def test_an_exception_in_a_later_batch_brings_back_the_earlier_ones(
    books: list[Book], receivers: Receivers
) -> None:
    def refuse(instance: Book, **arguments: Any) -> None:
        if instance.title == "e":
            raise RuntimeError("no")

    receivers.connect(post_delete, refuse, Book)
    with bulk_signals(delete_batch_size=2), pytest.raises(RuntimeError, match="no"), transaction.atomic():
        Book.objects.all().delete()
    assert Book.objects.count() == 5


def test_what_django_refuses_is_refused_before_any_signal(books: list[Book], log: Log) -> None:
    with bulk_signals(delete_batch_size=2), pytest.raises(TypeError, match="Cannot use 'limit' or 'offset'"):
        Book.objects.order_by("pk")[:3].delete()
    assert not log
    assert Book.objects.count() == 5


def test_it_does_not_matter_that_no_row_matches(log: Log) -> None:
    vanilla = Book.objects.none().delete()
    with bulk_signals(delete_batch_size=2):
        assert Book.objects.filter(title="zzz").delete() == vanilla


def test_the_mixin_splits_by_its_own_options(receivers: Receivers) -> None:
    class InPairs(FoghornQuerySet):
        signal_options = Options(delete_batch_size=2)

    Foghorn.objects.bulk_create([Foghorn(name=name) for name in "abc"])
    log = receivers.record(Foghorn)
    assert InPairs(Foghorn).delete() == (3, {"tests.Foghorn": 3})
    assert log.names() == [*["pre_delete"] * 2, *["post_delete"] * 2, "pre_delete", "post_delete"]


def test_where_the_switch_is_on_as_well_the_mixin_does_not_split_it_once_more(log: Log) -> None:
    Foghorn.objects.bulk_create([Foghorn(name=name) for name in "abc"])
    log.clear()
    seen: list[tuple[int, int]] = []
    with bulk_signals(delete_batch_size=2, progress=lambda *counts: seen.append(counts)):
        assert Foghorn.objects.all().delete() == (3, {"tests.Foghorn": 3})
    assert seen == [(2, 3), (3, 3)]
    assert log.names() == [*["pre_delete"] * 2, *["post_delete"] * 2, "pre_delete", "post_delete"]


def test_without_the_option_the_statements_are_djangos(books: list[Book]) -> None:
    with bulk_signals(), CaptureQueriesContext(connection) as patched:
        Book.objects.filter(title="a").delete()
    with CaptureQueriesContext(connection) as vanilla:
        Book.objects.filter(title="b").delete()
    assert len(patched) == len(vanilla)
