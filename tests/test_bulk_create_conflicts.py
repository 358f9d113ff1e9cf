"""`bulk_create(ignore_conflicts=True)`: only inserted rows send `post_save` (contract.md, section 4)."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import Value
from django.db.models.functions import Lower
from django.test.utils import CaptureQueriesContext

import signal_patch
from tests.creating import assert_instances_equal_rows, post_saved, rolled_back, statements, stored_rows
from tests.fleet import of_every_size
from tests.key_models import Coupon, Tariff
from tests.models import (
    Badge,
    Member,
    Nickname,
    Shelf,
    Token,
)
from tests.recording import Log, Receivers

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.usefixtures("everything_on"),
]


@of_every_size
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: [Shelf(label=label) for label in "xaybzx"], id="one unique key"),
        pytest.param(lambda: [Shelf(label=label) for label in "xyz"], id="no conflict"),
        pytest.param(lambda: [Shelf(label=label) for label in "ab"], id="nothing but conflicts"),
        pytest.param(
            lambda: [Shelf(label=f"n{n}", room=1, place=n // 2) for n in range(9)], id="two unique keys"
        ),
        pytest.param(
            lambda: [Shelf(label=Lower(Value(label))) for label in "XAYX"], id="keys that only the row has"
        ),
        pytest.param(
            lambda: [Shelf(pk=n, label=label) for n, label in enumerate("xaybzx", 900)], id="given keys"
        ),
        pytest.param(
            lambda: [
                Shelf(pk=900, label="a"),
                Shelf(pk=900, label="x"),
                Shelf(label="y"),
                Shelf(pk=901, label="y"),
            ],
            id="a given key twice",
        ),
    ],
)
def test_only_rows_really_inserted_get_post_save(
    make: Callable[[], list[Any]], batch_size: int, receivers: Receivers, either_way: None
) -> None:
    for label in "abc":
        Shelf(label=label, width=7, room=1, place=ord(label) - 95).save()
    before = set(Shelf.objects.values_list("pk", flat=True))
    with rolled_back(), signal_patch.no_bulk_signals():
        Shelf.objects.bulk_create(make(), ignore_conflicts=True)
        expected = sorted(row["label"] for row in Shelf.objects.values() if row["id"] not in before)
        expected_rows = stored_rows(Shelf, "id")
    log = receivers.record(Shelf)
    objs = make()
    with signal_patch.bulk_signals(batch_size=batch_size):
        Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    if batch_size > 2 or not any(obj.pk == 900 for obj in objs):
        assert stored_rows(Shelf, "id") == expected_rows
        assert sorted(sent.values["label"] for sent in log.of("post_save")) == expected
    inserted = set(Shelf.objects.values_list("pk", flat=True)) - before
    assert sorted(sent.instance.pk for sent in log.of("post_save")) == sorted(inserted)
    assert len(log.of("pre_save")) == len(objs)
    assert all(created for _, created in post_saved(log))
    assert_instances_equal_rows(log, Shelf)


def test_keys_are_right_if_one_of_djangos_own_batches_leaves_a_row_out(log: Log, either_way: None) -> None:
    with signal_patch.bulk_signals():
        Shelf.objects.bulk_create(
            [Shelf(label=label) for label in "xxyz"], batch_size=1, ignore_conflicts=True
        )
    keys = {sent.values["label"]: sent.instance.pk for sent in log.of("post_save")}
    assert keys == dict(Shelf.objects.values_list("label", "pk"))


@pytest.mark.parametrize("taken", [[], [50], [3, 50, 51, 97], list(range(0, 100, 2))])
def test_inserted_rows_are_recognised_without_any_unique_value(
    taken: list[int], receivers: Receivers
) -> None:
    """The labels are expressions, so no value of an instance tells which row belongs to it."""
    for n in taken:
        Shelf(label=f"l{n}").save()
    log = receivers.record(Shelf)
    objs = [Shelf(label=Lower(Value(f"L{n}")), width=n) for n in range(100)]
    Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    assert [sent.values["width"] for sent in log.of("post_save")] == [n for n in range(100) if n not in taken]
    assert_instances_equal_rows(log, Shelf)
    assert Shelf.objects.count() == 100


@pytest.mark.skipif(
    "not connection.features.can_return_rows_from_bulk_insert", reason="its INSERT has no RETURNING"
)
def test_conflicts_cost_a_constant_number_of_statements(receivers: Receivers) -> None:
    Shelf.objects.bulk_create([Shelf(label=str(n)) for n in range(0, 60, 2)])
    receivers.record(Shelf)
    objs = [Shelf(label=str(n)) for n in range(60)]
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    inserts = [sql for sql in statements(queries) if sql.startswith("INSERT")]
    assert len(inserts) == -(-60 // _rows_per_statement())


def _rows_per_statement() -> int:
    fields = [field for field in Shelf._meta.concrete_fields if not field.generated and field.name != "id"]
    return max(1, connection.ops.bulk_batch_size(fields, [None] * 60))


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="only MariaDB and MySQL have INSERT IGNORE")
def test_receivers_get_a_value_as_the_database_made_it_fit(receivers: Receivers) -> None:
    log = receivers.record(Token)
    objs = [Token(code="a" * 40), Token(code="a" * 30, uses=2), Token(code="b")]
    Token.objects.bulk_create(objs, ignore_conflicts=True)
    assert [(sent.values["code"], sent.values["uses"]) for sent in log.of("post_save")] == [
        ("a" * 30, 0),
        ("b", 0),
    ]


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="only MariaDB and MySQL have INSERT IGNORE")
@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Token(code="a" * 40), "a" * 30),
        (lambda: Coupon(number=40_000), 32_767),
        (lambda: Tariff(rate=Decimal("1.50")), Decimal("1.50")),
    ],
    ids=["text", "number", "as it is"],
)
def test_a_key_is_that_which_the_database_made_fit(
    make: Callable[[], Any], key: object, log: Log, either_way: None
) -> None:
    obj = make()
    type(obj)._default_manager.bulk_create([obj], ignore_conflicts=True)
    assert [sent.values[obj._meta.pk.attname] for sent in log.of("post_save")] == [key]
    assert type(obj)._default_manager.get() == obj


def test_a_key_may_be_a_foreign_key(log: Log) -> None:
    members = [Member.objects.create() for _ in range(3)]
    Badge.objects.create(member=members[0])
    log.clear()
    objs = [Badge(member=member) for member in members]
    Badge.objects.bulk_create(objs, ignore_conflicts=True)
    assert [sent.instance for sent in log.of("post_save")] == objs[1:]
    assert [obj.pk for obj in objs[1:]] == list(
        Badge.objects.filter(member__in=members[1:]).order_by("pk").values_list("pk", flat=True)
    )


def test_generated_columns_may_conflict(receivers: Receivers, either_way: None) -> None:
    Nickname.objects.create(name="Ann")
    log = receivers.record(Nickname)
    objs = [Nickname(name=name) for name in ("ANN", "bob", "BOB", "cy")]
    Nickname.objects.bulk_create(objs, ignore_conflicts=True)
    assert post_saved(log) == [(objs[1], True), (objs[3], True)]
    assert_instances_equal_rows(log, Nickname)


@pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="only PostgreSQL makes this trigger, and in a transaction"
)
def test_rows_whose_keys_a_trigger_changes_send_the_right_instances(log: Log) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.label := upper(NEW.label); RETURN NEW; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER shout BEFORE INSERT ON tests_shelf FOR EACH ROW EXECUTE FUNCTION shout()"
        )
    Shelf.objects.create(label="a")
    log.clear()
    objs = [Shelf(label="a"), Shelf(label="b")]
    Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    assert [sent.instance for sent in log.of("post_save")] == objs[1:]
    assert objs[1].pk == Shelf.objects.get(label="B").pk
