"""Values that Django's statement accepts, whether or not their effect can be predicted."""

from __future__ import annotations

import datetime
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import F, OuterRef, Subquery, Value
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, of_every_size, rows
from tests.models import Reading
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

DAY = datetime.date(2021, 2, 3)
ROW = {"day": DAY, "token": uuid.UUID(int=5), "data": {"a": 1}, "price": 2}


class Unhashable:
    """An unhashable part of a library's own expressions."""

    __hash__ = None  # type: ignore[assignment]  # as for any class that only defines __eq__

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


class UnhashableValue(Value):
    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [int(self.value)]


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Callable[[], dict[str, Any]]] = {
    "no text for a key": lambda: {"before": ""},
    "outer column": lambda: {"number": OuterRef("pk")},
    "outer column, computed": lambda: {"number": OuterRef("number") + F("number")},
    "outer column for a key": lambda: {"before": OuterRef("pk")},
    "number for a day": lambda: {"day": F("number") + 1},
    "number for a moment": lambda: {"moment": F("number") + 1},
    "number for JSON": lambda: {"data": F("number") + 1},
    "number for a UUID": lambda: {"token": F("number")},
    "text for a number": lambda: {"number": F("text")},
    "text for a price": lambda: {"price": F("text")},
    "number for a text": lambda: {"text": F("number")},
    "text for JSON": lambda: {"data": F("text")},
    "moment for a day": lambda: {"day": F("moment")},
    "mixed types": lambda: {"number": F("number") + F("price")},
    "no hash": lambda: {"number": F("number") + UnhashableValue(Unhashable(2))},
    "no hash alone": lambda: {"number": UnhashableValue(Unhashable(2))},
    "subquery": lambda: {"number": Subquery(Reading.objects.order_by("pk").values("number")[:1])},
    "deep": lambda: {"data": nested(500)},
}


def stored(name: str) -> list[Any]:
    """Return a column as the driver returns it, because the field may not be able to read it."""
    quote = connection.ops.quote_name
    field: Any = Reading._meta.get_field(name)
    text = "CHAR(2000)" if connection.vendor == "mysql" else "TEXT"
    with connection.cursor() as cursor:
        table = quote(Reading._meta.db_table)
        cursor.execute(f"SELECT CAST({quote(field.column)} AS {text}) FROM {table} ORDER BY id")
        return list(cursor.fetchall())


def outcome(values: dict[str, Any]) -> Any:
    """Return what an update leaves in the rows, or how it is refused, and roll it back."""
    refused = refusal(lambda: Reading.objects.update(**values))
    if refused:
        # PostgreSQL quotes the statement, and gives a position in it.
        return refused[0], refused[1].splitlines()[0]
    return stored(next(iter(values)))


def restored(values: dict[str, Any]) -> Any:
    with transaction.atomic():
        found = outcome(values)
        transaction.set_rollback(True)
    return found


@of_every_size
@pytest.mark.parametrize(
    "signals", [(pre_save, post_save), (pre_save,), (post_save,)], ids=["both", "pre", "post"]
)
@pytest.mark.parametrize("given", VALUES.values(), ids=VALUES)
def test_an_update_takes_what_django_takes_and_refuses_what_it_refuses(
    given: Callable[[], dict[str, Any]], signals: tuple[Any, ...], batch_size: int, receivers: Receivers
) -> None:
    rows(Reading, {**ROW, "number": 3}, {**ROW, "text": "7"})
    with no_bulk_signals():
        expected = restored(given())
    sent: list[Any] = []
    for signal in signals:
        receivers.connect(signal, lambda signal, instance, **_: sent.append((signal, instance.pk)), Reading)
    with bulk_signals(batch_size=batch_size):
        assert restored(given()) == expected
    if type(expected) is list:
        assert len(sent) == 2 * len(signals)


@pytest.mark.parametrize("given", [{"day": F("number")}, {"data": F("text")}, {"number": F("text")}])
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="elsewhere columns take other types")
def test_an_expression_of_another_type_is_refused_before_any_signal(
    given: dict[str, Any], receivers: Receivers
) -> None:
    rows(Reading, ROW)
    log = receivers.record(Reading)
    assert refusal(lambda: Reading.objects.update(**given))
    assert log == []


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="elsewhere columns have types")
def test_what_can_be_read_is_shown_and_what_can_not_leaves_the_old_value(receivers: Receivers) -> None:
    first, last = uuid.UUID(int=7), uuid.UUID(int=9)
    rows(Reading, *({**ROW, "text": text} for text in (first.hex, "word", last.hex)))
    log = receivers.record(Reading)
    assert Reading.objects.update(token=F("text"), data=F("number")) == 3
    for signal in ("pre_save", "post_save"):
        assert [sent.values["token"] for sent in log.of(signal)] == [first, ROW["token"], last]
        assert [sent.values["data"] for sent in log.of(signal)] == [1, 1, 1]


def test_an_empty_string_for_a_foreign_key_is_null(receivers: Receivers) -> None:
    first, second = rows(Reading, ROW, ROW)
    Reading._base_manager.bulk_update([Reading(pk=second.pk, before=first)], ["before"])
    second.refresh_from_db()
    log = receivers.record(Reading)
    truth = receivers.check_truth(Reading)
    Reading.objects.update(before="")
    second.before_id = ""  # as a form may return it
    Reading.objects.bulk_update([second], ["before"])
    assert [sent.values["before_id"] for sent in log.of("post_save")] == [None] * 3
    assert [sent.values["before_id"] for sent in log.of("pre_save")] == [None, None, ""]
    assert truth == [True] * 3
    receivers.before_saves(Reading, lambda reading: setattr(reading, "before_id", ""))
    second.before_id = first.pk
    Reading.objects.bulk_update([second], ["before"])
    Reading.objects.update(text="new")
    assert column(Reading, "before_id") == [None, None]
    assert all(truth)


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="elsewhere columns have types")
def test_an_expression_that_can_not_be_read_stays_on_the_callers_instance(receivers: Receivers) -> None:
    token = uuid.UUID(int=7)
    first, second = rows(Reading, {**ROW, "text": token.hex}, {**ROW, "text": "word"})
    first.token = second.token = F("text")  # type: ignore[assignment]  # an expression, for the statement
    log = receivers.record(Reading)
    Reading.objects.bulk_update([first, second], ["token"])
    assert [sent.values["token"] for sent in log] == [token, F("text")] * 2
    assert stored("token") == [(token.hex,), ("word",)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python's own json recurses before")
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="others nest JSON less deep")
def test_json_may_be_nested_as_deep_as_it_can_be_saved(receivers: Receivers) -> None:
    rows(Reading, ROW, ROW)
    deep = nested(5000)
    receivers.record(Reading)
    assert Reading.objects.update(data=deep) == 2
    receivers.before_saves(Reading, lambda reading: reading.data.append(reading.pk))
    Reading.objects.update(text="new")
    assert [len(data) for data in column(Reading, "data")] == [2, 2]
