"""`bulk_create()`, compared with the loop of `save(force_insert=True)` (contract.md, section 4)."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Lower, Now, Upper
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

import signal_patch
from tests.creating import (
    assert_instances_equal_rows,
    on_its_own,
    post_saved,
    rolled_back,
    save_signals,
    statements,
    stored_rows,
    upserting,
)
from tests.database import is_mysql
from tests.models import (
    Book,
    BookProxy,
    Chapter,
    Foghorn,
    Loan,
    Member,
    Novel,
    Publisher,
    Reader,
    Receipt,
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


def by_loop(objs: list[Any]) -> None:
    for obj in objs:
        obj.save(force_insert=True)


# The signals


@pytest.mark.parametrize(
    "make",
    [
        lambda: [Book(title=f"t{n}", price=n) for n in range(5)],
        lambda: [Token(code=f"c{n}", uses=n) for n in range(5)],
        lambda: [Shelf(label=f"l{n}", width=n) for n in range(5)],
        lambda: [Shelf(label="blue", colour="blue"), Shelf(label="default"), Shelf(id=10**6, label="key")],
        lambda: [BookProxy(title="a"), Book(title="b")],
        lambda: [Publisher(name="only one")],
    ],
    ids=["auto keys", "given keys", "generated", "mixed defaults and keys", "proxies", "one"],
)
def test_signals_and_rows_are_those_of_the_loop(
    make: Callable[[], list[Any]], log: Log, either_way: None
) -> None:
    model = type(make()[-1])
    with rolled_back():
        by_loop(make())
        expected, expected_rows = save_signals(log, "id"), stored_rows(model, "id")
    log.clear()
    objs = make()
    assert model._default_manager.bulk_create(objs) == objs
    loop_order = [entry for pair in zip(*_halves(save_signals(log, "id")), strict=True) for entry in pair]
    assert len(loop_order) == len(expected)
    for (*said, values), (*expected_said, expected_values) in zip(loop_order, expected, strict=True):
        assert said == expected_said
        # Where the database returns no values, save() defers what only the row knows, or leaves it open.
        known = {name: value for name, value in expected_values.items() if not isinstance(value, type)}
        assert values.items() >= known.items()
    assert stored_rows(model, "id") == expected_rows
    assert all(obj.pk is not None and not obj._state.adding and obj._state.db == "default" for obj in objs)


def _halves(entries: list[Any]) -> tuple[list[Any], list[Any]]:
    middle = len(entries) // 2
    return entries[:middle], entries[middle:]


def test_instances_have_the_keys_of_their_rows(log: Log, either_way: None) -> None:
    Shelf.objects.bulk_create([Shelf(label=f"l{n}") for n in range(7)])
    held = dict(Shelf.objects.values_list("label", "pk"))
    assert {sent.values["label"]: sent.values["id"] for sent in log.of("post_save")} == held


def test_arguments_are_those_of_a_save(log: Log) -> None:
    Publisher.objects.using("other").bulk_create([Publisher(name="p")])
    before, after = log
    assert before.sender is after.sender is Publisher
    assert before.instance is after.instance
    assert before.arguments == {"raw": False, "using": "other", "update_fields": None}
    assert after.arguments == {"raw": False, "using": "other", "update_fields": None, "created": True}
    assert before.values["id"] is None
    assert Publisher.objects.using("other").get().pk == after.values["id"]


def test_the_same_list_of_the_same_objects_comes_back_from_a_generator(log: Log) -> None:
    objs = [Publisher(name=str(n)) for n in range(3)]
    created = Publisher.objects.bulk_create(obj for obj in objs)
    assert isinstance(created, list)
    assert [id(obj) for obj in created] == [id(obj) for obj in objs]
    assert log.names() == ["pre_save"] * 3 + ["post_save"] * 3


@pytest.mark.parametrize("objs", [[], iter(()), (), None])
def test_creating_nothing_sends_nothing(objs: Any, log: Log) -> None:
    with signal_patch.no_bulk_signals():
        plain = Publisher.objects.bulk_create(objs)
    assert Publisher.objects.bulk_create(objs) == plain
    assert not log


def test_proxies_of_instances_send_what_a_save_sends(log: Log) -> None:
    publisher = Publisher(name="a")
    objs: list[Any] = [SimpleLazyObject(lambda: publisher), Publisher(name="b")]
    assert Publisher.objects.bulk_create(objs) == objs
    assert log.names() == ["pre_save", "pre_save", "post_save", "post_save"]
    assert [sent.sender for sent in log] == [Publisher] * 4
    assert log[0].instance is publisher
    assert publisher.pk is not None


def test_signals_are_sent_before_and_after_each_batch(log: Log) -> None:
    seen: list[tuple[int, int]] = []
    with signal_patch.bulk_signals(batch_size=2, progress=lambda *counts: seen.append(counts)):
        Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(5)], batch_size=1)
    pair = ["pre_save"] * 2 + ["post_save"] * 2
    assert log.names() == [*pair, *pair, "pre_save", "post_save"]
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_new_keys_do_not_clash_with_keys_in_later_batches(log: Log) -> None:
    given = Shelf(id=3, label="given")
    objs = [*(Shelf(label=str(n)) for n in range(4)), given]
    if connection.vendor == "postgresql":
        given.pk = 10**6  # its sequence does not know keys given by the caller
    with signal_patch.bulk_signals(batch_size=2):
        assert Shelf.objects.bulk_create(objs) == objs
    assert len({obj.pk for obj in objs}) == Shelf.objects.count() == 5


def test_without_receivers_djangos_own_method_runs(receivers: Receivers) -> None:
    with CaptureQueriesContext(connection) as patched:
        Publisher.objects.bulk_create(Publisher(name=str(n)) for n in range(3))
    Publisher.objects.all()._raw_delete("default")
    with signal_patch.no_bulk_signals(), CaptureQueriesContext(connection) as plain:
        Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(3)])
    assert [q["sql"] for q in patched] == [q["sql"] for q in plain]


def test_new_keys_may_be_of_a_class_without_a_hash(log: Log) -> None:
    objs = Receipt.objects.bulk_create([Receipt(), Receipt()])
    assert log.names() == ["pre_save", "pre_save", "post_save", "post_save"]
    assert [sent.values["number"] for sent in log.of("post_save")] == [obj.number for obj in objs]
    assert [Receipt.objects.get(pk=obj.pk).number for obj in objs] == [obj.number for obj in objs]


def test_auto_created_through_rows_send_nothing(log: Log) -> None:
    reader = Reader.objects.create(name="r")
    book = Book.objects.create()
    through: Any = Book.readers.through
    log.clear()
    through.objects.bulk_create([through(book=book, reader=reader)])
    assert not log


def test_rows_of_an_explicit_through_model_send_signals(receivers: Receivers) -> None:
    member = Member.objects.create()
    shelves = [Shelf.objects.create(label=str(n)) for n in range(2)]
    log = receivers.record(Loan)
    member.shelves.add(*shelves)
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2
    assert {sent.values["shelf_id"] for sent in log} == {shelf.pk for shelf in shelves}
    assert {sent.instance.pk for sent in log} == set(Loan.objects.values_list("pk", flat=True))


def test_related_managers_create_with_signals(log: Log) -> None:
    publisher = Publisher.objects.create()
    log.clear()
    publisher.books.bulk_create([Book(publisher=publisher, title="t")])
    assert log.names() == ["pre_save", "post_save"]
    assert log[-1].values["publisher_id"] == publisher.pk


def test_the_mixin_sends_once_whether_or_not_the_switch_is_on(log: Log) -> None:
    Foghorn.objects.bulk_create([Foghorn(name="on")])
    signal_patch.disable()
    Foghorn.objects.bulk_create([Foghorn(name="off")], 5)
    assert log.names() == ["pre_save", "post_save"] * 2
    with signal_patch.no_bulk_signals():
        Foghorn.objects.bulk_create([Foghorn(name="silent")], ignore_conflicts=True)
    assert len(log) == 4


def test_the_async_form_sends_the_same(receivers: Receivers) -> None:
    async def heard(instance: Any, created: bool, **arguments: Any) -> None:
        names.append((instance.pk, created))

    async def create() -> list[Publisher]:
        return await Publisher.objects.abulk_create([Publisher(name="a"), Publisher(name="b")])

    names: list[tuple[int, bool]] = []
    receivers.connect(post_save, heard, Publisher)
    objs = async_to_sync(create)()
    assert names == [(obj.pk, True) for obj in objs]


# Refusals


class Unsaved:
    """Makes a book whose publisher has no row."""

    def __call__(self) -> list[Any]:
        return [Book(title="fine"), Book(publisher=Publisher(name="unsaved"))]


@pytest.mark.parametrize(
    ("model", "make", "arguments"),
    [
        (Novel, lambda: [Novel()], {}),
        (Book, lambda: [Book()], {"batch_size": 0}),
        (Book, lambda: [Book()], {"ignore_conflicts": True, "update_conflicts": True}),
        (Shelf, lambda: [Shelf()], {"update_conflicts": True}),
        (Shelf, lambda: [Shelf()], {"update_conflicts": True, "update_fields": ["nowhere"]}),
        (
            Shelf,
            lambda: [Shelf()],
            {"update_conflicts": True, "update_fields": ["id"], "unique_fields": ["id"]},
        ),
        (Shelf, lambda: [Shelf()], {"update_conflicts": True, "update_fields": [], "unique_fields": ["id"]}),
        (
            Book,
            lambda: [Book()],
            {"update_conflicts": True, "update_fields": ["readers"], "unique_fields": ["id"]},
        ),
        (Book, Unsaved(), {}),
        (Book, lambda: [Book(), 3], {}),
    ],
)
def test_what_django_refuses_is_refused_before_any_signal(
    model: Any, make: Callable[[], list[Any]], arguments: dict[str, Any], log: Log
) -> None:
    with signal_patch.no_bulk_signals(), pytest.raises(Exception) as plain:  # noqa: PT011  # whatever it is
        model.objects.bulk_create(make(), **arguments)
    with pytest.raises(type(plain.value)) as patched:
        model.objects.bulk_create(make(), **arguments)
    assert not log
    assert isinstance(plain.value, AttributeError) or str(patched.value) == str(plain.value)


def test_a_refusal_leaves_an_outer_transaction_usable(log: Log) -> None:
    with transaction.atomic():
        with pytest.raises(ValueError, match="Batch size"):
            Book.objects.bulk_create([Book()], batch_size=0)
        assert Book.objects.count() == 0


with_target = pytest.mark.skipif(
    "not connection.features.supports_update_conflicts_with_target",
    reason="MariaDB's and MySQL's upserts name no target",
)


@with_target
@pytest.mark.parametrize("unique_fields", [["width"], ["room"], ["label", "room"], ["id", "label"]])
@pytest.mark.parametrize("label", ["old", "new"])
def test_a_target_that_is_not_unique_is_refused_before_any_signal(
    unique_fields: list[str], label: str, receivers: Receivers
) -> None:
    """The database refuses it, because it checks the statement before its rows."""
    Shelf(pk=1, label="old", room=1, place=1).save()
    log = receivers.record(Shelf)
    arguments = upserting(*unique_fields, update_fields=["colour"])

    def upsert() -> None:
        with transaction.atomic():
            Shelf.objects.bulk_create([Shelf(pk=1, label=label, room=1)], **arguments)

    with signal_patch.no_bulk_signals(), pytest.raises(DatabaseError) as plain:
        upsert()
    with pytest.raises(type(plain.value)) as patched:
        upsert()
    assert str(patched.value) == str(plain.value)
    assert not log
    assert Shelf.objects.get().label == "old"


@with_target
def test_a_target_may_be_unique_by_an_index_that_only_the_database_knows(receivers: Receivers) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX one_of_a_width ON tests_shelf (width)")
    Shelf(label="old", width=1).save()
    log = receivers.record(Shelf)
    objs = [Shelf(label="a", width=1, colour="red"), Shelf(label="b", width=2)]
    Shelf.objects.bulk_create(objs, **upserting("width", update_fields=["colour"]))
    assert post_saved(log) == [(objs[0], False), (objs[1], True)]
    assert Shelf.objects.get(label="old").colour == "red"


# What only the database knows


def test_expressions_are_values_at_post_save(log: Log, either_way: None) -> None:
    Shelf.objects.bulk_create(
        [
            Shelf(label=Lower(Value("ABC")), made=Now(), width=Value(2) + Value(3)),
            Shelf(label="plain", colour=Upper(Value("red"))),
        ]
    )
    labels = [sent.values["label"] for sent in log.of("post_save")]
    assert labels == ["abc", "plain"]
    assert isinstance(log.of("post_save")[0].values["made"], datetime.datetime)
    assert_instances_equal_rows(log, Shelf)


@on_its_own
def test_an_expression_over_columns_is_refused_as_django_refuses_it(log: Log) -> None:
    with pytest.raises(ValueError, match=r"F\(\) expressions can only be used to update"):
        Shelf.objects.bulk_create([Shelf(label="a", width=F("width") + 1)])
    assert not Shelf.objects.exists()


def test_generated_and_default_columns_are_known_at_post_save(log: Log, either_way: None) -> None:
    Shelf.objects.bulk_create([Shelf(label="a", width=3), Shelf(label="b", colour="blue")])
    assert [(sent.values["area"], sent.values["colour"]) for sent in log.of("post_save")] == [
        (6, "grey"),
        (0, "blue"),
    ]
    assert_instances_equal_rows(log, Shelf)


def test_many_rows_cost_as_many_statements_as_few(log: Log) -> None:
    def executed(count: int) -> int:
        objs = [Shelf(label=f"{count} {n}", made=Now()) for n in range(count)]
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            Shelf.objects.bulk_create(objs)
        return len(statements(queries))

    # MySQL's INSERT returns nothing: the keys and the database's own values are read.
    assert executed(20) == executed(2) == (3 if is_mysql() else 1)


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django 5.2 leaves the order to the caller")
def test_order_with_respect_to_works_as_in_django(log: Log) -> None:
    book: Any = Book.objects.create()
    Chapter.objects.create(book=book, heading="zero")
    log.clear()
    with signal_patch.bulk_signals(batch_size=2):
        Chapter.objects.bulk_create([Chapter(book=book, heading=str(n)) for n in range(3)])
    assert [sent.values["_order"] for sent in log.of("post_save")] == [1, 2, 3]
    keys = Chapter.objects.order_by("pk").values_list("pk", flat=True)
    assert list(book.get_chapter_order()) == list(keys)
