"""Receivers and trackers of other libraries see what a loop of `save()` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import reversion
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.conf import settings
from django.db import connection
from django.db.models import F, Subquery, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext
from easyaudit.models import CRUDEvent
from easyaudit.signals import model_signals as easy_audit
from reversion.models import Version

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, of_every_size, rows, ships
from tests.loops import Outcome, Work
from tests.models import (
    Book,
    Captain,
    Crane,
    Digger,
    Dirty,
    Historic,
    Machine,
    Officer,
    Person,
    Sailor,
    Ship,
    Tracked,
)
from tests.receiver_models import Entry
from tests.refusals import is_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


# django-auditlog reads the old row from the database at pre_save.


@pytest.fixture
def audited(_leaves_no_trace: None) -> Iterator[None]:
    auditlog.register(Ship, exclude_fields=["changed"])
    yield
    auditlog.unregister(Ship)


def _entries() -> list[tuple[str, Any]]:
    entries = LogEntry.objects.filter(action=LogEntry.Action.UPDATE).order_by("pk")
    return [(entry.object_repr, entry.changes) for entry in entries]


CHANGES: dict[str, Callable[[], dict[str, Any]]] = {
    "constant": lambda: {"status": "docked"},
    "F": lambda: {"speed": F("speed") * 10},
    "function": lambda: {"name": Concat("name", Value("!"))},
    "decimal": lambda: {"price": F("price") + 5},
    "subquery": lambda: {"speed": Subquery(Ship.objects.order_by("-speed").values("speed")[:1])},
    "JSON": lambda: {"notes": ["new"]},
    "several": lambda: {"speed": F("tonnage") + 1, "slug": None, "name": "z"},
}


@of_every_size
@pytest.mark.parametrize("values", CHANGES.values(), ids=CHANGES)
def test_auditlog_records_what_it_records_for_a_loop(
    values: Callable[[], dict[str, Any]], batch_size: int, audited: None, receivers: Receivers
) -> None:
    ships(1, 2, 3)
    if is_refused(lambda: Ship.objects.update(**values()), receivers):
        return
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(**values())
    updated = _entries()
    after: list[Any] = list(Ship.objects.order_by("pk").values())
    assert updated
    _undo(after)
    _save_loop(after, [*values()])
    assert _entries() == updated


def _undo(after: list[Any]) -> None:
    with no_bulk_signals():
        Ship.objects.all().delete()
        LogEntry.objects.all().delete()
        for row, speed in zip(after, (1, 2, 3), strict=True):
            name = chr(96 + speed)
            Ship.objects.bulk_create([Ship(pk=row["id"], name=name, speed=speed)])


def _save_loop(after: list[Any], names: list[str]) -> None:
    for row in after:
        ship = Ship.objects.get(pk=row["id"])
        for name in names:
            setattr(ship, name, row[name])
        ship.save(update_fields=names)


def test_auditlog_records_a_bulk_update(audited: None) -> None:
    fleet = ships(1, 2)
    for ship in fleet:
        ship.speed = F("speed") + 10
    Ship.objects.bulk_update(fleet, ["speed"])
    assert [changes for _, changes in _entries()] == [{"speed": ["1", "11"]}, {"speed": ["2", "12"]}]


# django-simple-history writes a record at post_save, and fails for an F() on an instance.


@of_every_size
def test_simple_history_records_each_row_once_with_values(batch_size: int) -> None:
    rows(Historic, {"name": "a", "size": 1}, {"name": "b", "size": 2})
    with bulk_signals(batch_size=batch_size):
        Historic.objects.update(size=F("size") * 10)
        fleet = list(Historic.objects.order_by("pk"))
        for historic in fleet:
            historic.name = Concat("name", Value("!"))
        Historic.objects.bulk_update(fleet, ["name"])
    records = Historic.history.order_by("history_id").values_list("history_type", "name", "size")
    assert list(records) == [("~", "a", 10), ("~", "b", 20), ("~", "a!", 10), ("~", "b!", 20)]


# model-utils' FieldTracker and django-dirtyfields keep the old values of an instance.


@of_every_size
def test_a_field_tracker_sees_the_change(batch_size: int, receivers: Receivers) -> None:
    rows(Tracked, {"name": "a", "size": 1}, {"name": "b", "size": 2})
    seen: list[tuple[Any, ...]] = []

    def track(instance: Tracked, **arguments: Any) -> None:
        tracker: Any = instance.tracker
        seen.append((tracker.changed(), instance.size, tracker.has_changed("name")))

    receivers.connect(pre_save, track, Tracked)
    receivers.connect(post_save, track, Tracked)
    with bulk_signals(batch_size=batch_size):
        Tracked.objects.update(size=F("size") + 10)
    assert sorted(seen, key=str) == sorted([({"size": 1}, 11, False), ({"size": 2}, 12, False)] * 2, key=str)


def test_a_field_tracker_sees_what_save_shows_it(receivers: Receivers) -> None:
    (tracked,) = rows(Tracked, {"name": "a", "size": 1})
    seen: list[tuple[Any, ...]] = []

    def track(instance: Tracked, **arguments: Any) -> None:
        tracker: Any = instance.tracker
        seen.append((tracker.changed(), tracker.previous("size"), tracker.previous("name")))

    receivers.connect(pre_save, track, Tracked)
    receivers.connect(post_save, track, Tracked)
    loaded = Tracked.objects.get(pk=tracked.pk)
    loaded.size = 5
    loaded.save(update_fields=["size"])
    by_save, seen[:] = list(seen), []
    with no_bulk_signals():
        Tracked.objects.update(size=1)
    Tracked.objects.update(size=5)
    assert seen == by_save


# model-utils' InheritanceQuerySets also yield subclasses; they join the subclasses' tables.


def _people(count: int) -> None:
    with no_bulk_signals():
        Person.objects.all().delete()
        for number in range(count):
            (Person, Officer, Captain)[number % 3].objects.create(name=str(number), age=number)


PEOPLE: dict[str, Callable[[], Any]] = {
    "direct": lambda: Person.objects.select_subclasses(),
    "by a join": lambda: Person.objects.select_subclasses().filter(officer__rank=""),
    "by rows of its own": lambda: Person.objects.select_subclasses().filter(
        pk__in=Person.objects.values("pk")
    ),
    "ordered by an expression": lambda: Person.objects.select_subclasses().order_by(F("age") + 1),
    "ordered by other rows": lambda: Person.objects.select_subclasses().order_by(
        "officer__captain__ship__crew__name", "pk"
    ),
    "some": lambda: Person.objects.select_subclasses(Officer),
    "annotated": lambda: Person.objects.select_subclasses().annotate(older=F("age") + 1),
}


@of_every_size
@pytest.mark.parametrize("people", PEOPLE.values(), ids=PEOPLE)
def test_subclasses_that_are_selected_are_the_senders(
    people: Callable[[], Any], batch_size: int, receivers: Receivers
) -> None:
    _people(6)
    if is_refused(lambda: people().update(age=5), receivers):
        return
    expected = {(type(person), person.name, person.age + 10) for person in people()}
    log = receivers.record(Person, Officer, Captain)
    with bulk_signals(batch_size=batch_size):
        assert people().update(age=F("age") + 10) == len(expected)
    for signal in ("pre_save", "post_save"):
        seen = [(sent.sender, sent.values["name"], sent.values["age"]) for sent in log.of(signal)]
        assert len(seen) == len(expected)
        assert set(seen) == expected


@of_every_size
@pytest.mark.parametrize("people", PEOPLE.values(), ids=PEOPLE)
def test_subclasses_that_are_selected_take_no_statement_for_each_row(
    people: Callable[[], Any], batch_size: int, receivers: Receivers
) -> None:
    def statements(count: int) -> int:
        _people(count)
        with CaptureQueriesContext(connection) as queries, bulk_signals(batch_size=count * batch_size):
            people().update(age=5)
        return len(queries)

    receivers.record(Person, Officer, Captain)
    _people(1)
    if not is_refused(lambda: people().update(age=5), receivers):
        assert statements(12) == statements(3)


@pytest.fixture
def dirty(_leaves_no_trace: None) -> Iterator[None]:
    # Each instance of DirtyFieldsMixin permanently connects its class to post_save.
    known = list(post_save.receivers)
    yield
    post_save.receivers = known
    post_save.sender_receivers_cache.clear()


@of_every_size
def test_dirty_fields_are_seen_before_the_save_and_not_by_its_sweeper_twice(
    batch_size: int, dirty: None, receivers: Receivers
) -> None:
    rows(Dirty, {"name": "a", "size": 1}, {"name": "b", "size": 2})
    seen: list[dict[str, Any]] = []

    def look(instance: Any, **arguments: Any) -> None:
        seen.append(instance.get_dirty_fields())

    receivers.connect(pre_save, look, Dirty)
    with bulk_signals(batch_size=batch_size):
        Dirty.objects.update(size=F("size") + 10, name="z")
    assert seen == [{"size": 1, "name": "a"}, {"size": 2, "name": "b"}]


# The statements of these libraries may be batched: their records are the same.

BATCHED: dict[str, dict[str, Any]] = {
    "inserts": {"batch_inserts": ["auditlog", "easyaudit", "reversion", "tests.HistoricalHistoric"]},
    "reads": {"batch_reads": True},
}
BATCHED["both"] = BATCHED["inserts"] | BATCHED["reads"]


def _make_ships(count: int = 4) -> None:
    rows(Ship, *({"id": number, "name": f"n{number}", "notes": [number]} for number in range(1, count + 1)))


def _make_books(count: int = 4) -> None:
    rows(Book, *({"id": number, "title": f"n{number}"} for number in range(1, count + 1)))


def _make_historic(count: int = 4) -> None:
    rows(Historic, *({"id": number, "name": f"n{number}", "size": number} for number in range(1, count + 1)))


def _make_dirty(count: int = 4) -> None:
    rows(Dirty, *({"id": number, "name": f"n{number}", "size": number} for number in range(1, count + 1)))


def _note_dirty_fields(seen: list[Any], instance: Any) -> None:
    seen.append(instance.get_dirty_fields())


def _historic(*tables: Any) -> Work:
    values = {"size": 7, "name": "z"}
    return Work(_make_historic, Historic, lambda: values, [], [Historic.history.model, *tables], TIMES)


TIMES = frozenset({"changed", "history_date", "timestamp", "datetime", "date_created", "revision_id"})
LIBRARIES: dict[str, Callable[[], Work]] = {
    "simple-history": lambda: _historic(),
    "auditlog": lambda: Work(
        _make_ships, Ship, lambda: {"speed": 5, "notes": ["new"], "name": "z"}, [], [LogEntry], TIMES
    ),
    "simple-history and auditlog": lambda: _historic(LogEntry),
    "easy-audit": lambda: Work(_make_books, Book, lambda: {"title": "z"}, [], [CRUDEvent], TIMES),
    "reversion": lambda: Work(_make_books, Book, lambda: {"title": "z"}, [], [Version], TIMES),
    "dirtyfields": lambda: Work(
        _make_dirty,
        Dirty,
        lambda: {"size": 9},
        [(pre_save, _note_dirty_fields), (post_save, _note_dirty_fields)],
        [Dirty],
    ),
}


@pytest.fixture
def _listening(
    audited: None, dirty: None, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    auditlog.register(Historic)
    reversion.register(Book)
    # At once, not at the end of the transaction, which never comes in a test.
    monkeypatch.setattr(settings, "TEST", True, raising=False)
    for signal, receive in ((pre_save, easy_audit.pre_save), (post_save, easy_audit.post_save)):
        receivers.connect(signal, receive, Book)
    yield
    reversion.unregister(Book)
    auditlog.unregister(Historic)


def _recorded(work: Work, run: Callable[[], object], **options: Any) -> Outcome:
    def within_a_revision() -> None:
        with reversion.create_revision():
            run()

    return work.by(within_a_revision, **options)


def _save_each(work: Work) -> Callable[[], None]:
    def save() -> None:
        for obj in work.changed():
            obj.save(update_fields=[*work.values()])

    return save


@of_every_size
@pytest.mark.usefixtures("_listening")
@pytest.mark.parametrize("options", BATCHED.values(), ids=BATCHED)
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_with_batching_they_record_what_they_record_for_a_loop(
    library: Callable[[], Work], options: dict[str, Any], batch_size: int
) -> None:
    work = library()
    loop = _recorded(work, _save_each(work), off=True)
    assert all(loop.rows.values())
    by_update = _recorded(work, work.update, batch_size=batch_size, **options)
    assert by_update.error is None
    assert _sorted(by_update) == _sorted(loop)


def _sorted(outcome: Outcome) -> Any:
    """Return it with the trackers' records unordered: batches send all `pre_save` before the write."""
    return sorted(map(str, outcome.seen)), outcome.rows


@pytest.mark.usefixtures("_listening")
@pytest.mark.parametrize("operation", ["bulk_update", "bulk_create", "delete"])
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_with_batching_they_record_what_they_record_without_it(
    library: Callable[[], Work], operation: str
) -> None:
    work = library()
    model: Any = work.sender
    runs: dict[str, Callable[[], object]] = {
        "bulk_update": lambda: model.objects.bulk_update(work.changed(), [*work.values()]),
        "bulk_create": lambda: model.objects.bulk_create([model(id=key, **work.values()) for key in (7, 8)]),
        "delete": lambda: model.objects.all().delete(),
    }
    batched = _recorded(work, runs[operation], **BATCHED["both"])
    assert batched.error is None
    assert batched.of() == _recorded(work, runs[operation]).of()


def _make_crew(count: int) -> None:
    crew = rows(Ship, *({"name": f"n{number}"} for number in range(count)))
    rows(Sailor, *({"name": ship.name, "ship": ship} for ship in crew))


def _insert(seen: list[Any], sailor: Any) -> None:
    Entry.objects.create(number=sailor.pk, text=sailor.name)


def _read_the_old_row(seen: list[Any], sailor: Any) -> None:
    seen.append(Sailor.objects.get(pk=sailor.pk).name)


def _look_at_the_ship(seen: list[Any], sailor: Any) -> None:
    seen.append(sailor.ship.name)


def _sailing(signal: Any, receive: Any, *tables: Any) -> Callable[[], Work]:
    return lambda: Work(lambda: None, Sailor, lambda: {"name": "z"}, [(signal, receive)], tables)


# What makes the rows, and the options by which the receivers cost no statement for each of them.
CONSTANT: dict[str, tuple[Callable[[], Work], Callable[[int], None], dict[str, Any]]] = {
    "simple-history": (LIBRARIES["simple-history"], _make_historic, BATCHED["both"]),
    "auditlog": (LIBRARIES["auditlog"], _make_ships, BATCHED["both"]),
    "simple-history and auditlog": (
        LIBRARIES["simple-history and auditlog"],
        _make_historic,
        BATCHED["both"],
    ),
    "an INSERT": (_sailing(post_save, _insert, Entry), _make_crew, {"batch_inserts": [Entry]}),
    "the old row": (_sailing(pre_save, _read_the_old_row), _make_crew, {"batch_reads": True}),
    "a relation": (_sailing(post_save, _look_at_the_ship), _make_crew, {"prefetch": ["ship"]}),
}


@pytest.mark.usefixtures("audited", "dirty")
@pytest.mark.parametrize(("library", "make", "options"), CONSTANT.values(), ids=CONSTANT)
def test_a_batch_takes_as_many_statements_however_many_rows_and_batches_there_are(
    library: Callable[[], Work], make: Callable[[int], None], options: dict[str, Any]
) -> None:
    work = library()

    def statements(batches: int, batch_size: int) -> int:
        work.make = lambda: make(batches * batch_size)
        outcome = work.by_update(batch_size=batch_size, **options)
        assert outcome.error is None
        assert all(len(found) >= batches * batch_size for found in outcome.rows.values())
        return len(outcome.statements)

    if LogEntry in work.tables and work.sender is Historic:
        auditlog.register(Historic)
    try:
        # Content types are read once.
        statements(1, 5)
        few, more, many = (statements(batches, 5) for batches in (2, 3, 10))
        assert many - few == 8 * (more - few)
        assert statements(2, 40) == few
    finally:
        auditlog.unregister(Historic)


# django-polymorphic's querysets yield instances of subclasses.


@pytest.fixture
def machines() -> list[Any]:
    with no_bulk_signals():
        return [
            Crane.objects.create(name="c", power=1, reach=5),
            Digger.objects.create(name="d", power=2, bucket="wide"),
            Machine.objects.create(name="m", power=3),
            Crane.objects.create(name="k", power=4, reach=6),
        ]


@pytest.mark.parametrize(("outer", "inner"), [(Machine, Crane), (Crane, Machine)])
@pytest.mark.parametrize("by", ["update", "bulk_update", "save"])
@pytest.mark.parametrize("then", ["update", "bulk_update"])
def test_a_row_is_in_flight_whichever_class_knows_it(
    then: str, by: str, outer: Any, inner: Any, machines: list[Any], receivers: Receivers
) -> None:
    def name(instance: Crane, **arguments: Any) -> None:
        if then == "update":
            inner.objects.filter(pk=instance.pk).update(name="named")
        else:
            instance.name = "named"
            inner.objects.bulk_update([instance], ["name"])

    receivers.connect(post_save, name, Crane)
    log = receivers.record(Crane)
    crane = machines[0]
    if by == "update":
        assert outer.objects.filter(pk=crane.pk).update(power=9) == 1
    elif by == "bulk_update":
        assert outer.objects.bulk_update([crane], ["power"]) == 1
    else:
        crane.save()
    assert log.names() == ["pre_save", "post_save"]
    assert Crane.objects.get(pk=crane.pk).name == "named"


@of_every_size
def test_the_sender_is_the_class_of_the_instance(
    batch_size: int, machines: list[Any], receivers: Receivers
) -> None:
    log = receivers.record(Machine, Crane, Digger)
    with bulk_signals(batch_size=batch_size):
        assert Machine.objects.update(power=F("power") + 10) == 4
    for signal in ("pre_save", "post_save"):
        assert [sent.sender for sent in log.of(signal)] == [Crane, Digger, Machine, Crane]
        assert [sent.values["power"] for sent in log.of(signal)] == [11, 12, 13, 14]
    assert log.of("post_save")[0].values["reach"] == 5
    assert all(sent.instance == machine for sent, machine in zip(log.of("post_save"), machines, strict=True))


def test_a_receiver_of_a_subclass_alone_is_enough(machines: list[Any], receivers: Receivers) -> None:
    log = receivers.record(Digger)
    assert Machine.objects.update(power=9) == 4
    assert [sent.instance for sent in log] == [machines[1]] * 2
    assert column(Machine.objects.non_polymorphic().model, "power") == [9] * 4


@of_every_size
def test_changes_of_receivers_to_a_subclasss_columns_are_saved(
    batch_size: int, machines: list[Any], receivers: Receivers
) -> None:
    def lengthen(instance: Crane, **arguments: Any) -> None:
        instance.reach += instance.power
        instance.name += "!"

    receivers.connect(pre_save, lengthen, Crane)
    log = receivers.record(Crane)
    with bulk_signals(batch_size=batch_size):
        assert Machine.objects.update(power=F("power") * 2) == 4
    assert column(Crane, "reach") == [7, 14]
    assert [machine.name for machine in Machine.objects.order_by("pk")] == ["c!", "d", "m", "k!"]
    assert [sent.arguments["update_fields"] for sent in log.of("post_save")] == [
        {"power", "reach", "name"}
    ] * 2
    assert [sent.values["reach"] for sent in log.of("post_save")] == [7, 14]


def test_an_update_through_the_subclass_is_its_own(machines: list[Any], receivers: Receivers) -> None:
    log = receivers.record(Machine, Crane)
    assert Crane.objects.update(reach=1, power=7) == 2
    assert [sent.sender for sent in log] == [Crane] * 4
    assert list(Crane.objects.order_by("pk").values_list("reach", "power")) == [(1, 7), (1, 7)]


def test_a_non_polymorphic_queryset_gives_its_own_model(machines: list[Any], receivers: Receivers) -> None:
    log = receivers.record(Machine, Crane, Digger)
    assert Machine.objects.non_polymorphic().update(power=9) == 4
    assert len(log) == 8


def test_without_receivers_a_polymorphic_update_is_one_statement(machines: list[Any]) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert Machine.objects.update(power=9) == 4
    assert len([query for query in queries if query["sql"].startswith(("SELECT", "UPDATE"))]) == 1


def test_a_bulk_update_of_polymorphic_instances_calls_receivers_of_the_subclasses(
    machines: list[Any], receivers: Receivers
) -> None:
    fleet = list(Machine.objects.order_by("pk"))
    for machine in fleet:
        machine.power += 10
    log = receivers.record(Crane)
    assert Machine.objects.bulk_update(fleet, ["power"]) == 4
    assert [sent.instance for sent in log.of("post_save")] == [machines[0], machines[3]]
    assert [machine.power for machine in Machine.objects.order_by("pk")] == [11, 12, 13, 14]
