"""Functions that the tests of `bulk_create()` share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, models, transaction
from django.test.utils import CaptureQueriesContext

from tests.fleet import is_write_lock
from tests.recording import Log

if TYPE_CHECKING:
    from collections.abc import Iterator


# For tests of transactions.
on_its_own = pytest.mark.django_db(transaction=True)

VOLATILE = {"touched", "made"}


def save_signals(log: Log, *names: str) -> list[tuple[Any, ...]]:
    """Return the signals of saves, without the values that differ each time."""
    return [
        (sent.signal, sent.sender, sent.arguments, _steady(sent.values, names))
        for sent in log
        if sent.signal in {"pre_save", "post_save"}
    ]


def _steady(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: type(value) if hasattr(value, "resolve_expression") else value
        for name, value in values.items()
        if name not in VOLATILE | {*names}
    }


def stored_rows(model: type[models.Model], *names: str) -> list[dict[str, Any]]:
    """Return the rows, without the values that differ each time and without the named columns."""
    return sorted((_steady(row, names) for row in model._default_manager.values()), key=repr)


@contextmanager
def rolled_back() -> Iterator[None]:
    """Roll back the changes of the block."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def post_saved(log: Log) -> list[tuple[Any, bool]]:
    return [(sent.instance, sent.arguments["created"]) for sent in log.of("post_save")]


def assert_instances_equal_rows(log: Log, model: type[models.Model]) -> None:
    """At `post_save` the instance held what the row holds."""
    held = {row["id"]: row for row in model._default_manager.values()}
    for sent in log.of("post_save"):
        assert sent.values == held[sent.instance.pk]


def statements(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries if not is_write_lock(query["sql"])]


def upserting(*unique_fields: str, update_fields: list[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"update_conflicts": True, "update_fields": update_fields}
    if connection.features.supports_update_conflicts_with_target:
        arguments["unique_fields"] = unique_fields
    return arguments
