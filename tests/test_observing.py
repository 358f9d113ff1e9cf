"""Operations that send nothing although there are receivers, counted by the line that calls them."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import QuerySet
from django.db.models.signals import post_save, pre_save
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from signal_patch import (
    bulk_signals,
    conf,
    disable,
    enable,
    no_bulk_signals,
    observe,
    observing,
    patches,
    scopes,
)
from signal_patch.observing import Missed, MissedSignals, Observation, observe_process, report
from tests.cascade_models import Harbour, Tug
from tests.fleet import rows
from tests.models import Book, Crane, Foghorn, Machine, Publisher, Reader
from tests.startup import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_django import Settings

    from tests.recording import Receivers

pytestmark = pytest.mark.django_db


def receiver(**kwargs: Any) -> None: ...


async def async_receiver(**kwargs: Any) -> None: ...


@pytest.fixture
def heard(receivers: Receivers) -> list[Book]:
    receivers.connect(post_save, receiver, Book)
    receivers.connect(post_save, async_receiver, Book)
    return rows(Book, {"title": "a"}, {"title": "b"})


def noted(observation: Observation) -> list[tuple[str, str, int, int]]:
    """Return the missed operations with their call sites, calls and rows."""
    return sorted((m.name, m.site.function if m.site else "", m.calls, m.rows) for m in observation.missed)


TIMES = "\N{MULTIPLICATION SIGN}"


def expire() -> None:
    Book.objects.update(status="expired")


class TestWhatIsMissed:
    def test_each_operation_by_its_line_with_its_calls_rows_and_receivers(self, heard: list[Book]) -> None:
        with observe() as observation:
            for _ in range(3):
                expire()
            Book.objects.bulk_update(heard, ["title", "price"])
            Book.objects.bulk_update(heard, fields=iter(["title"]))
            Book.objects.bulk_create([Book(), Book(), Book()])

        here = "TestWhatIsMissed.test_each_operation_by_its_line_with_its_calls_rows_and_receivers"
        assert [(name, calls, rows) for name, _, calls, rows in noted(observation)] == [
            ("Book.bulk_create()", 1, 3),
            ("Book.bulk_update()", 1, 2),
            ("Book.bulk_update(title, price)", 1, 2),
            ("Book.update(status)", 3, 6),
        ]
        assert {here.endswith(where) or where for _, where, _, _ in noted(observation)} == {True, "expire"}
        first = observation.missed[0]
        assert (first.model, first.operation, first.fields) == (Book, "update", ("status",))
        assert {name: list(map(str, found)) for name, found in first.receivers.items()} == {
            "post_save": ["tests.test_observing.receiver", "tests.test_observing.async_receiver (async)"]
        }

    def test_nothing_without_receivers_or_rows(self, heard: list[Book]) -> None:
        Publisher.objects.create()
        with observe() as observation:
            Publisher.objects.update(name="b")
            Book.objects.filter(title="z").update(status="new")
        assert observation.missed == observation.suppressed == []

    def test_nothing_that_is_sent(self, heard: list[Book]) -> None:
        with observe() as observation, bulk_signals():
            Book.objects.update(status="new")
            Book.objects.bulk_update(heard, ["title"])
            Book.objects.bulk_create([Book()])
        assert observation.missed == []

    def test_an_operation_that_a_scope_leaves_out(self, heard: list[Book]) -> None:
        with observe() as observation, bulk_signals(Book, operations=["update"]):
            Book.objects.bulk_update(heard, ["title"])
            Book.objects.update(status="new")
        assert [name for name, *_ in noted(observation)] == ["Book.bulk_update(title)"]

    def test_rows_that_a_delete_changes(self, receivers: Receivers) -> None:
        receivers.connect(pre_save, receiver, Tug)
        harbour = Harbour.objects.create()
        Tug.objects.create(nulled=harbour, defaulted=harbour, spared=None)

        with observe() as observation:
            harbour.delete()

        assert [(name, rows) for name, _, _, rows in noted(observation)] == [
            ("Tug.update(defaulted)", 1),
            ("Tug.update(nulled)", 1),
        ]
        assert {missed.site and missed.site.module for missed in observation.missed} == {__name__}

    def test_rows_of_a_polymorphic_model_by_the_receivers_of_its_subclasses(
        self, receivers: Receivers
    ) -> None:
        receivers.connect(pre_save, receiver, Crane)
        Crane.objects.create()
        with observe() as observation:
            Machine.objects.update(name="b")
        assert observation.missed[0].receivers.keys() == {"pre_save"}

    def test_related_managers(self, receivers: Receivers) -> None:
        receivers.connect(pre_save, receiver, Book)
        publisher, book = Publisher.objects.create(), Book.objects.create()
        with observe() as observation:
            publisher.books.add(book)
        assert [name for name, *_ in noted(observation)] == ["Book.update(publisher)"]

    def test_not_what_a_receiver_does_to_rows_of_its_model(self, receivers: Receivers) -> None:
        """With the switch on, it would send nothing, either."""
        book = Book.objects.create()

        def touch(instance: Book, **_: Any) -> None:
            Book.objects.filter(pk=instance.pk).update(status="touched")

        receivers.connect(post_save, touch, Book)
        with observe() as observation:
            book.save()
        assert Book.objects.get().status == "touched"
        assert observation.missed == []

    def test_not_models_that_never_send(self, receivers: Receivers) -> None:
        receivers.connect(post_save, receiver)
        book = Book.objects.create()
        book.readers.add(Reader.objects.create())
        with observe() as observation:
            assert Book.readers.through.objects.update(book=book) == 1
        assert observation.missed == []

    def test_in_other_threads_it_observes_nothing(self, heard: list[Book]) -> None:
        def create() -> int:
            return len(Book.objects.none().bulk_create([]))

        with observe() as observation, ThreadPoolExecutor(1) as other:
            assert other.submit(create).result() == 0
        assert observation.missed == []

    def test_under_asgi_the_line_is_the_one_that_calls_the_async_method(self, heard: list[Book]) -> None:
        async def expire_all() -> None:
            await Book.objects.aupdate(status="new")
            await Book.objects.abulk_update(heard, ["title"])
            await Book.objects.abulk_create([Book()])
            await Book.objects.filter(title="z").adelete()

        with observe() as observation:
            async_to_sync(expire_all)()

        assert [(name, where.rpartition(".")[2]) for name, where, *_ in noted(observation)] == [
            ("Book.bulk_create()", "expire_all"),
            ("Book.bulk_update(title)", "expire_all"),
            ("Book.update(status)", "expire_all"),
        ]

    def test_async_methods_are_still_async(self) -> None:
        with observe():
            assert iscoroutinefunction(QuerySet.aupdate)
            assert iscoroutinefunction(Book.objects.all().aupdate)


class TestWhatIsIntended:
    def test_no_bulk_signals(self, heard: list[Book]) -> None:
        enable()
        with observe(action="raise") as observation, no_bulk_signals(Book):
            expire()
            Book.objects.bulk_update(heard, ["title"])
        assert observation.missed == []
        assert sorted(found.name for found in observation.suppressed) == [
            "Book.bulk_update(title)",
            "Book.update(status)",
        ]

    def test_on_for_the_process_and_off_in_a_scope_with_a_mixin(self, receivers: Receivers) -> None:
        receivers.connect(post_save, receiver, Foghorn)
        foghorn = Foghorn.objects.create()
        with observe() as observation:
            Foghorn.objects.update(size=1)
            assert observation.missed == observation.suppressed == []
            with no_bulk_signals():
                Foghorn.objects.bulk_update([foghorn], ["size"])
        assert observation.missed == []
        assert [found.name for found in observation.suppressed] == ["Foghorn.bulk_update(size)"]

    @pytest.mark.parametrize("path", ["tests", "tests.test_observing", "tests.test_observing.expire"])
    def test_a_line_that_is_ignored(self, path: str, heard: list[Book]) -> None:
        with observe(ignore=[path]) as observation:
            expire()
        assert observation.missed == []
        assert len(observation.suppressed) == 1

    @pytest.mark.parametrize("ignore", ["__main__", [1], 3, None])
    def test_what_is_no_list_of_paths_is_refused(self, ignore: Any) -> None:
        message = r"ignore must be a list of dotted paths, such as \['shop.jobs'\], not "
        with pytest.raises(TypeError, match=message):
            observe(ignore=ignore).__enter__()

    def test_another_line_is_not_ignored(self, heard: list[Book]) -> None:
        with observe(ignore=["tests.test_observing.exp"]) as observation:
            expire()
        assert len(observation.missed) == 1

    def test_a_function_of_quiet(self, heard: list[Book], settings: Settings) -> None:
        settings.SIGNAL_PATCH = {"QUIET": [f"{__name__}.expire"], "AUTOENABLE": False}
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]
        with observe() as observation:
            expire()
        enable()
        with observe() as with_the_switch_on:
            expire()
        for observed in (observation, with_the_switch_on):
            assert observed.missed == []
            assert [found.name for found in observed.suppressed] == ["Book.update(status)"]


class TestWhatItDoes:
    def test_it_sends_nothing_and_runs_the_same_statements(
        self, heard: list[Book], receivers: Receivers
    ) -> None:
        log = receivers.record()

        def run() -> list[str]:
            with CaptureQueriesContext(connection) as queries:
                assert Book.objects.update(status="new") == 2
                assert Book.objects.bulk_update(heard, ["title"]) == 2
            return [query["sql"] for query in queries]

        before = run()
        with observe():
            assert run() == before
        assert not log

    def test_it_logs_the_first_time_and_at_powers_of_ten(
        self, heard: list[Book], caplog: pytest.LogCaptureFixture
    ) -> None:
        with observe():
            for _ in range(105):
                expire()

        assert {(record.name, record.levelname) for record in caplog.records} == {
            ("signal_patch.observe", "WARNING")
        }
        line = expire.__code__.co_firstlineno + 1
        assert [record.getMessage() for record in caplog.records] == [
            "Book.update(status) missed post_save \N{MULTIPLICATION SIGN}2\n"
            f"  tests/test_observing.py:{line} in expire    {calls}\n"
            "  missed: tests.test_observing.receiver, tests.test_observing.async_receiver (async)\n"
            "  to send them: with bulk_signals(Book):   if that is intended: no_bulk_signals()"
            for calls in ("1 call, 2 rows", "10 calls, 20 rows", "100 calls, 200 rows")
        ]

    def test_collect_logs_nothing(self, heard: list[Book], caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with observe(action="collect") as observation:
            expire()
        assert len(observation.missed) == 1
        assert not [record for record in caplog.records if record.name.startswith("signal_patch")]

    def test_raise_raises(self, heard: list[Book]) -> None:
        with (
            observe(action="raise"),
            pytest.raises(MissedSignals, match=r"^Book.update\(status\) missed post_"),
        ):
            expire()
        assert scopes.process.observe is None

    def test_another_action_is_an_error(self) -> None:
        wrong: Any = "print"
        with pytest.raises(ValueError, match="action must be one of 'log', 'raise', 'collect', not 'print'"):
            observe(action=wrong).__enter__()

    def test_the_table(self, heard: list[Book]) -> None:
        where = f"tests/test_observing.py:{expire.__code__.co_firstlineno + 1} in expire"
        with observe(action="collect") as observation:
            for _ in range(1200):
                expire()
            with no_bulk_signals():
                Book.objects.bulk_create([Book()])
        *lines, last = str(observation).splitlines()
        assert lines == [
            "calls   rows  operation            missed        call site",
            f"1 200  2 400  Book.update(status)  post_save {TIMES}2  {where}",
        ]
        assert last.startswith("    1      1  Book.bulk_create()   suppressed    tests/test_observing.py:")

    def test_a_line_that_is_not_known(self, heard: list[Book]) -> None:
        observation = Observation("collect", ignore=["tests"])
        observation.note(Missed(Book, "update", (), None, [Book]), 5, intended=False)
        assert str(observation).endswith("  an unknown line")
        assert "\n  an unknown line    1 call, 5 rows\n" in str(observation.missed[0])

    def test_nested_observations_both_see_it(self, heard: list[Book]) -> None:
        with observe() as outer:
            with observe() as inner:
                expire()
            expire()
        assert [missed.calls for missed in (*outer.missed, *inner.missed)] == [2, 1]


class TestPatches:
    @staticmethod
    def _is_installed() -> bool:
        return patches.ours(QuerySet, "update") is not None

    def test_it_installs_them_and_leaves_them_as_a_scope_does(self) -> None:
        with observe():
            assert self._is_installed()
            assert patches.ours(QuerySet, "aupdate") is not None
        disable()
        assert not self._is_installed()
        assert patches.ours(QuerySet, "aupdate") is None

    def test_they_are_removed_at_the_end_if_disable_is_called_meanwhile(self) -> None:
        enable()
        with observe():
            disable()
            assert self._is_installed()
        assert not self._is_installed()

    def test_the_switch_alone_leaves_the_async_methods_alone(self) -> None:
        enable()
        assert patches.ours(QuerySet, "aupdate") is None


@pytest.fixture
def _ended() -> Iterator[None]:
    yield
    observe_process(None)
    observing.process.clear()


@pytest.mark.usefixtures("_ended")
class TestTheSetting:
    def test_it_observes_every_thread_until_it_is_turned_off(
        self, heard: list[Book], settings: Settings
    ) -> None:
        settings.SIGNAL_PATCH = {"AUTOENABLE": False}
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]

        with override_settings(
            SIGNAL_PATCH={"AUTOENABLE": False, "OBSERVE": "raise", "OBSERVE_IGNORE": [f"{__name__}.expire"]}
        ):
            expire()
            with pytest.raises(MissedSignals):
                Book.objects.update(price=1)
            table = report()
        Book.objects.update(price=1)

        assert table.startswith("\nBulk operations that sent nothing:\ncalls  rows  operation")
        assert "suppressed" in table
        assert scopes.process.observe is None
        assert report() == ""

    def test_true_logs(self, heard: list[Book], caplog: pytest.LogCaptureFixture, settings: Settings) -> None:
        settings.SIGNAL_PATCH = {"AUTOENABLE": False, "OBSERVE": True}
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]
        assert report() == "\nNo signals of bulk operations were missed.\n"

        expire()
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("wrong", [1, "print", None, ["log"]])
    def test_another_value_is_an_error(self, wrong: Any) -> None:
        with pytest.raises(
            ImproperlyConfigured,
            match=r"SIGNAL_PATCH\['OBSERVE'\]: must be one of True, False, 'log', 'raise', 'collect', not ",
        ):
            conf.Settings({"OBSERVE": wrong}).observe  # noqa: B018  # the error is the point


TESTS = """
from django.db.models.signals import post_save
from django.test import TestCase, override_settings
from django.conf import settings
from library.models import Book

def receiver(**kwargs): pass

post_save.connect(receiver, Book)

class Tests(TestCase):
    def test_update(self):
        Book.objects.create()
        {code}
        with override_settings(INSTALLED_APPS=settings.INSTALLED_APPS):
            pass
"""


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("Book.objects.update(title='b')", "library/tests.py:14 in Tests.test_update"),
        ("pass", "No signals of bulk operations were missed."),
    ],
)
def test_manage_py_test_ends_with_the_table(code: str, end: str, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.append(
        "settings.py",
        "INSTALLED_APPS.append('signal_patch')\nSIGNAL_PATCH = {'AUTOENABLE': False, 'OBSERVE': True}",
    )
    project.write("library/tests.py", TESTS.replace("{code}", code))

    finished = project.run("manage.py", "test")

    assert finished.returncode == 0, finished.stderr
    assert end in finished.stderr.rstrip().splitlines()[-1].replace("in test_up", "in Tests.test_up")


def test_the_module_is_only_loaded_by_observing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.append("settings.py", "INSTALLED_APPS.append('signal_patch')")
    project.write("library/tests.py", TESTS.replace("{code}", "pass"))

    project.check("import sys; assert 'signal_patch.observing' not in sys.modules")
    assert "unheard" not in project.run("manage.py", "test").stderr
