"""`manage.py signal_patch` shows what is on."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db.models.signals import post_save, pre_delete

from signal_patch import disable, enable
from tests.models import Book, Publisher

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.recording import Receivers


@pytest.fixture(autouse=True)
def _installed(settings: Settings) -> None:
    settings.SIGNAL_PATCH = {"AUTOENABLE": False}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "signal_patch"]


def shown() -> list[str]:
    output = StringIO()
    call_command("signal_patch", stdout=output)
    return output.getvalue().splitlines()


def progress(done: int, total: int) -> None:
    """Be named in the output."""


def test_nothing_is_on() -> None:
    assert shown() == ["off"]


def test_rules_in_their_order_and_each_model_with_its_operations_and_receivers(receivers: Receivers) -> None:
    def receiver(**kwargs: Any) -> None: ...

    async def async_receiver(**kwargs: Any) -> None: ...

    receivers.connect(post_save, receiver, Publisher)
    receivers.connect(post_save, async_receiver, Publisher)
    receivers.connect(pre_delete, receiver, Publisher)
    enable("tests", operations=["update", "delete"], batch_size=50, progress=progress, delete_batch_size=9)
    disable("tests.Loud", Book)
    enable("auth.Group", lock=False, operations=["delete"])

    lines = shown()

    tests = "operations delete, update; batch_size 50; lock True; write_back True; progress progress"
    group = "operations delete; batch_size 2000; lock False; write_back True; progress None"
    assert lines[:4] == [
        f"tests: on, {tests}; delete_batch_size 9",
        "tests.Loud: off",
        "tests.Book: off",
        f"auth.Group: on, {group}; delete_batch_size None",
    ]
    assert (
        "  tests.Publisher: delete, update; receivers: pre_save 0, post_save 2, pre_delete 1, post_delete 0"
        in lines
    )
    assert not [line for line in lines[4:] if line.startswith("  tests.Book")]
    assert [line for line in lines if line.startswith("  auth.")] == [
        "  auth.Group: delete; receivers: pre_save 0, post_save 0, pre_delete 0, post_delete 0"
    ]


def test_everything_is_on() -> None:
    enable()

    assert shown()[0].startswith("every model: on, operations")
