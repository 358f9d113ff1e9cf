"""Related objects that receivers ask for, loaded once for each batch (contract.md, section 8.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldError
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

import signal_patch
from signal_patch import bulk_signals
from tests.cascade_models import Harbour, Note
from tests.fleet import column, of_every_size, rows, ships
from tests.models import Berth, Officer, Port, Sailor, Ship
from tests.receiver_models import Slip
from tests.recording import field_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db


def moored_ships(count: int) -> list[Ship]:
    """Return this many ships, each with its own berth and one member of crew."""
    (port,) = rows(Port, {"code": "P"})
    berths = rows(Berth, *({"number": number, "port": port} for number in range(count)))
    fleet = rows(Ship, *({"speed": berth.number, "berth": berth} for berth in berths))
    rows(Sailor, *({"ship": ship, "name": f"of {ship.speed}"} for ship in fleet))
    # Loaded anew, so that no related objects are cached.
    return list(Ship.objects.order_by("pk"))


OPERATIONS: dict[str, Callable[[list[Ship]], object]] = {
    "update": lambda fleet: Ship.objects.update(name="z"),
    "bulk_update": lambda fleet: Ship.objects.bulk_update(fleet, ["name"]),
    "bulk_create": lambda fleet: Ship.objects.bulk_create(
        [Ship(speed=ship.speed, berth_id=ship.berth_id) for ship in fleet]
    ),
}


@of_every_size
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_receiver_finds_what_was_named_without_a_query(
    operation: Callable[[list[Ship]], object], signal: Any, batch_size: int, receivers: Receivers
) -> None:
    fleet = moored_ships(3)
    seen: list[Any] = []
    queries: list[int] = []

    def look(instance: Ship, **arguments: Any) -> None:
        with CaptureQueriesContext(connection) as captured:
            assert instance.berth is not None
            assert instance.berth.port is not None
            seen.append((instance.speed, instance.berth.number, instance.berth.port.code))
        queries.append(len(captured))

    receivers.connect(signal, look, Ship)
    with bulk_signals(batch_size=batch_size, prefetch=["berth__port"]):
        operation(fleet)
    assert seen == [(0, 0, "P"), (1, 1, "P"), (2, 2, "P")]
    assert queries == [0, 0, 0]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_it_takes_one_statement_for_each_name_and_batch(
    operation: Callable[[list[Ship]], object], receivers: Receivers
) -> None:
    def statements(batch_size: int, **options: Any) -> int:
        fleet = list(Ship.objects.filter(pk__in=keys))
        with CaptureQueriesContext(connection) as queries, bulk_signals(batch_size=batch_size, **options):
            operation(fleet)
        return len(queries)

    keys = [ship.pk for ship in moored_ships(4)]
    receivers.connect(post_save, lambda instance, **arguments: None, Ship)
    for batch_size, batches in ((2000, 1), (2, 2)):
        without = statements(batch_size)
        assert statements(batch_size, prefetch=["berth", "flag", "berth__port"]) == without + 2 * batches


def test_reverse_relations_may_be_named_too(receivers: Receivers) -> None:
    moored_ships(2)
    seen: list[Any] = []
    receivers.connect(
        pre_save, lambda instance, **arguments: seen.append([s.name for s in instance.crew.all()]), Ship
    )
    with bulk_signals(prefetch=["crew"]), CaptureQueriesContext(connection) as queries:
        Ship.objects.update(name="z")
    assert seen == [["of 0"], ["of 1"]]
    assert len([query for query in queries if "tests_sailor" in query["sql"]]) == 1


def test_the_newly_assigned_object_is_the_one_that_is_loaded(receivers: Receivers) -> None:
    moored_ships(2)
    (other,) = rows(Berth, {"number": 99})
    seen: list[int] = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance.berth.number), Ship)
    with bulk_signals(prefetch=["berth"]):
        Ship.objects.update(berth_id=other.pk)
    assert seen == [99, 99]


def test_a_generic_foreign_key_and_relations_of_its_objects_may_be_named(receivers: Receivers) -> None:
    (harbour,) = rows(Harbour, {"name": "h"})
    kind = ContentType.objects.get_for_model(Harbour)
    rows(Note, *({"content_type": kind, "object_id": harbour.pk} for _ in "ab"))
    seen: list[Any] = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance.target.name), Note)
    with bulk_signals(prefetch=["target__notes"]):
        Note.objects.update(text="z")
    assert seen == ["h", "h"]


def test_a_projects_own_prefetchable_attribute_is_left_to_django(
    monkeypatch: pytest.MonkeyPatch, receivers: Receivers
) -> None:
    moored_ships(1)
    seen: list[Any] = []
    monkeypatch.setattr(Ship, "hands", vars(Ship)["crew"], raising=False)
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance.hands.all()[0].name), Ship)
    with bulk_signals(prefetch=["hands"]):
        Ship.objects.update(name="z")
    assert seen == ["of 0"]


WRONG = {
    "unknown": (
        "bert",
        "'bert' is wrong for tests.Ship: tests.Ship has no relation 'bert'; valid are berth, ",
    ),
    "column": ("name", "tests.Ship has no relation 'name'; valid are berth, "),
    "key of a relation": ("berth_id", "tests.Ship has no relation 'berth_id'"),
    "behind another": (
        "berth__prt",
        "'berth__prt' .* tests.Berth has no relation 'prt'; valid are port, ships",
    ),
    "behind those that refer to it": (
        "crew__captain",
        "tests.Sailor has no relation 'captain'; valid are ship",
    ),
    "unfinished": ("berth__", "tests.Berth has no relation ''"),
}


@pytest.mark.parametrize(("name", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_wrong_name_is_an_error_before_any_signal(
    operation: Callable[[list[Ship]], object], name: str, message: str, log: Log
) -> None:
    # No row has a berth, so Django would not notice.
    fleet = ships(1, 2)
    log.clear()
    with bulk_signals(prefetch=[name]):
        with transaction.atomic(), pytest.raises(FieldError, match=message):
            operation(fleet)
        assert not log
        assert column(Ship, "name") == ["a", "b"]


def test_a_wrong_name_is_an_error_where_no_row_matches(log: Log) -> None:
    with bulk_signals(prefetch=["bert"]), pytest.raises(FieldError, match="no relation 'bert'"):
        Ship.objects.update(name="z")


def test_where_all_models_are_on_an_operation_on_one_without_the_name_is_an_error(log: Log) -> None:
    fleet = moored_ships(1)
    signal_patch.enable(prefetch=["berth"])
    Ship.objects.update(name="z")
    with pytest.raises(FieldError, match=r"'berth' is wrong for tests.Berth: .* valid are port, ships"):
        Berth.objects.update(number=5)
    signal_patch.enable(Berth, prefetch=["port"])
    Berth.objects.update(number=5)
    assert field_values(log[-1].instance)["number"] == 5
    assert len(fleet) == 1


def test_without_receivers_nothing_is_loaded_and_no_name_is_checked() -> None:
    moored_ships(1)
    with bulk_signals(prefetch=["bert"]), CaptureQueriesContext(connection) as queries:
        Ship.objects.update(name="z")
    assert len(queries) == 1


def test_a_parent_row_may_be_named(receivers: Receivers) -> None:
    Officer.objects.create(name="o")
    seen: list[str] = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance.person_ptr.name), Officer)
    with bulk_signals(prefetch=["person_ptr"]):
        Officer.objects.update(rank="r")
    assert seen == ["o"]


class TestRowsWithoutAKey:
    """The instances of `bulk_create()`, which nothing can refer to before they have keys."""

    def test_what_refers_to_them_is_loaded_before_post_save(self, receivers: Receivers) -> None:
        moored_ships(1)
        seen: list[Any] = []
        queries: list[int] = []

        def look(instance: Ship, **arguments: Any) -> None:
            with CaptureQueriesContext(connection) as captured:
                assert instance.berth is not None
                seen.append((instance.berth.number, [sailor.name for sailor in instance.crew.all()]))
            queries.append(len(captured))

        receivers.connect(post_save, look, Ship)
        berth = Berth.objects.get()
        with bulk_signals(prefetch=["crew", "berth__port"]), CaptureQueriesContext(connection) as captured:
            Ship.objects.bulk_create([Ship(berth_id=berth.pk), Ship(pk=1000, berth_id=berth.pk)])
        assert seen == [(0, []), (0, [])]
        assert queries == [0, 0]
        statements = [query["sql"] for query in captured if query["sql"].startswith("SELECT")]
        # Those of rows with a key are loaded before pre_save.
        assert [sum(name in sql for sql in statements) for name in ("tests_berth", "tests_port")] == [1, 1]
        assert sum("tests_sailor" in sql for sql in statements) == 2

    def test_a_receiver_of_pre_save_finds_what_they_refer_to(self, receivers: Receivers) -> None:
        (berth,) = rows(Berth, {"number": 3})
        seen: list[Any] = []
        receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance.berth), Ship)
        with bulk_signals(prefetch=["crew", "berth"]):
            Ship.objects.bulk_create([Ship(berth_id=berth.pk), Ship(berth=berth), Ship()])
        assert seen == [berth, berth, None]
        assert Ship.objects.count() == 3

    def test_an_unsaved_related_object_is_refused_as_by_django(self, receivers: Receivers) -> None:
        receivers.connect(pre_save, lambda instance, **arguments: None, Ship)
        with bulk_signals(prefetch=["berth", "crew"]), pytest.raises(ValueError, match="unsaved related obj"):
            Ship.objects.bulk_create([Ship(berth=Berth(number=3))])

    def test_a_row_of_the_same_batch_is_found_at_post_save(self, receivers: Receivers) -> None:
        first = Slip(number=1)
        second = Slip(number=2, before_id=first.pk)
        seen: list[Any] = []
        receivers.connect(post_save, lambda instance, **arguments: seen.append(instance.before), Slip)
        with bulk_signals(prefetch=["before"]):
            Slip.objects.bulk_create([first, second])
        assert seen == [None, first]

    def test_generic_relations_of_both_directions(self, receivers: Receivers) -> None:
        (harbour,) = rows(Harbour, {"name": "h"})
        seen: list[Any] = []
        receivers.connect(post_save, lambda instance, **arguments: seen.append(instance.target), Note)
        receivers.connect(
            post_save, lambda instance, **arguments: seen.append(list(instance.notes.all())), Harbour
        )
        kind = ContentType.objects.get_for_model(Harbour)
        with bulk_signals(Note, prefetch=["target"]), bulk_signals(Harbour, prefetch=["notes"]):
            Note.objects.bulk_create([Note(content_type=kind, object_id=harbour.pk)])
            Harbour.objects.bulk_create([Harbour(name="i")])
        assert seen == [harbour, []]
