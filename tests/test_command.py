"""`manage.py signal_patch` shows what is on and why, and the receivers."""

from __future__ import annotations

import functools
import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db.models.signals import post_save, pre_delete, pre_save

from signal_patch import disable, enable
from tests.models import Book, Foghorn, Publisher

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.recording import Receivers


@pytest.fixture(autouse=True)
def _installed(settings: Settings) -> None:
    settings.SIGNAL_PATCH = {"AUTOENABLE": False}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]


def text(*arguments: str) -> str:
    output = StringIO()
    call_command("signal_patch", *arguments, stdout=output)
    return output.getvalue()


def blocks(*arguments: str) -> dict[str, list[str]]:
    """Return the lines of each listed model by its label, and the head and the summary."""
    paragraphs = [paragraph.splitlines() for paragraph in text(*arguments).split("\n\n")]
    return {paragraph[0].split()[0]: paragraph for paragraph in paragraphs}


def report(label: str, *arguments: str) -> dict[str, Any]:
    (found,) = json.loads(text("--json", "--model", label, *arguments))["models"]
    assert isinstance(found, dict)
    return found


def receiver(**kwargs: Any) -> None: ...


async def async_receiver(**kwargs: Any) -> None: ...


class Receiver:
    def method(self, **kwargs: Any) -> None: ...

    def __call__(self, **kwargs: Any) -> None: ...


def progress(done: int, total: int) -> None:
    """Appear in the output."""


def test_nothing_is_on() -> None:
    lines = text().splitlines()

    assert lines[0] == "The switch is off."
    assert lines[-1].endswith("SILENT (--all lists them)")


def test_a_model_that_is_on_with_operations_options_reason_and_receivers(receivers: Receivers) -> None:
    receivers.connect(pre_save, receiver, Publisher)
    receivers.connect(post_save, async_receiver, Publisher)
    receivers.connect(post_save, Receiver().method, Publisher)
    receivers.connect(pre_delete, functools.partial(receiver, a=1), Publisher)
    receivers.connect(pre_delete, Receiver(), Publisher)
    enable("tests", operations=["update", "delete"], batch_size=50, progress=progress)
    test = test_a_model_that_is_on_with_operations_options_reason_and_receivers
    line = test.__code__.co_firstlineno + 6

    assert blocks()["tests.Publisher"] == [
        "tests.Publisher  ON",
        "  operations  delete, update",
        "  options     operations=['delete', 'update'], batch_size=50, progress=progress",
        f"  on by       enable(), tests/test_command.py:{line} in {test.__name__}",
        "  pre_save    tests.test_command.receiver",
        "  post_save   tests.test_command.Receiver.method",
        "  post_save   tests.test_command.async_receiver (async)",
        "  pre_delete  functools.partial(tests.test_command.receiver)",
        "  pre_delete  tests.test_command.Receiver()",
    ]
    assert report("tests.Publisher")["receivers"]["post_save"] == [
        {"path": "tests.test_command.Receiver.method", "async": False},
        {"path": "tests.test_command.async_receiver", "async": True},
    ]


def test_the_entries_of_the_process_in_their_order() -> None:
    enable(batch_size=50)
    disable("tests.Foghorn", Book)
    enable("auth", lock=False)

    head = text().split("\n\n", maxsplit=1)[0].splitlines()

    assert [line.split(", ")[0] for line in head] == [
        "every model: on by enable()",
        "tests.Foghorn: off by disable()",
        "tests.Book: off by disable()",
        "auth: on by enable()",
    ]
    assert all("tests/test_command.py:" in line for line in head)
    entries = json.loads(text("--json"))["process"]
    assert [(entry["models"], entry["on"], entry["options"]) for entry in entries] == [
        ("every model", True, {"batch_size": 50}),
        ("tests.Foghorn", False, {}),
        ("tests.Book", False, {}),
        ("auth", True, {"lock": False}),
    ]


def test_the_options_in_json_have_their_types(receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Publisher)
    options = {
        "operations": ["delete", "update"],
        "delete_batch_size": 5,
        "write_back": False,
        "prefetch": ["books"],
        "batch_inserts": ["tests.Book", "auth"],
        "batch_reads": True,
    }
    enable(Publisher, progress=progress, **options)  # type: ignore[arg-type]  # the values of a dictionary
    assert report("tests.Publisher")["options"] == {**options, "progress": "progress"}


def test_what_the_setting_turned_on_says_so(settings: Settings, receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Book)
    settings.SIGNAL_PATCH = {"MODELS": ["tests.Book"]}

    assert "  on by       the setting SIGNAL_PATCH" in blocks()["tests.Book"]


def test_a_mixin_says_where_its_class_is(receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Foghorn)

    found = report("tests.Foghorn")
    assert found["state"] == "ON"
    assert found["operations"] == ["bulk_create", "bulk_update", "delete", "update"]
    (reason,) = found["on_by"]
    assert reason.startswith("the mixin of objects: FoghornQuerySet, tests/models.py:")

    enable(Foghorn, batch_size=9)
    found = report("tests.Foghorn")
    assert found["options"] == {"batch_size": 9}
    assert [reason.split(",")[0] for reason in found["on_by"]] == [
        "enable()",
        "the mixin of objects: FoghornQuerySet",
    ]


def test_a_model_is_on_missed_or_silent(receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Book)
    receivers.connect(post_save, receiver, Publisher)
    enable(Publisher, "auth.Group")

    labels = {"tests.Publisher", "tests.Book", "auth.Group"}
    assert labels & blocks().keys() == {"tests.Publisher", "tests.Book"}
    assert blocks()["tests.Book"] == [
        "tests.Book  MISSED",
        "  post_save   tests.test_command.receiver",
    ]
    assert labels & {model["model"] for model in json.loads(text("--json"))["models"]} == {
        "tests.Publisher",
        "tests.Book",
    }
    assert blocks("--all")["auth.Group"][0] == "auth.Group  SILENT"
    assert len(json.loads(text("--json", "--all"))["models"]) == len(apps.get_models())
    assert "(--all" not in text("--all")


def test_model_lists_one_model_or_those_of_an_app_whatever_their_state() -> None:
    assert [name for name in blocks("--model", "tests.book") if "." in name] == ["tests.Book"]
    assert {"auth.User", "auth.Group"} <= blocks("--model", "auth", "--model", "tests.Book").keys()


@pytest.mark.parametrize(
    ("label", "message"), [("tests.Bok", "did you mean 'Book'"), ("a.b.c", "'a.b.c' is not a label")]
)
def test_an_unknown_model_ends_with_status_1(label: str, message: str) -> None:
    with pytest.raises(CommandError, match=message) as raised:
        text("--model", label)
    assert raised.value.returncode == 1


def test_fail_on_missed_ends_with_status_1_and_names_them(receivers: Receivers) -> None:
    receivers.connect(post_save, receiver, Book)
    receivers.connect(post_save, receiver, Publisher)
    arguments = ("--fail-on", "missed", "--model", "tests.Book", "--model", "tests.Publisher")
    enable(Publisher)

    with pytest.raises(
        CommandError, match=r"receivers miss the bulk operations of these models: tests\.Book$"
    ) as raised:
        text(*arguments)
    assert raised.value.returncode == 1

    enable(Book)
    assert "2 ON, 0 MISSED, 0 SILENT" in text(*arguments)
