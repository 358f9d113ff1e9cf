"""Rows that Python's `on_delete` rules change, and their signals (contract.md, sections 3 and 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import ProtectedError, RestrictedError
from django.db.models.signals import post_delete, post_init, post_save, pre_delete, pre_save
from django.db.models.sql import UpdateQuery
from django.test.utils import CaptureQueriesContext

import signal_patch
from tests.cascade_models import (
    COMPUTED,
    CONSTANT,
    SPARE,
    Barge,
    Customs,
    Harbour,
    Lamp,
    Pilot,
    Quay,
    Skiff,
    Tug,
)
from tests.models import Foghorn, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db

RULES = {"nulled": None, "defaulted": None, "spared": SPARE, "fixed": CONSTANT, "computed": COMPUTED}
ENTRY_POINTS: dict[str, Callable[[Harbour], Any]] = {
    "of a queryset": lambda harbour: Harbour.objects.filter(pk=harbour.pk).delete(),
    "of an instance": lambda harbour: harbour.delete(),
    "of a queryset, async": lambda harbour: async_to_sync(Harbour.objects.filter(pk=harbour.pk).adelete)(),
    "of an instance, async": lambda harbour: async_to_sync(harbour.adelete)(),
}


def a_tug(**values: Any) -> Tug:
    return Tug.objects.create(**{"spared": None, **values})


@pytest.fixture
def harbour() -> Harbour:
    Harbour.objects.bulk_create([Harbour(pk=pk) for pk in (SPARE, CONSTANT, COMPUTED)])
    return Harbour.objects.create(name="to be deleted")


@pytest.fixture(params=ENTRY_POINTS)
def delete(request: pytest.FixtureRequest) -> Callable[[Harbour], Any]:
    return ENTRY_POINTS[request.param]


@pytest.mark.parametrize("rule", RULES)
def test_a_row_changed_by_a_cascade_sends_its_saves(
    rule: str, harbour: Harbour, delete: Callable[[Harbour], Any], log: Log
) -> None:
    tug = a_tug(name="A", load=7, **{rule: harbour})
    key = harbour.pk
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(harbour)
    assert deleted == (1, {"tests.Harbour": 1})
    assert log.names() == ["pre_delete", "pre_save", "post_save", "post_delete"]
    pre, post = log[1:3]
    assert pre.arguments == {
        "raw": False,
        "using": "default",
        "update_fields": frozenset({rule}),
    }
    assert post.arguments == {**pre.arguments, "created": False}
    assert pre.instance is post.instance
    assert pre.sender is Tug
    expected = {
        "id": tug.pk,
        "name": "A",
        "load": 7,
        **{f"{other}_id": None for other in [*RULES, "removed"]},
        f"{rule}_id": RULES[rule],
    }
    assert pre.values == post.values == expected
    assert getattr(Tug.objects.get(), f"{rule}_id") == RULES[rule]
    assert not Harbour.objects.filter(pk=key).exists()


@pytest.mark.parametrize("rule", RULES)
def test_what_a_receiver_changes_on_such_a_row_is_saved(
    rule: str, harbour: Harbour, delete: Callable[[Harbour], Any], receivers: Receivers
) -> None:
    def rename(instance: Tug, **kwargs: Any) -> None:
        instance.name = "renamed"

    a_tug(**{rule: harbour})
    receivers.connect(pre_save, rename, Tug)
    with signal_patch.bulk_signals():
        delete(harbour)
    assert Tug.objects.get().name == "renamed"


@pytest.mark.parametrize("rule", RULES)
def test_trackers_see_the_old_value_first(rule: str, harbour: Harbour, receivers: Receivers) -> None:
    """The instance is loaded with its old values, and the new one is assigned by attribute."""
    loaded = []
    a_tug(**{rule: harbour})
    key = harbour.pk
    receivers.connect(pre_save, lambda **kwargs: None, Tug)
    receivers.connect(
        post_init, lambda instance, **kwargs: loaded.append(getattr(instance, f"{rule}_id")), Tug
    )
    with signal_patch.bulk_signals():
        harbour.delete()
    assert loaded[-1] == key


@pytest.mark.parametrize("rule", RULES)
def test_without_the_switch_a_cascade_sends_nothing(
    rule: str, harbour: Harbour, delete: Callable[[Harbour], Any], log: Log
) -> None:
    a_tug(**{rule: harbour})
    log.clear()
    with signal_patch.bulk_signals(Harbour):
        delete(harbour)
    assert log.names() == ["pre_delete", "post_delete"]
    assert getattr(Tug.objects.get(), f"{rule}_id") == RULES[rule]


@pytest.mark.parametrize("rule", RULES)
def test_the_model_of_the_changed_row_must_be_on_for_updates(rule: str, harbour: Harbour, log: Log) -> None:
    a_tug(**{rule: harbour})
    log.clear()
    with signal_patch.bulk_signals(Tug, operations=["update"]):
        harbour.delete()
    assert log.names() == ["pre_delete", "pre_save", "post_save", "post_delete"]
    harbour.save()
    Tug.objects.update(**{rule: harbour})
    log.clear()
    with signal_patch.bulk_signals(operations=["delete"]):
        harbour.delete()
    assert log.names() == ["pre_delete", "post_delete"]


@pytest.fixture(params=["alone", "with the switch on", "with the switch off for it"])
def mixin(request: pytest.FixtureRequest) -> None:
    """What is on besides the mixin, which acts like a scope that is always open."""
    if request.param == "with the switch on":
        signal_patch.enable()
    elif request.param == "with the switch off for it":
        signal_patch.enable(exclude=[Lamp])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("mixin")
def test_rows_of_a_model_with_the_mixin_send_their_saves_whatever_is_on(
    rule: str, harbour: Harbour, delete: Callable[[Harbour], Any], receivers: Receivers
) -> None:
    values = {"spared": None, rule: harbour}
    lamps = [Lamp.objects.create(**values).pk for _ in range(2)]
    log = receivers.record(Lamp)
    assert delete(harbour) == (1, {"tests.Harbour": 1})
    assert [(s.signal, s.values["id"]) for s in log] == [
        (signal, pk) for signal in ("pre_save", "post_save") for pk in lamps
    ]
    for sent in log:
        assert sent.arguments["update_fields"] == {rule}
        assert sent.values[f"{rule}_id"] == RULES[rule]
    assert set(Lamp.objects.values_list(rule, flat=True)) == {RULES[rule]}


@pytest.mark.usefixtures("mixin")
def test_rows_that_the_same_delete_removes_only_send_delete_signals(
    harbour: Harbour, delete: Callable[[Harbour], Any], receivers: Receivers
) -> None:
    for rule in RULES:
        Lamp.objects.create(**{"spared": None, "removed": harbour, rule: harbour})
    log = receivers.record(Lamp)
    delete(harbour)
    assert sorted(log.names()) == ["post_delete"] * 5 + ["pre_delete"] * 5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("mixin")
def test_rows_of_a_model_with_the_mixin_are_silenced_like_other_rows(
    rule: str, harbour: Harbour, delete: Callable[[Harbour], Any], receivers: Receivers
) -> None:
    Lamp.objects.create(**{"spared": None, rule: harbour})
    log = receivers.record(Lamp)
    with signal_patch.no_bulk_signals():
        delete(harbour)
    assert log == []
    assert getattr(Lamp.objects.get(), f"{rule}_id") == RULES[rule]


@pytest.mark.parametrize("rule", RULES)
def test_what_a_receiver_changes_on_a_row_with_the_mixin_is_saved(
    rule: str, harbour: Harbour, receivers: Receivers
) -> None:
    def redirect(instance: Lamp, **kwargs: Any) -> None:
        instance.removed_id = SPARE

    Lamp.objects.create(**{"spared": None, rule: harbour})
    receivers.connect(pre_save, redirect, Lamp)
    harbour.delete()
    assert Lamp.objects.get().removed_id == SPARE


@pytest.mark.parametrize("rule", RULES)
def test_without_save_receivers_a_cascade_runs_as_without_the_patch(rule: str, harbour: Harbour) -> None:
    ContentType.objects.get_for_model(Harbour)  # it is cached, so it costs no statement later

    def statements() -> list[str]:
        a_tug(**{rule: harbour})
        with CaptureQueriesContext(connection) as queries:
            harbour.delete()
        Harbour.objects.bulk_create([harbour])
        harbour.pk = None
        harbour.save()
        return [query["sql"].split(" WHERE ")[0] for query in queries]

    without = statements()
    with signal_patch.bulk_signals():
        assert statements() == without


def test_a_row_that_the_same_delete_removes_sends_no_saves(
    harbour: Harbour, delete: Callable[[Harbour], Any], log: Log
) -> None:
    for rule in RULES:
        a_tug(removed=harbour, **{rule: harbour})
    log.clear()
    with signal_patch.bulk_signals():
        deleted = delete(harbour)
    assert deleted == (6, {"tests.Harbour": 1, "tests.Tug": 5})
    assert sorted(log.names()) == ["post_delete"] * 6 + ["pre_delete"] * 6


def test_a_row_that_is_removed_without_being_loaded_sends_no_saves(
    harbour: Harbour, delete: Callable[[Harbour], Any], receivers: Receivers
) -> None:
    """Without delete receivers, Django deletes rows that it has not loaded."""
    saves: list[Any] = []
    for rule in RULES:
        a_tug(removed=harbour, **{rule: harbour})
    for signal in (pre_save, post_save):
        receivers.connect(signal, lambda **kwargs: saves.append(kwargs), Tug)
    with signal_patch.bulk_signals():
        deleted = delete(harbour)
    assert deleted == (6, {"tests.Harbour": 1, "tests.Tug": 5})
    assert saves == []


def test_rows_that_refer_to_several_deleted_rows_send_one_pair_each_in_batches(
    log: Log, harbour: Harbour
) -> None:
    harbours = [Harbour.objects.create() for _ in range(3)]
    tugs = [Tug.objects.create(nulled=harbour, spared=harbour) for harbour in harbours for _ in range(2)]
    log.clear()
    with signal_patch.bulk_signals(batch_size=2):
        Harbour.objects.filter(pk__in=[harbour.pk for harbour in harbours]).delete()
    for rule in ("nulled", "spared"):
        sent = [s for s in log if s.arguments.get("update_fields") == {rule}]
        assert [s.instance.pk for s in sent if s.signal == "pre_save"] == [tug.pk for tug in tugs]
        assert [s.instance.pk for s in sent if s.signal == "post_save"] == [tug.pk for tug in tugs]
        names = [s.signal for s in sent]
        assert names == (["pre_save"] * 2 + ["post_save"] * 2) * 3


def test_more_rows_than_parameters_of_a_statement_are_changed(harbour: Harbour, receivers: Receivers) -> None:
    saves: list[Any] = []
    Tug.objects.bulk_create([Tug(spared=harbour) for _ in range(2500)])
    receivers.connect(post_save, lambda instance, **kwargs: saves.append(instance.pk), Tug)
    with signal_patch.bulk_signals():
        harbour.delete()
    assert len(set(saves)) == len(saves) == 2500
    assert set(Tug.objects.values_list("spared", flat=True)) == {SPARE}


@pytest.mark.usefixtures("everything_on")
def test_a_row_that_a_receiver_hides_from_its_base_manager_is_changed_as_in_django(
    receivers: Receivers,
) -> None:
    quay = Quay.objects.create()
    skiff = Skiff.objects.create(quay=quay)
    with signal_patch.no_bulk_signals():
        receivers.connect(
            pre_delete,
            lambda instance, **arguments: Skiff.objects.filter(quay=instance).update(is_hidden=True),
            Quay,
        )
    log = receivers.record(Skiff)
    assert quay.delete() == (1, {"tests.Quay": 1})
    assert Skiff.objects.values_list("pk", "quay_id", "is_hidden").get() == (skiff.pk, None, True)
    # Those of the receiver's update and of the cascade.
    assert log.names() == ["pre_save", "post_save"] * 2


@pytest.mark.parametrize("switch", [signal_patch.bulk_signals, signal_patch.no_bulk_signals])
@pytest.mark.usefixtures("everything_on")
def test_a_manager_without_a_queryset_class_works(switch: Callable[[], Any], receivers: Receivers) -> None:
    quay = Quay.objects.create()
    barge = Barge(quay=quay)
    barge.save()
    log = receivers.record(Barge)
    with switch():
        assert quay.delete() == (1, {"tests.Quay": 1})
    assert Barge.objects.get_queryset().get().quay is None
    assert log.names() == (["pre_save", "post_save"] if switch is signal_patch.bulk_signals else [])


def test_rows_with_unordered_keys_are_changed_like_others(receivers: Receivers) -> None:
    class Code:
        def __init__(self, text: str) -> None:
            self.text = text

        def __str__(self) -> str:
            return self.text

    Token.objects.bulk_create([Token(code=code) for code in "ab"])
    log = receivers.record(Token)
    keys: list[Any] = [Code("b"), Code("a")]
    with signal_patch.bulk_signals():
        UpdateQuery(Token).update_batch(keys, {"uses": 1}, "default")
    assert [sent.instance.pk for sent in log.of("post_save")] == ["a", "b"]
    assert set(Token.objects.values_list("uses", flat=True)) == {1}


@pytest.mark.parametrize(("model", "error"), [(Customs, ProtectedError), (Pilot, RestrictedError)])
def test_protected_and_restricted_rows_refuse_before_any_signal(
    model: Any, error: type[Exception], harbour: Harbour, delete: Callable[[Harbour], Any], log: Log
) -> None:
    model.objects.create(harbour=harbour)
    Tug.objects.create(nulled=harbour, spared=harbour)
    log.clear()
    with signal_patch.bulk_signals(), pytest.raises(error):
        delete(harbour)
    assert log == []
    assert Tug.objects.get().nulled_id == harbour.pk


def test_no_second_pair_of_delete_signals_is_sent_and_the_origin_stays(harbour: Harbour, log: Log) -> None:
    tug = a_tug(removed=harbour)
    queryset = Harbour.objects.filter(pk=harbour.pk)
    log.clear()
    with signal_patch.bulk_signals():
        queryset.delete()
    assert sorted((s.signal, s.sender.__name__) for s in log) == [
        ("post_delete", "Harbour"),
        ("post_delete", "Tug"),
        ("pre_delete", "Harbour"),
        ("pre_delete", "Tug"),
    ]
    assert all(s.arguments["origin"] is queryset for s in log)
    assert not Tug.objects.filter(pk=tug.pk).exists()


def test_an_exception_of_a_receiver_leaves_every_row_as_it_was(
    harbour: Harbour, delete: Callable[[Harbour], Any], receivers: Receivers
) -> None:
    def refuse(instance: Tug, **kwargs: Any) -> None:
        raise LookupError("no")

    Tug.objects.create(nulled=harbour, spared=harbour)
    receivers.connect(post_save, refuse, Tug)
    key = harbour.pk
    with signal_patch.bulk_signals(), pytest.raises(LookupError, match="no"), transaction.atomic():
        delete(harbour)
    tug = Tug.objects.get()
    assert (tug.nulled_id, tug.spared_id) == (key, key)
    assert Harbour.objects.filter(pk=key).exists()


def test_a_receiver_of_a_delete_that_updates_the_deleted_row_is_not_called(
    harbour: Harbour, log: Log, receivers: Receivers
) -> None:
    def archive(instance: Harbour, **kwargs: Any) -> None:
        Harbour.objects.filter(pk=instance.pk).update(name="archived")

    receivers.connect(pre_delete, archive, Harbour)
    with signal_patch.bulk_signals():
        log.clear()
        harbour.delete()
    assert log.names() == ["pre_delete", "post_delete"]


def test_a_delete_of_the_mixins_queryset_sends_djangos_own_signals_once(log: Log) -> None:
    for _ in range(3):
        Foghorn.objects.create()
    log.clear()
    assert Foghorn.objects.all().delete() == (3, {"tests.Foghorn": 3})
    assert log.names() == ["pre_delete"] * 3 + ["post_delete"] * 3
    Foghorn.objects.create()
    log.clear()
    with signal_patch.bulk_signals():
        assert Foghorn.objects.all().delete() == (1, {"tests.Foghorn": 1})
    assert log.names() == ["pre_delete", "post_delete"]


def test_a_delete_without_receivers_stays_one_statement(
    harbour: Harbour, receivers: Receivers, django_assert_num_queries: Any
) -> None:
    a_tug()
    receivers.connect(post_delete, lambda **kwargs: None, Harbour)
    with signal_patch.bulk_signals(), django_assert_num_queries(1):
        Tug.objects.all().delete()
