"""The setting QUIET: bulk operations of functions that do the receivers' work send no signals."""

from __future__ import annotations

import functools
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import simple_history.utils
from django.db import models, transaction
from django.db.models.signals import post_save
from django.test import override_settings
from simple_history.utils import bulk_create_with_history, bulk_update_with_history as with_history

from signal_patch import callers, enable
from signal_patch.checks import check_quiet
from signal_patch.conf import Settings
from tests.models import Book, Foghorn, Historic, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import Settings as PytestSettings

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db


def quiet() -> None:
    Book.objects.update(title="quiet")
    Book.objects.bulk_update(Book.objects.all(), ["title"])
    Book.objects.bulk_create([Book(title="quiet")])
    Foghorn.objects.update(size=5)


@transaction.atomic
def decorated() -> None:
    Book.objects.update(title="quiet")


def calling(function: Callable[[], object]) -> None:
    function()


def saving() -> None:
    Foghorn.objects.get().save()
    Foghorn.objects.update(size=6)


class Helper:
    def method(self) -> None:
        Book.objects.update(title="quiet")


class Overriding(models.QuerySet[Any]):
    def update(self, **values: Any) -> int:
        return super().update(**{"status": "new", **values})


def through_an_override() -> None:
    Overriding(Book).update(title="quiet")


FUNCTIONS = ["quiet", "decorated", "calling", "Helper.method", "through_an_override", "saving"]


@pytest.fixture(autouse=True)
def _installed(settings: PytestSettings, log: Log) -> None:
    Book.objects.create()
    Foghorn.objects.create()
    settings.SIGNAL_PATCH = {"QUIET": [f"{__name__}.{name}" for name in FUNCTIONS]}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]
    log.clear()


@pytest.mark.parametrize("function", [quiet, decorated, Helper().method, through_an_override])
def test_what_it_does_itself_sends_nothing(function: Callable[[], None], log: Log) -> None:
    function()

    assert Book.objects.filter(title="quiet").exists()
    assert not log


def test_it_is_recognized_however_it_is_imported(log: Log) -> None:
    from tests.test_quiet import decorated as renamed

    functools.partial(renamed)()
    assert not log


def test_what_another_function_that_it_calls_does_is_sent(log: Log) -> None:
    calling(lambda: Book.objects.update(title="loud"))

    assert log.names() == ["pre_save", "post_save"]


def test_what_a_receiver_does_meanwhile_is_sent(log: Log, receivers: Receivers) -> None:
    Publisher.objects.create()
    receivers.connect(post_save, lambda **_: Publisher.objects.update(name="b"), Foghorn)
    log.clear()

    saving()

    assert [sent.sender for sent in log] == [Foghorn, Foghorn, Publisher, Publisher]


def test_a_function_of_a_package_that_is_loaded_later(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(SIGNAL_PATCH={"QUIET": ["shop.jobs.reprice"]}):
        Book.objects.update(title="a")
        shop, jobs = types.ModuleType("shop"), types.ModuleType("shop.jobs")
        monkeypatch.setitem(sys.modules, "shop", shop)
        Book.objects.update(title="b")
        assert len(log) == 4

        exec("def reprice(queryset): return queryset.update(title='c')", vars(jobs))
        monkeypatch.setitem(sys.modules, "shop.jobs", jobs)
        assert jobs.reprice(Book.objects) == 1
        assert len(log) == 4
        Book.objects.update(title="d")
        assert len(log) == 6


def test_other_threads_are_not_quiet() -> None:
    with ThreadPoolExecutor(1) as other:
        assert other.submit(callers.quiet.is_caller).result() is False


def test_without_the_setting_it_sends_signals(settings: PytestSettings, log: Log) -> None:
    with override_settings(SIGNAL_PATCH={}):
        decorated()
        assert len(log) == 2
    decorated()
    assert len(log) == 2


class TestSimpleHistory:
    """Its helpers are quiet by default, with the app or without it."""

    @pytest.fixture(autouse=True)
    def _as_by_default(self, settings: PytestSettings) -> None:
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "signal_patch"]
        enable()

    @pytest.mark.parametrize("update", [with_history, simple_history.utils.bulk_update_with_history])
    def test_each_row_has_one_record(self, update: Any) -> None:
        made = bulk_create_with_history([Historic(name="a"), Historic(name="b")], Historic)
        for row in made:
            row.name += "!"
        update(made, Historic, ["name"])
        Historic.objects.update(size=7)

        records = Historic.history.order_by("history_id").values_list("history_type", "name", "size")
        assert [*records] == [
            *(("+", name, 0) for name in "ab"),
            *(("~", f"{name}!", 0) for name in "ab"),
            *(("~", f"{name}!", 7) for name in "ab"),
        ]


def test_the_default_names_functions_of_simple_history() -> None:
    assert Settings({}).quiet == list(callers.QUIET)
    assert all(map(callers.code_at, callers.QUIET))


class TestTheCheck:
    def test_functions_and_what_is_not_installed_are_fine(self, settings: PytestSettings) -> None:
        settings.SIGNAL_PATCH = {
            "QUIET": [f"{__name__}.Helper.method", "json.dump", *callers.QUIET],
        }
        assert check_quiet() == []

    def test_a_default_path_that_is_not_installed_is_fine(
        self, settings: PytestSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("signal_patch.checks.QUIET", ("not_there.function",))
        settings.SIGNAL_PATCH = {"QUIET": ["not_there.function"]}
        assert check_quiet() == []

    @pytest.mark.parametrize("path", ["json.dunp", "not_here.function", "tests.test_quiet", "json.no.such"])
    def test_what_is_not_a_function_is_w003(self, settings: PytestSettings, path: str) -> None:
        settings.SIGNAL_PATCH = {"QUIET": [path]}

        (warning,) = check_quiet()
        assert warning.id == "signal_patch.W003"
        assert f"'{path}', which is not a function" in warning.msg
        assert warning.hint

    def test_a_wrong_setting_is_left_to_another_check(self, settings: PytestSettings) -> None:
        with pytest.raises(Exception, match=r"SIGNAL_PATCH\['QUIET'\]: must be a list of dotted paths"):
            settings.SIGNAL_PATCH = {"QUIET": "a.b"}
        assert check_quiet() == []
