"""A queryset class with the mixin sends signals even if nothing is enabled."""

from __future__ import annotations

import inspect
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.db.models import F, Manager, QuerySet
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, disable, enable, is_enabled, no_bulk_signals, patches
from signal_patch.mixins import SignalEnhancedQuerySetMixins
from signal_patch.options import Options
from tests.fleet import rows
from tests.models import Book, Echo, Foghorn, FoghornQuerySet, HarbourFoghorn, Query
from tests.test_examples import run_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

SAVED = ["pre_save", "post_save"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def foghorns() -> list[Foghorn]:
    return rows(Foghorn, *({"name": name, "size": size} for size, name in enumerate("abc")))


class TestAcceptance:
    """With the mixin, receivers of all four signals are called once for each object."""

    def test_receivers_are_called_exactly_once_per_object_and_do_their_work(
        self, foghorns: list[Foghorn], receivers: Receivers
    ) -> None:
        audit: list[tuple[str, int, int]] = []

        def note(name: str) -> Callable[..., None]:
            return lambda instance, **kwargs: audit.append((name, instance.pk, instance.size))

        def forget(instance: Foghorn, **kwargs: Any) -> None:
            cache.delete(f"foghorn-{instance.pk}")

        signals = {
            "pre_save": pre_save,
            "post_save": post_save,
            "pre_delete": pre_delete,
            "post_delete": post_delete,
        }
        for name, signal in signals.items():
            receivers.connect(signal, note(name), Foghorn)
        receivers.connect(post_save, forget, Foghorn)
        receivers.connect(post_delete, forget, Foghorn)
        keys = [foghorn.pk for foghorn in foghorns]

        def fill_cache() -> None:
            cache.set_many({f"foghorn-{key}": "stale" for key in keys})

        fill_cache()
        assert not is_enabled()
        assert Foghorn.objects.update(size=F("size") + 10) == 3

        new = list(zip(keys, [10, 11, 12], strict=True))
        assert sorted(audit) == sorted((name, *row) for name in SAVED for row in new)
        assert cache.get_many([f"foghorn-{key}" for key in keys]) == {}

        audit.clear()
        fill_cache()
        assert Foghorn.objects.all().delete() == (3, {"tests.Foghorn": 3})

        assert sorted(audit) == sorted((name, *row) for name in ("pre_delete", "post_delete") for row in new)
        assert cache.get_many([f"foghorn-{key}" for key in keys]) == {}


def test_bulk_update_sends_them_too(foghorns: list[Foghorn], log: Log) -> None:
    foghorns[0].name = "changed"

    assert Foghorn.objects.bulk_update(foghorns, ["name"], batch_size=2) == 3

    assert sorted(log.names()) == sorted(SAVED * 3)
    assert Foghorn.objects.get(pk=foghorns[0].pk).name == "changed"


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_receivers_change_to_a_subclasss_column_is_saved(
    batch_size: int | None, receivers: Receivers
) -> None:
    harbour_foghorns = [HarbourFoghorn.objects.create(name=name) for name in "ab"]
    receivers.before_saves(
        HarbourFoghorn, lambda harbour_foghorn: setattr(harbour_foghorn, "echo", harbour_foghorn.name * 2)
    )
    log = receivers.record(HarbourFoghorn)
    assert Foghorn.objects.bulk_update(harbour_foghorns, ["size"], batch_size=batch_size) == 2
    assert list(HarbourFoghorn.objects.order_by("pk").values_list("echo", flat=True)) == ["aa", "bb"]
    assert log.names() == [*["pre_save"] * 2, *["post_save"] * 2]


def test_with_a_base_manager_of_its_class_related_managers_send_too(
    foghorns: list[Foghorn], log: Log
) -> None:
    foghorn, echo = foghorns[0], Echo.objects.create()
    changes: list[Callable[[], object]] = [
        lambda: foghorn.echoes.add(echo),
        lambda: foghorn.echoes.remove(echo),
        lambda: foghorn.echoes.set([echo]),
        lambda: foghorn.echoes.clear(),
    ]
    for change in changes:
        log.clear()
        change()
        assert log.names() == SAVED
    log.clear()
    echo.save()
    assert log.names() == SAVED


def test_other_querysets_send_nothing(log: Log) -> None:
    Book.objects.create()
    log.clear()

    Book.objects.update(title="Emma")

    assert not log


@pytest.mark.parametrize(
    "change",
    [
        lambda: Foghorn.objects.update(size=5),
        lambda: Foghorn.objects.bulk_update(Foghorn.objects.all(), ["size"]),
    ],
)
class TestWithTheSwitch:
    def test_with_the_patch_on_as_well_it_is_still_once_per_row(
        self, change: Callable[[], int], foghorns: list[Foghorn], log: Log
    ) -> None:
        enable()

        assert change() == 3
        assert sorted(log.names()) == sorted(SAVED * 3)

    def test_no_more_statements_than_the_patch_alone(
        self,
        change: Callable[[], int],
        foghorns: list[Foghorn],
        log: Log,
    ) -> None:
        enable()
        with CaptureQueriesContext(connection) as both:
            change()
        disable()
        with CaptureQueriesContext(connection) as mixin:
            change()

        assert len(both) == len(mixin)

    def test_disable_does_not_silence_it(
        self, change: Callable[[], int], foghorns: list[Foghorn], log: Log
    ) -> None:
        enable()
        disable(Foghorn)

        change()
        assert len(log) == 6

    def test_no_bulk_signals_silences_it(
        self, change: Callable[[], int], foghorns: list[Foghorn], log: Log
    ) -> None:
        with no_bulk_signals(Foghorn):
            assert change() == 3
        assert not log

    def test_a_scope_that_leaves_the_operation_out_silences_it(
        self, change: Callable[[], int], foghorns: list[Foghorn], log: Log
    ) -> None:
        with bulk_signals(operations=["delete"]):
            assert change() == 3
        assert not log

    def test_a_scope_that_does_not_cover_the_model_does_not_silence_it(
        self, change: Callable[[], int], foghorns: list[Foghorn], log: Log
    ) -> None:
        with no_bulk_signals(Book):
            change()
        assert len(log) == 6


class TestWhoseOptionsHold:
    def test_a_scopes_win_over_the_processs_and_these_over_the_classs(
        self, foghorns: list[Foghorn], log: Log
    ) -> None:
        done: list[str] = []

        def progress(name: str) -> Callable[[int, int], None]:
            return lambda rows, total: done.append(name)

        class Quiet(SignalEnhancedQuerySetMixins, QuerySet[Any]):
            signal_options = Options(progress=progress("class"))

        def update() -> str:
            done.clear()
            Quiet(Foghorn).update(size=1)
            return "".join(done)

        assert update() == "class"
        enable(Foghorn, progress=progress("process"))
        assert update() == "process"
        with bulk_signals(Foghorn, progress=progress("scope")):
            assert update() == "scope"
        disable(Foghorn)
        assert update() == "class"
        enable(Foghorn, operations=["delete"], progress=progress("process"))
        assert update() == "class"

    def test_a_class_may_leave_an_operation_out(self, foghorns: list[Foghorn], log: Log) -> None:
        class Quiet(SignalEnhancedQuerySetMixins, QuerySet[Any]):
            signal_options = Options(operations=frozenset({"update"}))

        assert Quiet(Foghorn).bulk_update(foghorns, ["name"]) == 3
        assert not log
        Quiet(Foghorn).update(size=1)
        assert len(log) == 6


@pytest.mark.parametrize("on", [False, True], ids=["mixin", "both"])
def test_a_field_may_have_any_name(on: bool, log: Log) -> None:
    Query.objects.create()
    log.clear()
    if on:
        enable()
    assert Query.objects.update(queryset="a", values=1, model=2, original=3) == 1
    assert Query.objects.values_list("queryset", "values", "model", "original").get() == ("a", 1, 2, 3)
    assert log.names() == SAVED


@pytest.mark.parametrize("options", [{"batch_size": 5}, None, Options])
def test_wrong_options_are_an_error_where_the_class_is_defined(options: Any) -> None:
    with pytest.raises(TypeError, match=r"Quiet.signal_options must be .*Options\(.*\), not "):
        type("Quiet", (SignalEnhancedQuerySetMixins, QuerySet), {"signal_options": options})


def test_to_list_it_after_queryset_is_an_error() -> None:
    with pytest.raises(TypeError, match="Quiet: SignalEnhancedQuerySetMixins must come before QuerySet"):
        type("Quiet", (QuerySet, SignalEnhancedQuerySetMixins), {})


def test_on_a_manager_it_is_an_error_that_says_what_it_is_for() -> None:
    with pytest.raises(TypeError, match=r"BookManager is a manager, but .* queryset class; .*as_manager\(\)"):

        class BookManager(SignalEnhancedQuerySetMixins, Manager):  # type: ignore[misc,type-arg]  # the mistake
            pass


class TestTheClass:
    def test_an_override_beneath_the_mixin_is_called_once_and_may_change_the_values(
        self, foghorns: list[Foghorn], log: Log
    ) -> None:
        class Dating(QuerySet[Any]):
            calls = 0

            def update(self, **kwargs: Any) -> int:
                return super().update(**{"name": "dated", **kwargs})

        class Quiet(SignalEnhancedQuerySetMixins, Dating):
            pass

        assert Quiet(Foghorn).update(size=1) == 3
        assert set(Foghorn.objects.values_list("name", "size")) == {("dated", 1)}
        assert len(log) == 6

    def test_a_base_before_it_may_add_values_too(self, foghorns: list[Foghorn], log: Log) -> None:
        class Dating(QuerySet[Any]):
            def update(self, **kwargs: Any) -> int:
                return super().update(name="dated", **kwargs)

        class Quiet(Dating, SignalEnhancedQuerySetMixins, QuerySet[Any]):
            pass

        assert Quiet(Foghorn).update(size=1) == 3
        assert {(sent.values["name"], sent.values["size"]) for sent in log} == {("dated", 1)}

    def test_an_override_above_it_may_add_values_too(self, foghorns: list[Foghorn], log: Log) -> None:
        class Quiet(FoghornQuerySet):
            def update(self, **kwargs: Any) -> int:
                return super().update(name="dated", **kwargs)

        assert Quiet(Foghorn).update(size=1) == 3
        assert {frozenset(sent.arguments["update_fields"]) for sent in log} == {frozenset({"name", "size"})}

    @pytest.mark.parametrize("arguments", [{}, {"batch_size": 5}, {"ignore_conflicts": True}])
    def test_an_override_beneath_it_sees_the_instances_and_nothing_else(
        self, arguments: dict[str, Any], log: Log
    ) -> None:
        class Counting(QuerySet[Any]):
            def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
                seen.append((len(objs), objs[0].name))
                return super().bulk_create(objs, *args, **kwargs)

        class Quiet(SignalEnhancedQuerySetMixins, Counting):
            pass

        seen: list[tuple[int, str]] = []
        Quiet(Foghorn).bulk_create([Foghorn(name="a"), Foghorn(name="b")], **arguments)
        assert seen == [(2, "a")]
        assert sorted(log.names()) == sorted(SAVED * 2)

    def test_an_override_beneath_it_may_count_the_instances_of_an_upsert(self, log: Log) -> None:
        class Counting(QuerySet[Any]):
            def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
                assert len(objs) <= 2
                return super().bulk_create(objs, *args, **kwargs)

        class Quiet(SignalEnhancedQuerySetMixins, Counting):
            pass

        with pytest.raises(ValueError, match="Fields that will be updated"):
            Quiet(Foghorn).bulk_create([Foghorn()], update_conflicts=True)
        assert not log
        has_target = connection.features.supports_update_conflicts_with_target
        target = ["pk"] if has_target else None
        Quiet(Foghorn).bulk_create(
            [Foghorn()], update_conflicts=True, update_fields=["size"], unique_fields=target
        )
        assert log.names() == SAVED

    def test_an_override_beneath_it_may_look_at_the_first_instance_of_an_upsert(self, log: Log) -> None:
        class Looking(QuerySet[Any]):
            def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
                assert isinstance(objs[0], Foghorn)
                return super().bulk_create(objs, *args, **kwargs)

        class Quiet(SignalEnhancedQuerySetMixins, Looking):
            pass

        has_target = connection.features.supports_update_conflicts_with_target
        target = ["pk"] if has_target else None
        Quiet(Foghorn).bulk_create(
            [Foghorn()], update_conflicts=True, update_fields=["size"], unique_fields=target
        )
        assert log.names() == SAVED

    @pytest.mark.parametrize("arguments", [{}, {"ignore_conflicts": True}])
    def test_what_an_override_beneath_it_leaves_out_gets_no_post_save(
        self, arguments: dict[str, Any], log: Log
    ) -> None:
        class Choosy(QuerySet[Any]):
            def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
                return super().bulk_create([obj for obj in objs if obj.size], *args, **kwargs)

        class Quiet(SignalEnhancedQuerySetMixins, Choosy):
            pass

        objs = [Foghorn(size=size) for size in (0, 1, 2)]
        Quiet(Foghorn).bulk_create(objs, **arguments)
        assert log.names() == ["pre_save"] * 3 + ["post_save"] * 2
        assert [sent.instance for sent in log.of("post_save")] == objs[1:]
        assert {obj.pk for obj in objs[1:]} == set(Foghorn.objects.values_list("pk", flat=True))

    def test_conflicts_that_an_override_beneath_it_ignores_are_ignored(self, log: Log) -> None:
        class Lenient(QuerySet[Any]):
            def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
                return super().bulk_create(objs, **{**kwargs, "ignore_conflicts": True})

        class Quiet(SignalEnhancedQuerySetMixins, Lenient):
            pass

        kept = Foghorn.objects.create()
        log.clear()
        objs = [Foghorn(pk=kept.pk), Foghorn()]
        Quiet(Foghorn).bulk_create(objs)
        assert [sent.instance for sent in log.of("post_save")] == objs[1:]

    def test_methods_keep_signature_and_alters_data(self) -> None:
        for name in ("update", "bulk_update", "bulk_create"):
            own, ours = getattr(QuerySet, name), getattr(FoghornQuerySet, name)
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(own).parameters)
            assert ours.alters_data
            assert not hasattr(ours, "queryset_only")
        assert callable(Foghorn.objects.update)
        assert not hasattr(Foghorn.objects, "delete")

    def test_its_querysets_pickle(self, foghorns: list[Foghorn], log: Log) -> None:
        assert pickle.loads(pickle.dumps(Foghorn.objects.all())).update(size=1) == 3
        assert len(log) == 6


def test_its_use_marks_saves_but_leaves_querysets_alone() -> None:
    assert patches.ours(QuerySet, "update") is None
    for owner, name, _ in patches.ROW_MARKERS:
        assert patches.ours(owner, name) is not None
    enable()
    disable()
    assert patches.ours(QuerySet, "update") is None
    for owner, name, _ in patches.ROW_MARKERS:
        assert patches.ours(owner, name) is not None


def test_importing_it_patches_nothing() -> None:
    finished = run_python("-c", IMPORT)
    assert finished.returncode == 0, finished.stderr


IMPORT = """
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector

def attributes():
    owners = (QuerySet, Model, Collector)
    return {(owner, name): id(value) for owner in owners for name, value in vars(owner).items()}

before = attributes()
import signal_patch, signal_patch.mixins
assert attributes() == before
signal_patch.enable()
changed = {name for (owner, name), value in attributes().items() if value != before[owner, name]}
assert changed == {"update", "bulk_update", "bulk_create", "save_base", "delete"}, changed
signal_patch.disable()
assert attributes() == before
"""


def test_a_receiver_that_updates_its_own_row_does_not_recurse(receivers: Receivers) -> None:
    calls: list[int] = []

    def receiver(instance: Foghorn, **kwargs: Any) -> None:
        calls.append(instance.pk)
        Foghorn.objects.filter(pk=instance.pk).update(size=F("size") + 1)

    receivers.connect(post_save, receiver, Foghorn)
    foghorn = Foghorn.objects.create(name="a")
    assert calls == [foghorn.pk]

    Foghorn.objects.update(name="b")
    assert calls == [foghorn.pk] * 2
    foghorn.refresh_from_db()
    assert (foghorn.name, foghorn.size) == ("b", 2)
