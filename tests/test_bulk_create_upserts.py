"""`bulk_create(update_conflicts=True)`: `created` says what happened to each row (contract.md, section 4)."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Value
from django.db.models.functions import Lower, Upper
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

import signal_patch
from tests.creating import (
    assert_instances_equal_rows,
    on_its_own,
    post_saved,
    rolled_back,
    statements,
    stored_rows,
    upserting,
)
from tests.fields import Point
from tests.models import (
    Badge,
    Nickname,
    Parcel,
    Shelf,
    ShelfProxy,
    Token,
)
from tests.recording import Receivers, field_values

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.usefixtures("everything_on"),
]


def by_select_then_save(objs: list[Any], unique: list[str], update: list[str]) -> list[tuple[Any, bool]]:
    outcome = []
    for obj in objs:
        values = field_values(obj)
        found = type(obj)._default_manager.filter(**{name: values[name] for name in unique}).first()
        for name in update if found else ():
            setattr(found, name, values[name])
        (found or obj).save(force_insert=not found)
        outcome.append(((found or obj).pk, not found))
    return outcome


@pytest.mark.parametrize("batch_size", [2, 2000])
@pytest.mark.parametrize(
    ("unique", "update", "make"),
    [
        (["label"], ["width"], lambda: [Shelf(label=label, width=n) for n, label in enumerate("xaybz")]),
        (["label"], ["width", "colour"], lambda: [Shelf(label=label, colour="red") for label in "ab"]),
        (["label"], ["width"], lambda: [Shelf(label=label, width=5) for label in "xyz"]),
        (
            ["room", "place"],
            ["label"],
            lambda: [Shelf(label=f"n{n}", room=1, place=n, width=n) for n in range(6)],
        ),
        (["label"], ["width"], lambda: [Shelf(label=Lower(Value(label)), width=8) for label in "XAYB"]),
        (["label"], ["width"], lambda: [Shelf(label="x"), Shelf(pk=990, label="y")]),
    ],
    ids=["label", "all known", "all new", "two columns", "expressions", "given keys"],
)
def test_created_says_what_really_happened(
    unique: list[str],
    update: list[str],
    make: Callable[[], list[Any]],
    batch_size: int,
    receivers: Receivers,
    either_way: None,
) -> None:
    for label in "abc":
        Shelf(label=label, width=7, room=1, place=ord(label) - 95).save()
    before = set(Shelf.objects.values_list("pk", flat=True))
    with rolled_back():
        expected = [created for _, created in by_select_then_save(make(), unique, update)]
        expected_rows = stored_rows(Shelf, "id")
    log = receivers.record(Shelf)
    objs = make()
    with signal_patch.bulk_signals(batch_size=batch_size):
        assert Shelf.objects.bulk_create(objs, **upserting(*unique, update_fields=update)) == objs
    flags = {id(instance): created for instance, created in post_saved(log)}
    assert [flags[id(obj)] for obj in objs] == expected
    assert [obj.pk not in before for obj in objs] == expected
    assert stored_rows(Shelf, "id") == expected_rows
    assert all(sent.arguments["update_fields"] is None for sent in log)
    assert len(log.of("pre_save")) == len(log.of("post_save")) == len(objs)
    assert not any(obj._state.adding for obj in objs)
    assert_instances_equal_rows(log, Shelf)


def test_given_keys_are_upserted(receivers: Receivers, either_way: None) -> None:
    Token(code="a", uses=1).save()
    log = receivers.record(Token)
    objs = [Token(code="a", uses=5), Token(code="b", uses=6)]
    Token.objects.bulk_create(objs, **upserting("pk", update_fields=["uses"]))
    assert post_saved(log) == [(objs[0], False), (objs[1], True)]
    assert dict(Token.objects.values_list("code", "uses")) == {"a": 5, "b": 6}


@pytest.mark.skipif("connection.vendor == 'postgresql'", reason="PostgreSQL refuses to update a row twice")
def test_instances_in_conflict_with_each_other_create_and_update(
    receivers: Receivers, either_way: None
) -> None:
    log = receivers.record(Shelf)
    objs = [Shelf(label="a", width=1), Shelf(label="b", width=2), Shelf(label="a", width=3)]
    Shelf.objects.bulk_create(objs, **upserting("label", update_fields=["width"]))
    assert [created for _, created in post_saved(log)] == [True, True, False]
    assert objs[0].pk == objs[2].pk
    assert dict(Shelf.objects.values_list("label", "width")) == {"a": 3, "b": 2}


@pytest.mark.skipif(
    "connection.vendor != 'mysql'", reason="elsewhere an upsert meets conflicts in its target only"
)
def test_a_conflict_with_an_earlier_instance_comes_before_one_with_an_old_row(
    receivers: Receivers, either_way: None
) -> None:
    old = Shelf.objects.create(label="a", width=1)

    def make() -> list[Shelf]:
        return [Shelf(pk=old.pk + 1, label="b", width=2), Shelf(pk=old.pk + 1, label="a", width=3)]

    arguments = upserting(update_fields=["width"])
    with rolled_back():
        Shelf.objects.bulk_create(make(), **arguments)
        expected = stored_rows(Shelf)
    log = receivers.record(Shelf)
    Shelf.objects.bulk_create(make(), **arguments)
    assert stored_rows(Shelf) == expected
    assert [(instance.pk, created) for instance, created in post_saved(log)] == [
        (old.pk + 1, True),
        (old.pk + 1, False),
    ]


@pytest.mark.parametrize("name", ["ANN", Upper(Value("ann"))])
def test_a_row_is_recognized_by_a_generated_column(name: Any, receivers: Receivers, either_way: None) -> None:
    Nickname.objects.create(name="Ann")
    log = receivers.record(Nickname)
    objs = [Nickname(name=name, uses=5), Nickname(name="bob", uses=6)]
    Nickname.objects.bulk_create(objs, **upserting("folded", update_fields=["uses"]))
    assert post_saved(log) == [(objs[0], False), (objs[1], True)]
    assert_instances_equal_rows(log, Nickname)
    assert dict(Nickname.objects.values_list("name", "uses")) == {"Ann": 5, "bob": 6}


def test_an_upsert_of_the_own_row_by_a_generated_column_sends_nothing(receivers: Receivers) -> None:
    def upsert(instance: Any, **arguments: Any) -> None:
        again = Nickname(name=instance.name.upper(), uses=9)
        Nickname.objects.bulk_create([again], **upserting("folded", update_fields=["uses"]))

    receivers.connect(post_save, upsert, Nickname)
    log = receivers.record(Nickname)
    Nickname.objects.bulk_create([Nickname(name="ann")])
    assert log.names() == ["pre_save", "post_save"]
    assert Nickname.objects.get().uses == 9


def test_a_row_is_recognized_by_a_column_that_only_its_own_field_can_compare(receivers: Receivers) -> None:
    Badge.objects.create(place=Point(1, 2))
    log = receivers.record(Badge)
    objs = [Badge(place=Point(1, 2), size=5), Badge(place=Point(3, 4), size=6)]
    Badge.objects.bulk_create(objs, **upserting("place", update_fields=["size"]))
    assert sorted(post_saved(log), key=lambda pair: pair[1]) == [(objs[0], False), (objs[1], True)]
    assert dict(Badge.objects.values_list("place", "size")) == {Point(1, 2): 5, Point(3, 4): 6}


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="elsewhere an upsert names its target")
def test_a_row_that_takes_the_place_of_one_that_was_moved_is_created(receivers: Receivers) -> None:
    Shelf(label="moved", room=1, place=1).save()
    log = receivers.record(Shelf)
    objs = [Shelf(label="moved", room=2, place=2)]
    objs += [Shelf(label=label, room=1, place=1) for label in ("new", "the new one")]
    Shelf.objects.bulk_create(objs, update_conflicts=True, update_fields=["room", "place"])
    assert post_saved(log) == [(objs[0], False), (objs[1], True), (objs[2], False)]
    assert set(Shelf.objects.values_list("label", "room")) == {("moved", 2), ("new", 1)}


@on_its_own
@pytest.mark.skipif(
    "connection.features.supports_update_conflicts_with_target"
    " or not connection.features.can_return_rows_from_bulk_insert",
    reason="an upsert names its target, or its row does not come back",
)
def test_a_conflict_may_be_with_an_index_that_only_the_database_knows(receivers: Receivers) -> None:
    old = Shelf.objects.create(label="old", width=1)
    log = receivers.record(Shelf)
    objs = [Shelf(label="a", width=1, colour="red"), Shelf(label="b", width=2)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX one_of_a_width ON tests_shelf (width)")
    try:
        Shelf.objects.bulk_create(objs, update_conflicts=True, update_fields=["colour"])
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX one_of_a_width ON tests_shelf")
    assert post_saved(log) == [(objs[0], False), (objs[1], True)]
    assert (objs[0].pk, objs[0].label) == (old.pk, "old")
    assert Shelf.objects.get(label="old").colour == "red"


@on_its_own
def test_a_conflict_outside_the_target_raises_as_in_django(receivers: Receivers, either_way: None) -> None:
    receivers.record(Shelf)
    if not connection.features.supports_update_conflicts_with_target:
        arguments: dict[str, Any] = {}
    else:
        arguments = upserting("room", "place", update_fields=["width"])
    Shelf(label="a", room=1, place=1).save()
    with pytest.raises(IntegrityError):
        Shelf.objects.bulk_create([Shelf(label="b"), Shelf(label="a", room=2, place=2)], **arguments)
    assert Shelf.objects.count() == 1


def test_a_proxy_has_the_unique_constraints_of_its_model(receivers: Receivers) -> None:
    def statements(model: type[Shelf]) -> int:
        objs = [model(label=f"new {place}", room=1, place=place) for place in (1, 2)]
        with CaptureQueriesContext(connection) as queries:
            model._default_manager.bulk_create(objs, **upserting("room", "place", update_fields=["width"]))
        return len(queries)

    for place in (1, 2):
        Shelf(label=f"old {place}", room=1, place=place).save()
    receivers.record(Shelf, ShelfProxy)
    statements(Shelf)  # queries the kind of the table, once
    assert statements(ShelfProxy) == statements(Shelf)
    assert Shelf.objects.count() == 2


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only PostgreSQL returns system columns")
@pytest.mark.parametrize("lock", [False, True])
def test_postgresql_needs_one_statement_and_one_that_locks(lock: bool, receivers: Receivers) -> None:
    receivers.record(Shelf)
    # The first upsert of a table also asks what kind of table it is.
    Shelf.objects.bulk_create([Shelf(label="a")], **upserting("label", update_fields=["width"]))
    objs = [Shelf(label="a"), Shelf(label="b")]
    with (
        transaction.atomic(),
        CaptureQueriesContext(connection) as queries,
        signal_patch.bulk_signals(lock=lock),
    ):
        Shelf.objects.bulk_create(objs, **upserting("label", update_fields=["width"]))
    assert len(statements(queries)) == 1 + lock


@pytest.fixture
def _partitioned() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE tests_parcel (code varchar(30) PRIMARY KEY, weight integer NOT NULL)"
            " PARTITION BY HASH (code)"
        )
        for part in range(2):
            cursor.execute(
                f"CREATE TABLE tests_parcel_{part} PARTITION OF tests_parcel"
                f" FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
            )


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only PostgreSQL has these partitions")
@pytest.mark.parametrize("mode", ["plain", "ignore_conflicts", "update_conflicts"])
@pytest.mark.usefixtures("_partitioned")
def test_rows_of_a_partitioned_table_send_signals_as_others_do(mode: str, receivers: Receivers) -> None:
    """Their system columns cannot be returned."""
    objs = [Parcel(code=code, weight=2) for code in "abcd"]
    there = {} if mode == "plain" else {"a": 1, "c": 1}
    for code, weight in there.items():
        Parcel(code=code, weight=weight).save()
    log = receivers.record(Parcel)
    arguments = {
        "plain": {},
        "ignore_conflicts": {"ignore_conflicts": True},
        "update_conflicts": upserting("code", update_fields=["weight"]),
    }[mode]
    Parcel.objects.bulk_create(objs, **arguments)
    assert len(log.of("pre_save")) == 4
    assert {instance.code: created for instance, created in post_saved(log)} == {
        obj.code: obj.code not in there for obj in objs if obj.code not in there or mode == "update_conflicts"
    }
    new = dict.fromkeys("abcd", 2)
    assert dict(Parcel.objects.values_list("code", "weight")) == (
        {**new, **there} if mode == "ignore_conflicts" else new
    )


@on_its_own
@pytest.mark.skipif("connection.vendor != 'mysql'", reason="SQLite has one writer, PostgreSQL one statement")
@pytest.mark.parametrize("both", [False, True])
def test_a_row_that_another_connection_has_just_inserted_counts_as_updated(
    both: bool, receivers: Receivers
) -> None:
    """Another connection inserts the row between the SELECT and the INSERT."""
    other = connections.create_connection("default")

    def interfere(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT"):
            # The first SELECT is for both rows, the second updates one, and the third is for the other one.
            label = {1: "a", 3: "b" if both else None}.get(next(inserts))
            if label:
                with other.cursor() as cursor:
                    cursor.execute(
                        "INSERT INTO tests_shelf (label, width, touched) VALUES (%s, 1, NOW())", [label]
                    )
        return execute(sql, params, many, context)

    inserts = count(1)
    log = receivers.record(Shelf)
    try:
        with connection.execute_wrapper(interfere):
            Shelf.objects.bulk_create(
                [Shelf(label="a", width=5), Shelf(label="b")], **upserting("label", update_fields=["width"])
            )
    finally:
        other.close()
    assert [created for _, created in post_saved(log)] == [False, not both]
    assert Shelf.objects.get(label="a").width == 5
