"""What a delete does to other rows by Python's rules, and what receivers see of it (contract 3, 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import ProtectedError, RestrictedError
from django.db.models.signals import post_delete, post_init, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

import signal_patch
from tests.cascade_models import COMPUTED, CONSTANT, SPARE, Crane, Customs, Pilot, Port
from tests.models import Loud

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db

RULES = {"nulled": None, "defaulted": None, "spared": SPARE, "fixed": CONSTANT, "computed": COMPUTED}
ROADS: dict[str, Callable[[Port], Any]] = {
    "of a queryset": lambda port: Port.objects.filter(pk=port.pk).delete(),
    "of an instance": lambda port: port.delete(),
}


def a_crane(**values: Any) -> Crane:
    return Crane.objects.create(**{"spared": None, **values})


@pytest.fixture
def port() -> Port:
    Port.objects.bulk_create([Port(pk=pk) for pk in (SPARE, CONSTANT, COMPUTED)])
    return Port.objects.create(name="to be deleted")


@pytest.fixture(params=ROADS)
def delete(request: pytest.FixtureRequest) -> Callable[[Port], Any]:
    return ROADS[request.param]


@pytest.mark.parametrize("rule", RULES)
def test_a_row_changed_by_a_cascade_sends_its_saves(
    rule: str, port: Port, delete: Callable[[Port], Any], log: Log
) -> None:
    crane = a_crane(name="A", load=7, **{rule: port})
    key = port.pk
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(port)
    assert deleted == (1, {"tests.Port": 1})
    assert log.names() == ["pre_delete", "pre_save", "post_save", "post_delete"]
    pre, post = log[1:3]
    assert pre.arguments == {
        "raw": False,
        "using": "default",
        "update_fields": frozenset({rule}),
    }
    assert post.arguments == {**pre.arguments, "created": False}
    assert pre.instance is post.instance
    assert pre.sender is Crane
    expected = {
        "id": crane.pk,
        "name": "A",
        "load": 7,
        **{f"{other}_id": None for other in [*RULES, "removed"]},
        f"{rule}_id": RULES[rule],
    }
    assert pre.values == post.values == expected
    assert getattr(Crane.objects.get(), f"{rule}_id") == RULES[rule]
    assert not Port.objects.filter(pk=key).exists()


@pytest.mark.parametrize("rule", RULES)
def test_what_a_receiver_changes_on_such_a_row_is_saved(
    rule: str, port: Port, delete: Callable[[Port], Any], receivers: Receivers
) -> None:
    def rename(instance: Crane, **kwargs: Any) -> None:
        instance.name = "renamed"

    a_crane(**{rule: port})
    receivers.connect(pre_save, rename, Crane)
    with signal_patch.bulk_signals():
        delete(port)
    assert Crane.objects.get().name == "renamed"


@pytest.mark.parametrize("rule", RULES)
def test_trackers_see_the_old_value_first(rule: str, port: Port, receivers: Receivers) -> None:
    """The instance is loaded with its old values; the new one comes by attribute."""
    loaded = []
    a_crane(**{rule: port})
    key = port.pk
    receivers.connect(pre_save, lambda **kwargs: None, Crane)
    receivers.connect(
        post_init, lambda instance, **kwargs: loaded.append(getattr(instance, f"{rule}_id")), Crane
    )
    with signal_patch.bulk_signals():
        port.delete()
    assert loaded[-1] == key


@pytest.mark.parametrize("rule", RULES)
def test_without_the_switch_a_cascade_is_silent(
    rule: str, port: Port, delete: Callable[[Port], Any], log: Log
) -> None:
    a_crane(**{rule: port})
    log.clear()
    with signal_patch.bulk_signals(Port):
        delete(port)
    assert log.names() == ["pre_delete", "post_delete"]
    assert getattr(Crane.objects.get(), f"{rule}_id") == RULES[rule]


@pytest.mark.parametrize("rule", RULES)
def test_the_changed_rows_model_decides_by_its_operation_update(rule: str, port: Port, log: Log) -> None:
    a_crane(**{rule: port})
    log.clear()
    with signal_patch.bulk_signals(Crane, operations=["update"]):
        port.delete()
    assert log.names() == ["pre_delete", "pre_save", "post_save", "post_delete"]
    port.save()
    Crane.objects.update(**{rule: port})
    log.clear()
    with signal_patch.bulk_signals(operations=["delete"]):
        port.delete()
    assert log.names() == ["pre_delete", "post_delete"]


@pytest.mark.parametrize("rule", RULES)
def test_if_nobody_listens_to_saves_a_cascade_runs_as_without_the_patch(rule: str, port: Port) -> None:
    ContentType.objects.get_for_model(Port)  # once known, it costs no statement

    def statements() -> list[str]:
        a_crane(**{rule: port})
        with CaptureQueriesContext(connection) as queries:
            port.delete()
        Port.objects.bulk_create([port])
        port.pk = None
        port.save()
        return [query["sql"].split(" WHERE ")[0] for query in queries]

    without = statements()
    with signal_patch.bulk_signals():
        assert statements() == without


def test_a_row_that_the_same_delete_removes_sends_no_saves(
    port: Port, delete: Callable[[Port], Any], log: Log
) -> None:
    for rule in RULES:
        a_crane(removed=port, **{rule: port})
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(port)
    assert deleted == (6, {"tests.Port": 1, "tests.Crane": 5})
    assert sorted(log.names()) == ["post_delete"] * 6 + ["pre_delete"] * 6


def test_nor_does_one_that_is_removed_unseen(
    port: Port, delete: Callable[[Port], Any], receivers: Receivers
) -> None:
    """With nobody to hear of deletes, Django deletes rows that it has never looked at."""
    saves: list[Any] = []
    for rule in RULES:
        a_crane(removed=port, **{rule: port})
    for signal in (pre_save, post_save):
        receivers.connect(signal, lambda **kwargs: saves.append(kwargs), Crane)
    with signal_patch.bulk_signals():
        deleted = delete(port)
    assert deleted == (6, {"tests.Port": 1, "tests.Crane": 5})
    assert saves == []


def test_rows_of_several_deleted_ones_send_one_pair_each_in_batches(log: Log, port: Port) -> None:
    ports = [Port.objects.create() for _ in range(3)]
    cranes = [Crane.objects.create(nulled=port, spared=port) for port in ports for _ in range(2)]
    log.clear()
    with signal_patch.bulk_signals(batch_size=2):
        Port.objects.filter(pk__in=[port.pk for port in ports]).delete()
    for rule in ("nulled", "spared"):
        sent = [s for s in log if s.arguments.get("update_fields") == {rule}]
        assert [s.instance.pk for s in sent if s.signal == "pre_save"] == [crane.pk for crane in cranes]
        assert [s.instance.pk for s in sent if s.signal == "post_save"] == [crane.pk for crane in cranes]
        names = [s.signal for s in sent]
        assert names == (["pre_save"] * 2 + ["post_save"] * 2) * 3


def test_more_rows_than_parameters_of_a_statement_are_changed(port: Port, receivers: Receivers) -> None:
    saves: list[Any] = []
    Crane.objects.bulk_create([Crane(spared=port) for _ in range(2500)])
    receivers.connect(post_save, lambda instance, **kwargs: saves.append(instance.pk), Crane)
    with signal_patch.bulk_signals():
        port.delete()
    assert len(set(saves)) == len(saves) == 2500
    assert set(Crane.objects.values_list("spared", flat=True)) == {SPARE}


@pytest.mark.parametrize(("model", "error"), [(Customs, ProtectedError), (Pilot, RestrictedError)])
def test_protected_and_restricted_rows_refuse_before_any_signal(
    model: Any, error: type[Exception], port: Port, delete: Callable[[Port], Any], log: Log
) -> None:
    model.objects.create(port=port)
    Crane.objects.create(nulled=port, spared=port)
    log.clear()
    with signal_patch.bulk_signals(), pytest.raises(error):
        delete(port)
    assert log == []
    assert Crane.objects.get().nulled_id == port.pk


def test_no_second_pair_of_delete_signals_is_sent_and_the_origin_stays(port: Port, log: Log) -> None:
    crane = a_crane(removed=port)
    queryset = Port.objects.filter(pk=port.pk)
    log.clear()
    with signal_patch.bulk_signals():
        queryset.delete()
    assert sorted((s.signal, s.sender.__name__) for s in log) == [
        ("post_delete", "Crane"),
        ("post_delete", "Port"),
        ("pre_delete", "Crane"),
        ("pre_delete", "Port"),
    ]
    assert all(s.arguments["origin"] is queryset for s in log)
    assert not Crane.objects.filter(pk=crane.pk).exists()


def test_an_exception_of_a_receiver_leaves_every_row_as_it_was(
    port: Port, delete: Callable[[Port], Any], receivers: Receivers
) -> None:
    def refuse(instance: Crane, **kwargs: Any) -> None:
        raise LookupError("no")

    Crane.objects.create(nulled=port, spared=port)
    receivers.connect(post_save, refuse, Crane)
    key = port.pk
    with signal_patch.bulk_signals(), pytest.raises(LookupError, match="no"), transaction.atomic():
        delete(port)
    crane = Crane.objects.get()
    assert (crane.nulled_id, crane.spared_id) == (key, key)
    assert Port.objects.filter(pk=key).exists()


def test_a_receiver_of_a_delete_that_updates_the_deleted_row_is_not_told(
    port: Port, log: Log, receivers: Receivers
) -> None:
    def archive(instance: Port, **kwargs: Any) -> None:
        Port.objects.filter(pk=instance.pk).update(name="archived")

    receivers.connect(pre_delete, archive, Port)
    with signal_patch.bulk_signals():
        log.clear()
        port.delete()
    assert log.names() == ["pre_delete", "post_delete"]


def test_a_delete_of_the_mixins_queryset_sends_djangos_own_signals_once(log: Log) -> None:
    for _ in range(3):
        Loud.objects.create()
    log.clear()
    assert Loud.objects.all().delete() == (3, {"tests.Loud": 3})
    assert log.names() == ["pre_delete"] * 3 + ["post_delete"] * 3
    Loud.objects.create()
    log.clear()
    with signal_patch.bulk_signals():
        assert Loud.objects.all().delete() == (1, {"tests.Loud": 1})
    assert log.names() == ["pre_delete", "post_delete"]


def test_a_delete_nobody_listens_to_stays_one_statement(
    port: Port, receivers: Receivers, django_assert_num_queries: Any
) -> None:
    a_crane()
    receivers.connect(post_delete, lambda **kwargs: None, Port)
    with signal_patch.bulk_signals(), django_assert_num_queries(1):
        Crane.objects.all().delete()
