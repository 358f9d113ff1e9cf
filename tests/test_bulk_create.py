"""The road `bulk_create()`, against the loop of `save(force_insert=True)`."""

from __future__ import annotations

import datetime
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Lower, Now, Upper
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

import signal_patch
from tests.fields import Point
from tests.fleet import is_write_lock
from tests.models import (
    Badge,
    Book,
    BookProxy,
    Chapter,
    Loan,
    Loud,
    Member,
    Nickname,
    Novel,
    Parcel,
    Publisher,
    Reader,
    Receipt,
    Shelf,
    ShelfProxy,
    Token,
)
from tests.recording import Log, Receivers, field_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db(databases=["default", "other"])
# Where the transaction is what the test is about.
on_its_own = pytest.mark.django_db(transaction=True)

VOLATILE = {"touched", "made"}


@pytest.fixture(autouse=True)
def _on() -> Iterator[None]:
    with signal_patch.bulk_signals():
        yield


@pytest.fixture(params=["returning", "without returning"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the database is, and as one that returns nothing from an INSERT (MySQL)."""
    if request.param == "returning":
        yield
        return
    if connection.vendor == "postgresql":
        pytest.skip("PostgreSQL has no last_insert_id()")
    for name in ("can_return_columns_from_insert", "can_return_rows_from_bulk_insert"):
        monkeypatch.setattr(type(connection.features), name, False)
        vars(connection.features).pop(name, None)
    _forget_what_is_returned()
    yield
    monkeypatch.undo()
    _forget_what_is_returned()


def _forget_what_is_returned() -> None:
    """Drop what Django has cached of the features."""
    for model in (Book, BookProxy, Nickname, Publisher, Shelf, Token):
        vars(model._meta).pop("db_returning_fields", None)
        for field in model._meta.concrete_fields:
            vars(field).pop("db_returning", None)


def told(log: Log, *names: str) -> list[tuple[Any, ...]]:
    """What the signals said, bar what differs from one moment to the other."""
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


def rows(model: type[models.Model], *names: str) -> list[dict[str, Any]]:
    return sorted((_steady(row, names) for row in model._default_manager.values()), key=repr)


@contextmanager
def taken_back() -> Iterator[None]:
    """Undo in the database what the block has done."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def by_loop(objs: list[Any]) -> None:
    for obj in objs:
        obj.save(force_insert=True)


def post_saved(log: Log) -> list[tuple[Any, bool]]:
    return [(sent.instance, sent.arguments["created"]) for sent in log.of("post_save")]


def assert_tells_the_truth(log: Log, model: type[models.Model]) -> None:
    """At `post_save` the instance held what the row holds."""
    held = {row["id"]: row for row in model._default_manager.values()}
    for sent in log.of("post_save"):
        assert sent.values == held[sent.instance.pk]


# What is sent.


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
    with taken_back():
        by_loop(make())
        expected, expected_rows = told(log, "id"), rows(model, "id")
    log.clear()
    objs = make()
    assert model._default_manager.bulk_create(objs) == objs
    loop_order = [entry for pair in zip(*_halves(told(log, "id")), strict=True) for entry in pair]
    assert len(loop_order) == len(expected)
    for (*said, values), (*expected_said, expected_values) in zip(loop_order, expected, strict=True):
        assert said == expected_said
        # Where the database returns nothing, save() defers what only the row knows, or leaves it open.
        known = {name: value for name, value in expected_values.items() if not isinstance(value, type)}
        assert values.items() >= known.items()
    assert rows(model, "id") == expected_rows
    assert all(obj.pk is not None and not obj._state.adding and obj._state.db == "default" for obj in objs)


def _halves(entries: list[Any]) -> tuple[list[Any], list[Any]]:
    middle = len(entries) // 2
    return entries[:middle], entries[middle:]


def test_keys_are_those_of_the_rows(log: Log, either_way: None) -> None:
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
def test_nothing_to_create_is_nothing_to_tell(objs: Any, log: Log) -> None:
    with signal_patch.no_bulk_signals():
        plain = Publisher.objects.bulk_create(objs)
    assert Publisher.objects.bulk_create(objs) == plain
    assert not log


def test_proxies_of_instances_are_told_of_as_a_save_tells_of_them(log: Log) -> None:
    publisher = Publisher(name="a")
    objs: list[Any] = [SimpleLazyObject(lambda: publisher), Publisher(name="b")]
    assert Publisher.objects.bulk_create(objs) == objs
    assert log.names() == ["pre_save", "pre_save", "post_save", "post_save"]
    assert [sent.sender for sent in log] == [Publisher] * 4
    assert log[0].instance is publisher
    assert publisher.pk is not None


def test_batches_tell_before_and_after_each(log: Log) -> None:
    seen: list[tuple[int, int]] = []
    with signal_patch.bulk_signals(batch_size=2, progress=lambda *counts: seen.append(counts)):
        Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(5)], batch_size=1)
    pair = ["pre_save"] * 2 + ["post_save"] * 2
    assert log.names() == [*pair, *pair, "pre_save", "post_save"]
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_new_keys_keep_clear_of_keys_that_later_batches_bring(log: Log) -> None:
    given = Shelf(id=3, label="given")
    objs = [*(Shelf(label=str(n)) for n in range(4)), given]
    if connection.vendor == "postgresql":
        given.pk = 10**6  # its sequence pays no heed to given keys
    with signal_patch.bulk_signals(batch_size=2):
        assert Shelf.objects.bulk_create(objs) == objs
    assert len({obj.pk for obj in objs}) == Shelf.objects.count() == 5


def test_nobody_listens_and_django_runs_as_it_is(receivers: Receivers) -> None:
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


def test_rows_of_an_explicit_through_model_send_theirs(receivers: Receivers) -> None:
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
    Loud.objects.bulk_create([Loud(name="on")])
    signal_patch.disable()
    Loud.objects.bulk_create([Loud(name="off")], 5)
    assert log.names() == ["pre_save", "post_save"] * 2
    with signal_patch.no_bulk_signals():
        Loud.objects.bulk_create([Loud(name="silent")], ignore_conflicts=True)
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


# Refusals.


class Unsaved:
    """Makes a book of a publisher that has no row."""

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
    """By the database, which looks at the statement and not at its rows."""
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
def test_a_target_may_be_unique_by_an_index_that_the_database_alone_knows(receivers: Receivers) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX one_of_a_width ON tests_shelf (width)")
    Shelf(label="old", width=1).save()
    log = receivers.record(Shelf)
    objs = [Shelf(label="a", width=1, colour="red"), Shelf(label="b", width=2)]
    Shelf.objects.bulk_create(objs, **upserting("width", update_fields=["colour"]))
    assert post_saved(log) == [(objs[0], False), (objs[1], True)]
    assert Shelf.objects.get(label="old").colour == "red"


# Receivers.


def test_what_receivers_change_is_inserted(receivers: Receivers) -> None:
    def change(instance: Any, **arguments: Any) -> None:
        instance.width = 4
        instance.label = instance.label.upper()
        if instance.label == "KEYED":
            instance.pk = 500

    receivers.connect(pre_save, change, Shelf)
    log = receivers.record(Shelf)
    Shelf.objects.bulk_create([Shelf(label="a"), Shelf(label="keyed")])
    assert list(Shelf.objects.values_list("label", "width", "area").order_by("label")) == [
        ("A", 4, 8),
        ("KEYED", 4, 8),
    ]
    assert Shelf.objects.get(label="KEYED").pk == 500
    assert_tells_the_truth(log, Shelf)


@on_its_own
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_exception_of_a_receiver_leaves_no_row(signal: Any, receivers: Receivers) -> None:
    def fail(instance: Any, **arguments: Any) -> None:
        if instance.name == "3":
            raise ZeroDivisionError

    receivers.connect(signal, fail, Publisher)
    with signal_patch.bulk_signals(batch_size=2), pytest.raises(ZeroDivisionError):
        Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(5)])
    assert not Publisher.objects.exists()


@on_its_own
def test_hooks_run_after_the_commit(receivers: Receivers) -> None:
    def hook(**arguments: Any) -> None:
        transaction.on_commit(lambda: seen.append(Publisher.objects.count()))

    seen: list[int] = []
    receivers.connect(post_save, hook, Publisher)
    with signal_patch.bulk_signals(batch_size=1):
        Publisher.objects.bulk_create([Publisher(), Publisher()])
    assert seen == [2, 2]


def test_an_update_of_the_own_row_by_a_receiver_sends_nothing(receivers: Receivers) -> None:
    def touch(instance: Any, **arguments: Any) -> None:
        Publisher.objects.filter(pk=instance.pk).update(name="touched")

    receivers.connect(post_save, touch, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(), Publisher()])
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2
    assert set(Publisher.objects.values_list("name", flat=True)) == {"touched"}


def test_an_upsert_of_the_own_row_by_a_receiver_sends_nothing(receivers: Receivers) -> None:
    def upsert(instance: Any, **arguments: Any) -> None:
        Shelf.objects.bulk_create(
            [Shelf(label=instance.label, width=9)], **upserting("label", update_fields=["width"])
        )

    receivers.connect(post_save, upsert, Shelf)
    log = receivers.record(Shelf)
    Shelf.objects.bulk_create([Shelf(label="a")])
    assert log.names() == ["pre_save", "post_save"]
    Shelf(label="b").save()
    assert log.names() == ["pre_save", "post_save"] * 2
    assert set(Shelf.objects.values_list("width", flat=True)) == {9}


def test_an_upsert_of_a_key_that_is_being_told_of_sends_nothing(receivers: Receivers) -> None:
    def upsert(instance: Any, **arguments: Any) -> None:
        Token.objects.bulk_create([Token(code="a", uses=9)], **upserting("code", update_fields=["uses"]))

    receivers.connect(post_save, upsert, Token)
    log = receivers.record(Token)
    Token.objects.bulk_create([Token(code="a")])
    assert log.names() == ["pre_save", "post_save"]
    assert Token.objects.get().uses == 9


def test_rows_of_another_key_that_a_receiver_creates_are_told_of(receivers: Receivers) -> None:
    def follow(instance: Any, **arguments: Any) -> None:
        if instance.name == "first":
            Publisher.objects.bulk_create([Publisher(name="second")])

    receivers.connect(post_save, follow, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(name="first")])
    assert len(log) == 4


def test_a_row_that_a_receiver_gives_a_key_is_in_flight_at_once(receivers: Receivers) -> None:
    def give_key(instance: Any, **arguments: Any) -> None:
        instance.pk = kept.pk
        Publisher.objects.filter(pk=kept.pk).update(name="touched")

    with signal_patch.no_bulk_signals():
        kept = Publisher.objects.create(name="kept")
    receivers.connect(pre_save, give_key, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(name="new")], ignore_conflicts=True)
    assert log.names() == ["pre_save"]
    assert Publisher.objects.get().name == "touched"


def test_a_row_that_a_receiver_has_deleted_gets_no_post_save(receivers: Receivers) -> None:
    def delete_others(instance: Any, **arguments: Any) -> None:
        Publisher.objects.exclude(pk=instance.pk).delete()

    receivers.connect(post_save, delete_others, Publisher)
    log = receivers.record(Publisher)
    Publisher.objects.bulk_create([Publisher(name=str(n)) for n in range(3)])
    assert len(log.of("post_save")) == 1


def test_receivers_that_delete_cost_each_row_the_same(receivers: Receivers) -> None:
    sizes: list[int] = []

    def measure(execute: Any, sql: str, params: Any, *others: Any) -> Any:
        sizes.append(len(str(params)))
        return execute(sql, params, *others)

    def cost_of(count: int) -> int:
        sizes.clear()
        with connection.execute_wrapper(measure):
            Token.objects.bulk_create(Token(code=f"{count}/{n:03}") for n in range(count))
        return sum(sizes)

    # Of a model without receivers of its deletes, Django does not look at what it deletes.
    receivers.connect(post_save, lambda **_: Token.objects.filter(code="none").delete(), Token)
    assert cost_of(800) < 3 * cost_of(400)


# What only the database knows.


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
    assert_tells_the_truth(log, Shelf)


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
    assert_tells_the_truth(log, Shelf)


def test_nothing_more_is_paid_where_the_database_returns_rows(log: Log) -> None:
    objs = [Shelf(label=str(n), made=Now()) for n in range(20)]
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        Shelf.objects.bulk_create(objs)
    assert len(_statements(queries)) == 1


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django 5.2 leaves the order to the caller")
def test_order_with_respect_to_goes_on_as_django_has_it(log: Log) -> None:
    book: Any = Book.objects.create()
    Chapter.objects.create(book=book, heading="zero")
    log.clear()
    with signal_patch.bulk_signals(batch_size=2):
        Chapter.objects.bulk_create([Chapter(book=book, heading=str(n)) for n in range(3)])
    assert [sent.values["_order"] for sent in log.of("post_save")] == [1, 2, 3]
    keys = Chapter.objects.order_by("pk").values_list("pk", flat=True)
    assert list(book.get_chapter_order()) == list(keys)


# Conflicts left out.


@pytest.mark.parametrize("batch_size", [1, 2, 2000])
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
    with taken_back(), signal_patch.no_bulk_signals():
        Shelf.objects.bulk_create(make(), ignore_conflicts=True)
        expected = sorted(row["label"] for row in Shelf.objects.values() if row["id"] not in before)
        expected_rows = rows(Shelf, "id")
    log = receivers.record(Shelf)
    objs = make()
    with signal_patch.bulk_signals(batch_size=batch_size):
        Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    if batch_size > 2 or not any(obj.pk == 900 for obj in objs):
        assert rows(Shelf, "id") == expected_rows
        assert sorted(sent.values["label"] for sent in log.of("post_save")) == expected
    inserted = set(Shelf.objects.values_list("pk", flat=True)) - before
    assert sorted(sent.instance.pk for sent in log.of("post_save")) == sorted(inserted)
    assert len(log.of("pre_save")) == len(objs)
    assert all(created for _, created in post_saved(log))
    assert_tells_the_truth(log, Shelf)


def test_keys_are_those_of_the_rows_where_one_of_djangos_own_batches_leaves_one_out(
    log: Log, either_way: None
) -> None:
    with signal_patch.bulk_signals():
        Shelf.objects.bulk_create(
            [Shelf(label=label) for label in "xxyz"], batch_size=1, ignore_conflicts=True
        )
    keys = {sent.values["label"]: sent.instance.pk for sent in log.of("post_save")}
    assert keys == dict(Shelf.objects.values_list("label", "pk"))


@pytest.mark.parametrize("taken", [[], [50], [3, 50, 51, 97], list(range(0, 100, 2))])
def test_inserted_rows_are_told_apart_without_any_unique_value(
    taken: list[int], receivers: Receivers
) -> None:
    """The labels are expressions, so that no value of an instance tells which row is its own."""
    for n in taken:
        Shelf(label=f"l{n}").save()
    log = receivers.record(Shelf)
    objs = [Shelf(label=Lower(Value(f"L{n}")), width=n) for n in range(100)]
    Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    assert [sent.values["width"] for sent in log.of("post_save")] == [n for n in range(100) if n not in taken]
    assert_tells_the_truth(log, Shelf)
    assert Shelf.objects.count() == 100


def test_conflicts_cost_a_constant_number_of_statements(receivers: Receivers) -> None:
    Shelf.objects.bulk_create([Shelf(label=str(n)) for n in range(0, 60, 2)])
    receivers.record(Shelf)
    objs = [Shelf(label=str(n)) for n in range(60)]
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        Shelf.objects.bulk_create(objs, ignore_conflicts=True)
    inserts = [sql for sql in _statements(queries) if sql.startswith("INSERT")]
    assert len(inserts) == -(-60 // _rows_per_statement())


def _statements(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries if not is_write_lock(query["sql"])]


def _rows_per_statement() -> int:
    fields = [field for field in Shelf._meta.concrete_fields if not field.generated and field.name != "id"]
    return max(1, connection.ops.bulk_batch_size(fields, [None] * 60))


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="only MariaDB and MySQL have INSERT IGNORE")
def test_a_value_that_was_made_to_fit_is_shown_as_it_is(receivers: Receivers) -> None:
    log = receivers.record(Token)
    objs = [Token(code="a" * 40), Token(code="a" * 30, uses=2), Token(code="b")]
    Token.objects.bulk_create(objs, ignore_conflicts=True)
    assert [(sent.values["code"], sent.values["uses"]) for sent in log.of("post_save")] == [
        ("a" * 30, 0),
        ("b", 0),
    ]


def test_a_key_may_be_a_reference(log: Log) -> None:
    members = [Member.objects.create() for _ in range(3)]
    Badge.objects.create(member=members[0])
    log.clear()
    objs = [Badge(member=member) for member in members]
    Badge.objects.bulk_create(objs, ignore_conflicts=True)
    assert [sent.instance for sent in log.of("post_save")] == objs[1:]
    assert [obj.pk for obj in objs[1:]] == list(
        Badge.objects.filter(member__in=members[1:]).order_by("pk").values_list("pk", flat=True)
    )


def test_a_conflict_may_be_one_of_generated_columns(receivers: Receivers, either_way: None) -> None:
    Nickname.objects.create(name="Ann")
    log = receivers.record(Nickname)
    objs = [Nickname(name=name) for name in ("ANN", "bob", "BOB", "cy")]
    Nickname.objects.bulk_create(objs, ignore_conflicts=True)
    assert post_saved(log) == [(objs[1], True), (objs[3], True)]
    assert_tells_the_truth(log, Nickname)


@pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="only PostgreSQL makes this trigger, and in a transaction"
)
def test_rows_whose_keys_a_trigger_changes_are_told_of_the_right_instances(log: Log) -> None:
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


# Upserts.


def upserting(*unique_fields: str, update_fields: list[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"update_conflicts": True, "update_fields": update_fields}
    if connection.features.supports_update_conflicts_with_target:
        arguments["unique_fields"] = unique_fields
    return arguments


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
def test_created_is_true_or_false_as_it_really_was(
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
    with taken_back():
        expected = [created for _, created in by_select_then_save(make(), unique, update)]
        expected_rows = rows(Shelf, "id")
    log = receivers.record(Shelf)
    objs = make()
    with signal_patch.bulk_signals(batch_size=batch_size):
        assert Shelf.objects.bulk_create(objs, **upserting(*unique, update_fields=update)) == objs
    flags = {id(instance): created for instance, created in post_saved(log)}
    assert [flags[id(obj)] for obj in objs] == expected
    assert [obj.pk not in before for obj in objs] == expected
    assert rows(Shelf, "id") == expected_rows
    assert all(sent.arguments["update_fields"] is None for sent in log)
    assert len(log.of("pre_save")) == len(log.of("post_save")) == len(objs)
    assert not any(obj._state.adding for obj in objs)
    assert_tells_the_truth(log, Shelf)


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
    with taken_back():
        Shelf.objects.bulk_create(make(), **arguments)
        expected = rows(Shelf)
    log = receivers.record(Shelf)
    Shelf.objects.bulk_create(make(), **arguments)
    assert rows(Shelf) == expected
    assert [(instance.pk, created) for instance, created in post_saved(log)] == [
        (old.pk + 1, True),
        (old.pk + 1, False),
    ]


@pytest.mark.parametrize("name", ["ANN", Upper(Value("ann"))])
def test_a_row_is_known_by_a_generated_column(name: Any, receivers: Receivers, either_way: None) -> None:
    Nickname.objects.create(name="Ann")
    log = receivers.record(Nickname)
    objs = [Nickname(name=name, uses=5), Nickname(name="bob", uses=6)]
    Nickname.objects.bulk_create(objs, **upserting("folded", update_fields=["uses"]))
    assert post_saved(log) == [(objs[0], False), (objs[1], True)]
    assert_tells_the_truth(log, Nickname)
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


def test_a_row_is_known_by_a_column_that_only_its_own_field_can_compare(receivers: Receivers) -> None:
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
@pytest.mark.skipif("connection.vendor != 'mysql'", reason="elsewhere an upsert names its target")
def test_a_conflict_may_be_one_of_an_index_that_the_database_alone_knows(receivers: Receivers) -> None:
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
def test_a_conflict_beside_the_target_raises_as_django_does(receivers: Receivers, either_way: None) -> None:
    receivers.record(Shelf)
    if not connection.features.supports_update_conflicts_with_target:
        arguments: dict[str, Any] = {}
    else:
        arguments = upserting("room", "place", update_fields=["width"])
    Shelf(label="a", room=1, place=1).save()
    with pytest.raises(IntegrityError):
        Shelf.objects.bulk_create([Shelf(label="b"), Shelf(label="a", room=2, place=2)], **arguments)
    assert Shelf.objects.count() == 1


def test_a_proxy_is_unique_where_its_model_is(receivers: Receivers) -> None:
    def statements(model: type[Shelf]) -> int:
        objs = [model(label=f"new {place}", room=1, place=place) for place in (1, 2)]
        with CaptureQueriesContext(connection) as queries:
            model._default_manager.bulk_create(objs, **upserting("room", "place", update_fields=["width"]))
        return len(queries)

    for place in (1, 2):
        Shelf(label=f"old {place}", room=1, place=place).save()
    receivers.record(Shelf, ShelfProxy)
    statements(Shelf)  # asks PostgreSQL about its table, once
    assert statements(ShelfProxy) == statements(Shelf)
    assert Shelf.objects.count() == 2


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only PostgreSQL returns system columns")
def test_postgresql_tells_with_one_statement(receivers: Receivers) -> None:
    receivers.record(Shelf)
    # The first upsert of a table also asks what kind of table it is.
    Shelf.objects.bulk_create([Shelf(label="a")], **upserting("label", update_fields=["width"]))
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        Shelf.objects.bulk_create(
            [Shelf(label="a"), Shelf(label="b")], **upserting("label", update_fields=["width"])
        )
    assert len(_statements(queries)) == 1


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
def test_rows_of_a_partitioned_table_are_told_as_any(mode: str, receivers: Receivers) -> None:
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
def test_a_row_made_meanwhile_is_told_as_updated(both: bool, receivers: Receivers) -> None:
    """Another connection inserts between the look for the row and the INSERT."""
    other = connections.create_connection("default")

    def interfere(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT"):
            # The first is of both rows, the second updates one, the third is of the other alone.
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
