from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db.models import QuerySet

from signal_patch import disable, enable
from signal_patch.checks import check_models, check_observe_ignore, check_patches, check_setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import Settings

# mypy knows neither what is assigned to it here nor what our patch is.
UntypedQuerySet: Any = QuerySet


def ids(messages: list[checks.CheckMessage]) -> list[str | None]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_with_nothing_wrong_nothing_is_reported(settings: Settings) -> None:
    settings.SIGNAL_PATCH = {"MODELS": ["tests", "auth.User"], "EXCLUDE": ["tests.Book"]}
    enable()

    assert [*check_setting(), *check_models(), *check_patches()] == []


@pytest.mark.parametrize("setting", [{"MODEL": ["tests"]}, {"BATCH_SIZE": 0}, ["tests"]])
def test_a_wrong_setting_is_e001(settings: Settings, setting: Any) -> None:
    settings.SIGNAL_PATCH = setting

    assert ids(check_setting()) == ["signal_patch.E001"]
    assert check_models() == []


@pytest.mark.parametrize("key", ["MODELS", "EXCLUDE", "BATCH_INSERTS"])
def test_each_label_that_names_nothing_is_e002(settings: Settings, key: str) -> None:
    settings.SIGNAL_PATCH = {key: ["tests.Bok", "tests.Book", "shop", "library.a"], "ATOMIC": True}

    assert ids(check_setting()) == ["signal_patch.E002"] * 3
    assert check_setting()[0].msg.startswith(f"SIGNAL_PATCH[{key!r}]: 'tests.Bok': app 'tests' has no such")
    assert "did you mean 'Book'?" in check_setting()[0].msg
    assert check_models() == []


@pytest.mark.parametrize("label", ["tests.Book_readers", "staticfiles"])
def test_a_label_that_covers_no_model_with_signals_is_w002(settings: Settings, label: str) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.SIGNAL_PATCH = {"MODELS": ["tests.Book", label]}

    assert ids(check_models()) == ["signal_patch.W002"]
    assert repr(label) in check_models()[0].msg


class TestReplacedPatches:
    @pytest.fixture(autouse=True)
    def _put_back(self) -> Iterator[None]:
        own = vars(QuerySet)["update"]
        yield
        disable()
        UntypedQuerySet.update = own

    def test_a_replacement_that_does_not_call_our_patch_is_w001(self) -> None:
        enable()

        def update(self: QuerySet[Any], **kwargs: Any) -> None: ...

        UntypedQuerySet.update = update

        assert ids(check_patches()) == ["signal_patch.W001"]
        assert "QuerySet.update was replaced by tests.test_checks." in check_patches()[0].msg

    def test_enabling_again_fixes_it(self) -> None:
        enable()
        UntypedQuerySet.update = UntypedQuerySet.update.__wrapped__
        assert ids(check_patches()) == ["signal_patch.W001"]

        enable()
        assert check_patches() == []

    def test_while_the_switch_is_off_nothing_is_reported(self) -> None:
        enable()
        disable()

        assert check_patches() == []


def test_a_path_to_ignore_that_is_not_there_is_w004(settings: Settings) -> None:
    there = [
        "__main__",
        "__main__.main",
        "tests",
        "tests.test_checks",
        "tests.test_checks.ids",
        "tests.models.Book.full_clean",
        # Modules that are not loaded.
        "xmlrpc",
        "xml.dom.pulldom",
        "antigravity.fly",
    ]
    wrong = ["shopp", "tests.modles", "tests.models.Bok", "tests.models.Book.savee", "tests.test_checks.x.y"]
    settings.SIGNAL_PATCH = {"OBSERVE_IGNORE": [*there, *wrong]}

    found = check_observe_ignore()
    assert ids(found) == ["signal_patch.W004"] * len(wrong)
    assert [repr(path) in message.msg for path, message in zip(wrong, found, strict=True)] == [True] * 5
    settings.SIGNAL_PATCH = {"OBSERVE_IGNORE": 3}
    assert check_observe_ignore() == []


def test_the_app_registers_the_checks(settings: Settings) -> None:
    settings.SIGNAL_PATCH = {"AUTOENABLE": False, "MODELS": ["tests.Bok"]}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]

    with pytest.raises(SystemCheckError, match=r"signal_patch\.E002"):
        call_command("check", "signal_patch")
