"""`update()`: the instances and the arguments that receivers get (contract.md, sections 1.4 and 1.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import (
    F,
    Model,
    OuterRef,
    Subquery,
)
from django.db.models.functions import Lower
from django.db.models.signals import post_init, post_save, pre_save

from signal_patch import bulk_signals
from tests.fleet import column, of_every_size, rows, ships
from tests.models import (
    Beacon,
    Berth,
    Book,
    BookProxy,
    Logbook,
    Port,
    Ship,
)
from tests.refusals import reads_its_own_table

if TYPE_CHECKING:
    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@reads_its_own_table
def test_annotations_leave_nothing_on_the_instances(receivers: Receivers) -> None:
    ships(1)
    plain = set(vars(Ship.objects.get()))
    log = receivers.record(Ship)
    other = Subquery(Ship.objects.filter(pk=OuterRef("pk")).values("speed"))
    Ship.objects.annotate(low=Lower("name"), other=other).update(
        speed=F("speed") + 1, tonnage=F("other"), name=F("low")
    )
    assert set(vars(log[0].instance)) == plain


def test_instances_are_loaded_with_old_values_and_only_then_given_new_ones(receivers: Receivers) -> None:
    rows(Logbook, {"entry": "calm", "page": 1})
    initial: list[str] = []

    def remember(instance: Logbook, **arguments: Any) -> None:
        initial.append(instance.entry)

    receivers.connect(post_init, remember, Logbook)
    log = receivers.record(Logbook)
    Logbook.objects.update(entry="storm", page=F("page") + 1)
    assert initial == ["calm"]
    sent = log[0]
    assert isinstance(sent.instance, Logbook)
    assert sent.instance.loaded_with["entry"] == "calm"
    assert sent.instance.loaded_with["page"] == 1
    assert (sent.values["entry"], sent.values["page"]) == ("storm", 2)


def _noting_init(noted: list[str]) -> Any:
    djangos = Model.__init__

    def init(instance: Model, *values: Any, **named: Any) -> None:
        djangos(instance, *values, **named)
        noted.append(instance.__dict__["name"])

    return init


def _noting_from_db(noted: list[str]) -> Any:
    djangos = vars(Model)["from_db"]

    def from_db(model: type[Model], *row: Any, **named: Any) -> Model:
        instance: Model = djangos.__get__(None, model)(*row, **named)
        noted.append(instance.__dict__["name"])
        return instance

    return classmethod(from_db)


def _noting_set(noted: list[str]) -> Any:
    def set_attribute(instance: Model, name: str, value: Any) -> None:
        object.__setattr__(instance, name, value)
        if name == "name":
            noted.append(value)

    return set_attribute


NOTING = {"__init__": _noting_init, "from_db": _noting_from_db, "__setattr__": _noting_set}


@of_every_size
@pytest.mark.parametrize("name", NOTING)
def test_a_patch_of_model_also_applies_to_the_instances_of_an_update(
    name: str, batch_size: int, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ships(1, 2)
    receivers.connect(pre_save, lambda **arguments: None, Ship)
    noted: list[str] = []
    with bulk_signals(batch_size=batch_size), monkeypatch.context() as patch:
        patch.setattr(Model, name, NOTING[name](noted), raising=False)
        Ship.objects.update(speed=9)
    # The extra row that shows that there are more batches is an instance, too.
    assert list(dict.fromkeys(noted)) == ["a", "b"]


def test_new_values_are_assigned_by_attribute(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> None:
    ships(1)
    assigned: list[str] = []

    def note(self: Ship, name: str, value: Any) -> None:
        assigned.append(name)
        object.__setattr__(self, name, value)

    receivers.record(Ship)
    monkeypatch.setattr(Ship, "__setattr__", note, raising=False)
    Ship.objects.update(name="z", speed=F("speed") + 1, notes=["x"])
    assert {"name", "speed", "notes"} <= set(assigned)


def test_the_sender_of_a_proxys_rows_is_the_proxy(receivers: Receivers) -> None:
    rows(Book, {"title": "a"})
    log = receivers.record(Book, BookProxy)
    BookProxy.objects.update(title="b")
    assert [sent.sender for sent in log] == [BookProxy, BookProxy]
    assert type(log[0].instance) is BookProxy


class Elsewhere:
    """Writes to the other database; reads go to the default one."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "other"


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize("by", ["using", "router", "manager"])
def test_the_database_written_to_is_the_one_of_the_signals(
    by: str, receivers: Receivers, settings: Any
) -> None:
    rows(Ship, {"name": "here"})
    rows(Ship, {"name": "there"}, {"name": "there too"}, using="other")
    log = receivers.record(Ship)
    if by == "router":
        settings.DATABASE_ROUTERS = [Elsewhere()]
        queryset = Ship.objects.all()
    elif by == "using":
        queryset = Ship.objects.using("other")
    else:
        queryset = Ship.objects.db_manager("other").all()
    with bulk_signals(batch_size=1):
        assert queryset.update(speed=F("speed") + 9) == 2
    settings.DATABASE_ROUTERS = []
    assert {sent.arguments["using"] for sent in log} == {"other"}
    assert {sent.instance._state.db for sent in log} == {"other"}
    assert [sent.values["name"] for sent in log.of("post_save")] == ["there", "there too"]
    assert column(Ship, "speed") == [0]
    assert column(Ship, "speed", using="other") == [9, 9]


def test_signals_carry_the_arguments_of_save(receivers: Receivers) -> None:
    (port,) = rows(Port, {"code": "N"})
    (berth,) = rows(Berth, {"port": port})
    (ship,) = ships(5)
    log = receivers.record(Ship)
    ship.save(update_fields=["speed", "berth"])
    expected = [sent.arguments for sent in log]
    log.clear()
    Ship.objects.update(speed=9, berth_id=berth.pk)
    assert [sent.arguments for sent in log] == expected
    assert expected == [
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"})},
        {"raw": False, "using": "default", "update_fields": frozenset({"speed", "berth"}), "created": False},
    ]
    assert all(type(sent.arguments["update_fields"]) is frozenset for sent in log)


def test_a_changed_key_is_in_update_fields(receivers: Receivers) -> None:
    (beacon,) = rows(Beacon, {"code": "a"})
    log = receivers.record(Beacon)
    Beacon.objects.filter(pk=beacon.pk).update(code="b")
    assert [sent.arguments["update_fields"] for sent in log] == [frozenset({"code"})] * 2


@of_every_size
def test_the_same_instance_goes_to_both_signals(batch_size: int, receivers: Receivers) -> None:
    ships(1, 2, 3)
    seen: list[bool] = []

    def stash(instance: Any, **arguments: Any) -> None:
        instance.stashed = instance.pk

    def find(instance: Any, **arguments: Any) -> None:
        seen.append(instance.stashed == instance.pk)

    receivers.connect(pre_save, stash, Ship)
    receivers.connect(post_save, find, Ship)
    with bulk_signals(batch_size=batch_size):
        Ship.objects.update(speed=F("speed") + 1)
    assert seen == [True] * 3


def test_pre_save_comes_before_the_write(receivers: Receivers) -> None:
    ships(1)
    stored: list[tuple[int, int]] = []

    def compare(instance: Ship, **arguments: Any) -> None:
        stored.append((instance.speed, column(Ship, "speed")[0]))

    receivers.connect(pre_save, compare, Ship)
    receivers.connect(post_save, compare, Ship)
    Ship.objects.update(speed=9)
    assert stored == [(9, 1), (9, 9)]
