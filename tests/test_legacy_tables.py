"""Tables without the primary key that their model declares: only the chosen rows may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Length

from signal_patch import bulk_signals, no_bulk_signals
from signal_patch.mixins import SignalEnhancedQuerySetMixins
from tests.fields import Number
from tests.key_models import Coupon, Docket, Legacy, LegacyPair, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on", "_tables")]

TABLES = {
    "legacy": "code varchar(10), size integer, of_id varchar(10)",
    "legacy_pair": "code varchar(10), number integer, size integer",
}


@pytest.fixture
def _tables(db: None) -> Iterator[None]:
    # Creating a table that is not temporary would commit on MariaDB.
    with connection.cursor() as cursor:
        for name, columns in TABLES.items():
            cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns})")
        yield
        if connection.vendor == "mysql":  # Elsewhere they disappear with the transaction of the test.
            for name in TABLES:
                # Without TEMPORARY, this would commit the changes of the test.
                cursor.execute(f"DROP TEMPORARY TABLE {name}")


def _fill(model: Any, *values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        for row in values:
            cursor.execute(f"INSERT INTO {model._meta.db_table} VALUES ({', '.join(['%s'] * len(row))})", row)
    return _stored(model)


def _stored(model: Any) -> list[tuple[Any, ...]]:
    return sorted(
        model.objects.values_list(*(field.attname for field in model._meta.concrete_fields)), key=str
    )


def _word() -> Word:
    return Word.objects.get_or_create(text="w")[0]


SHARED: dict[str, Callable[[], object]] = {
    "update() of one of the two": lambda: Legacy.objects.filter(size=1).update(size=10),
    "update() of both": lambda: Legacy.objects.filter(code="a").update(size=10),
    "update() with an expression": lambda: Legacy.objects.filter(size=1).update(size=F("size") + 10),
    "update() of its key": lambda: Legacy.objects.filter(size=1).update(code="z"),
    "update() of its key, of both": lambda: Legacy.objects.update(code="z"),
    "update() of all": lambda: Legacy.objects.update(size=10),
    "update() in an order of its own": lambda: Legacy.objects.order_by(Length("code")).update(size=10),
    "update() by another table": lambda: Legacy.objects.filter(of__text="w", size=1).update(size=10),
    "bulk_update()": lambda: Legacy.objects.bulk_update([Legacy(code="a", size=10)], ["size"]),
    "bulk_update() of all": lambda: Legacy.objects.bulk_update(
        [Legacy(code=code, size=10) for code in "abc"], ["size"]
    ),
    "bulk_update() with an expression": lambda: Legacy.objects.bulk_update(
        [Legacy(code=code, size=F("size") + 1) for code in "abc"], ["size"]
    ),
    "SET_NULL": lambda: _word().delete(),
}


@pytest.mark.parametrize("changed", [False, True], ids=["as it is", "changed by a receiver"])
@pytest.mark.parametrize("batch_size", [2000, 1])
@pytest.mark.parametrize("change", SHARED.values(), ids=SHARED)
def test_a_key_that_two_rows_have_is_refused(
    change: Callable[[], object], batch_size: int, changed: bool, receivers: Receivers
) -> None:
    _word()
    before = _fill(Legacy, ("b", 3, "w"), ("a", 1, "w"), ("a", 2, "w"), ("c", 4, "w"))
    if changed:
        receivers.before_saves(Legacy, lambda row: setattr(row, "size", (row.size or 0) + 100))
    receivers.record(Legacy)
    message = "tests.Legacy.code does not identify the rows of 'legacy': several have the key '[az]'"
    with (
        pytest.raises(IntegrityError, match=message),
        transaction.atomic(),
        bulk_signals(batch_size=batch_size),
    ):
        change()
    assert _stored(Legacy) == before
    assert Word.objects.count() == 1


NULLS: dict[str, Callable[[], object]] = {
    "update()": lambda: Legacy.objects.filter(size=4).update(size=10),
    "update() of all": lambda: Legacy.objects.update(size=10),
    "update() with an expression": lambda: Legacy.objects.update(size=F("size") + 10),
    "update() in an order of its own": lambda: Legacy.objects.order_by(Length("code")).update(size=10),
    "SET_NULL": lambda: _word().delete(),
}


@pytest.mark.parametrize("batch_size", [2000, 1])
@pytest.mark.parametrize("change", NULLS.values(), ids=NULLS)
def test_null_as_a_key_is_refused_before_any_signal(
    change: Callable[[], object], batch_size: int, receivers: Receivers
) -> None:
    _word()
    before = _fill(Legacy, ("a", 1, "w"), ("b", 3, "w"), (None, 4, "w"), ("c", 5, "w"))
    log = receivers.record(Legacy)
    message = "tests.Legacy.code does not identify the rows of 'legacy': one has NULL there"
    with (
        pytest.raises(IntegrityError, match=message),
        transaction.atomic(),
        bulk_signals(batch_size=batch_size),
    ):
        change()
    assert log == []
    assert _stored(Legacy) == before


@pytest.mark.parametrize("batch_size", [2000, 1])
@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([("a", 1, 1), ("a", 1, 2), ("b", 1, 3)], r"several have the key \('a', 1\)"),
        ([("a", 1, 1), ("a", None, 2), ("b", 1, 3)], "one has NULL there"),
    ],
    ids=["shared", "null"],
)
def test_a_key_of_two_columns_that_is_not_unique_or_null_is_refused(
    rows: list[tuple[Any, ...]], wrong: str, batch_size: int, receivers: Receivers
) -> None:
    before = _fill(LegacyPair, *rows)
    receivers.record(LegacyPair)
    message = rf"tests.LegacyPair \(code, number\) does not .* 'legacy_pair': {wrong}"
    with (
        pytest.raises(IntegrityError, match=message),
        transaction.atomic(),
        bulk_signals(batch_size=batch_size),
    ):
        LegacyPair.objects.update(size=10)
    assert _stored(LegacyPair) == before


@pytest.mark.parametrize("rows", [("a", 2, "w"), (None, 2, "w")], ids=["shared", "null"])
def test_rows_with_a_key_of_their_own_are_changed_and_signalled(
    rows: tuple[Any, ...], receivers: Receivers
) -> None:
    _fill(Legacy, ("a", 1, "w"), ("b", 3, "w"), ("c", 4, "w"), rows)
    log = receivers.record(Legacy)
    assert Legacy.objects.filter(size__gt=2).update(size=10) == 2
    assert Legacy.objects.bulk_update([Legacy(code="b", size=11)], ["size"]) == 1
    assert [sent.instance.pk for sent in log.of("post_save")] == ["b", "c", "b"]
    assert _stored(Legacy) == sorted([("a", 1, "w"), ("b", 11, "w"), ("c", 10, "w"), rows], key=str)


def test_in_a_transaction_of_the_callers_nothing_of_it_is_committed(receivers: Receivers) -> None:
    before = _fill(Legacy, ("a", 1, None), ("a", 2, None))
    receivers.record(Legacy)
    with transaction.atomic():
        with pytest.raises(IntegrityError, match="does not identify"):
            Legacy.objects.bulk_update([Legacy(code="a", size=10)], ["size"])
        assert transaction.get_rollback()
    assert _stored(Legacy) == before


class _Counting(QuerySet[Any]):
    """Its `update()` also counts a row of another table."""

    def update(self, **values: Any) -> int:
        return super().update(**values) + 1


class _Signalling(SignalEnhancedQuerySetMixins, _Counting):
    pass


def test_an_update_that_counts_rows_of_its_own_is_no_error(receivers: Receivers) -> None:
    with no_bulk_signals():
        Coupon.objects.bulk_create([Coupon(number=number) for number in range(5)])
    log = receivers.record(Coupon)
    assert _Signalling(Coupon).update(uses=5) == 6
    assert len(log.of("post_save")) == 5
    assert Coupon.objects.filter(uses=5).count() == 5


def test_with_unhashable_keys_the_count_of_the_statement_decides(receivers: Receivers) -> None:
    with no_bulk_signals():
        Docket.objects.bulk_create([Docket(number=Number(1)), Docket(number=Number(2))])
    log = receivers.record(Docket)
    assert Docket.objects.update(uses=5) == 2
    assert [sent.values["uses"] for sent in log.of("post_save")] == [5, 5]
    assert [docket.uses for docket in Docket.objects.all()] == [5, 5]
