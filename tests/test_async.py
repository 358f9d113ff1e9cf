"""The operations' async forms, and async receivers (contract.md, section 4).

The tests are sync, and their coroutines use the test's own database: `async_to_sync` runs what they hand
to `sync_to_async` in the test's thread.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

import signal_patch
from tests.cascade_models import SPARE, Dock, Docker, Harbour, Note, Shift, Tug

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db

SAVES = ["pre_save", "post_save"]
DELETES = ["pre_delete", "post_delete"]


def run(coroutine: Callable[[], Awaitable[Any]]) -> Any:
    """Await a coroutine with the switch on."""

    @signal_patch.bulk_signals()
    async def within() -> Any:
        return await coroutine()

    return async_to_sync(within)()


def harbours(count: int) -> list[Harbour]:
    return [Harbour.objects.create() for _ in range(count)]


# The operations


def test_aupdate_sends_what_update_sends(log: Log) -> None:
    harbours(2)
    log.clear()
    assert run(lambda: Harbour.objects.aupdate(name="x")) == 2
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2
    assert {s.values["name"] for s in log} == {"x"}


def test_abulk_update_sends_what_bulk_update_sends(log: Log) -> None:
    objs = harbours(2)
    log.clear()
    assert run(lambda: Harbour.objects.abulk_update(objs, ["name"])) == 2
    assert [s.instance for s in log] == objs * 2
    assert log.names() == ["pre_save"] * 2 + ["post_save"] * 2


@pytest.mark.parametrize("operation", ["queryset", "instance"])
def test_adelete_sends_djangos_delete_signals_once_and_the_saves_of_changed_rows(
    operation: str, log: Log
) -> None:
    Harbour.objects.create(pk=SPARE)
    harbour = Harbour.objects.create()
    Tug.objects.create(nulled=harbour, spared=harbour)
    log.clear()
    if operation == "queryset":
        run(lambda: Harbour.objects.filter(pk=harbour.pk).adelete())
    else:
        run(harbour.adelete)
    assert log.names() == ["pre_delete", *SAVES, *SAVES, "post_delete"]


RELATED: dict[str, Callable[[Harbour, Dock, Dock], Awaitable[Any]]] = {
    "aadd": lambda harbour, mine, other: harbour.docks.aadd(other),
    "aremove": lambda harbour, mine, other: harbour.docks.aremove(mine),
    "aclear": lambda harbour, mine, other: harbour.docks.aclear(),
    "aset": lambda harbour, mine, other: harbour.docks.aset([mine, other]),
}


@pytest.mark.parametrize("call", RELATED.values(), ids=RELATED)
def test_the_async_forms_of_a_related_manager_send_saves(
    call: Callable[[Harbour, Dock, Dock], Awaitable[Any]], log: Log
) -> None:
    harbour = Harbour.objects.create()
    mine, other = Dock.objects.create(harbour=harbour), Dock.objects.create()
    log.clear()
    run(lambda: call(harbour, mine, other))
    assert log.names() == SAVES
    assert all(s.arguments["update_fields"] == {"harbour"} for s in log)


def test_the_async_forms_of_a_generic_manager_send_their_signals(log: Log) -> None:
    harbour, note = Harbour.objects.create(), Note.objects.create()
    # Django looks up the content type synchronously, unless an earlier test has done so.
    ContentType.objects.get_for_model(Harbour)
    log.clear()
    run(lambda: harbour.notes.aadd(note))
    assert log.names() == SAVES
    log.clear()
    run(harbour.notes.aclear)
    assert log.names() == ["pre_delete", "post_delete"]


THROUGH: dict[str, tuple[Callable[[Dock, Docker, Docker], Awaitable[Any]], list[str]]] = {
    "aadd": (lambda dock, one, other: dock.crew.aadd(other), SAVES),
    "aremove": (lambda dock, one, other: dock.crew.aremove(one), DELETES),
    "aclear": (lambda dock, one, other: dock.crew.aclear(), DELETES),
    "aset": (lambda dock, one, other: dock.crew.aset([other]), [*DELETES, *SAVES]),
}


@pytest.mark.parametrize(("call", "sent"), THROUGH.values(), ids=THROUGH)
def test_the_async_forms_on_an_explicit_through_model_send_its_rows_signals(
    call: Callable[[Dock, Docker, Docker], Awaitable[Any]], sent: list[str], log: Log
) -> None:
    dock, one, other = Dock.objects.create(), Docker.objects.create(), Docker.objects.create()
    Shift.objects.create(dock=dock, docker=one)
    log.clear()
    run(lambda: call(dock, one, other))
    assert [(s.signal, s.sender) for s in log] == [(name, Shift) for name in sent]


def test_a_scope_follows_into_sync_to_async_and_not_into_other_tasks(log: Log) -> None:
    async def inside() -> None:
        with signal_patch.bulk_signals():
            await sync_to_async(lambda: Harbour.objects.update(name="inside"))()
            await asyncio.sleep(0)

    async def outside() -> None:
        await Harbour.objects.aupdate(name="outside")

    async def both() -> None:
        await asyncio.gather(inside(), outside())

    harbours(1)
    log.clear()
    async_to_sync(both)()
    assert [(s.signal, s.values["name"]) for s in log] == [("pre_save", "inside"), ("post_save", "inside")]


@pytest.mark.parametrize("switch", [signal_patch.bulk_signals, signal_patch.no_bulk_signals])
def test_a_task_started_inside_a_scope_has_it_until_the_scope_is_left(
    switch: Callable[..., Any],
) -> None:
    if switch is signal_patch.no_bulk_signals:
        signal_patch.enable()
    seen: list[bool] = []

    async def look_twice(left: asyncio.Event) -> None:
        seen.append(signal_patch.is_enabled(Harbour))
        await left.wait()
        seen.append(signal_patch.is_enabled(Harbour))

    async def within() -> None:
        left = asyncio.Event()
        with switch(Harbour):
            task = asyncio.create_task(look_twice(left))
            await asyncio.sleep(0)
        left.set()
        await task

    async_to_sync(within)()
    within_it = switch is signal_patch.bulk_signals
    assert seen == [within_it, not within_it]


# Async receivers

OPERATIONS: dict[str, Callable[[], Any]] = {
    "update": lambda: Harbour.objects.update(name="x"),
    "update in batches": lambda: _in_batches(lambda: Harbour.objects.update(name="x")),
    "bulk_update": lambda: Harbour.objects.bulk_update(Harbour.objects.order_by("pk"), ["name"]),
    "aupdate": lambda: async_to_sync(Harbour.objects.all().aupdate)(name="x"),
}


def _in_batches(operation: Callable[[], Any]) -> Any:
    with signal_patch.bulk_signals(batch_size=2):
        return operation()


@pytest.fixture(params=OPERATIONS)
def operate(request: pytest.FixtureRequest) -> Callable[[], None]:
    def call() -> None:
        with signal_patch.bulk_signals():
            OPERATIONS[request.param]()

    return call


@pytest.fixture(params=["async only", "beside a sync one"])
def company(request: pytest.FixtureRequest, receivers: Receivers) -> str:
    """Whether the signal also has a receiver that is not async."""
    if request.param != "async only":
        for signal in (pre_save, post_save):
            receivers.connect(signal, lambda **kwargs: None, Harbour)
    return str(request.param)


def test_async_receivers_get_each_row_once_with_its_values(
    operate: Callable[[], None], company: str, receivers: Receivers
) -> None:
    heard: list[Any] = []

    async def hear(signal: Any, instance: Harbour, update_fields: Any, using: str, **kwargs: Any) -> None:
        heard.append((signal, instance.pk, update_fields, using, kwargs["raw"], kwargs.get("created")))

    keys = [harbour.pk for harbour in harbours(3)]
    receivers.connect(pre_save, hear, Harbour)
    receivers.connect(post_save, hear, Harbour)
    operate()
    for signal, created in ((pre_save, None), (post_save, False)):
        assert [entry[1:] for entry in heard if entry[0] is signal] == [
            (key, {"name"}, "default", False, created) for key in keys
        ]


def test_async_receivers_come_after_the_sync_ones_row_by_row(
    operate: Callable[[], None], receivers: Receivers
) -> None:
    order: list[Any] = []

    async def late(instance: Harbour, **kwargs: Any) -> None:
        order.append(("async", instance.pk))

    def early(instance: Harbour, **kwargs: Any) -> None:
        order.append(("sync", instance.pk))

    keys = [harbour.pk for harbour in harbours(2)]
    receivers.connect(post_save, late, Harbour)
    receivers.connect(post_save, early, Harbour)
    operate()
    assert order == [(kind, key) for key in keys for kind in ("sync", "async")]


def test_what_an_async_receiver_changes_is_saved(
    operate: Callable[[], None], company: str, receivers: Receivers
) -> None:
    async def rename(instance: Harbour, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        instance.name = f"harbour {instance.pk}"

    harbours(3)
    receivers.connect(pre_save, rename, Harbour)
    operate()
    assert all(harbour.name == f"harbour {harbour.pk}" for harbour in Harbour.objects.all())


def test_an_async_receiver_that_updates_its_own_row_is_not_called_again(
    operate: Callable[[], None], company: str, receivers: Receivers
) -> None:
    calls = []

    async def hear(instance: Harbour, **kwargs: Any) -> None:
        calls.append(instance.pk)
        await Harbour.objects.filter(pk=instance.pk).aupdate(name="again")

    keys = [harbour.pk for harbour in harbours(3)]
    receivers.connect(post_save, hear, Harbour)
    operate()
    assert calls == keys
    assert set(Harbour.objects.values_list("name", flat=True)) == {"again"}


def test_a_row_that_an_async_receiver_deletes_gets_no_post_save(company: str, receivers: Receivers) -> None:
    calls = []

    async def hear(instance: Harbour, **kwargs: Any) -> None:
        calls.append(instance.pk)
        await Harbour.objects.filter(pk=instance.pk + 1).adelete()

    keys = [harbour.pk for harbour in harbours(5)]
    receivers.connect(post_save, hear, Harbour)
    with signal_patch.bulk_signals():
        assert Harbour.objects.update(name="x") == 3
    assert calls == [keys[0], keys[2], keys[4]]


def test_queries_run_in_the_callers_thread(company: str, receivers: Receivers) -> None:
    threads = set()

    async def hear(instance: Harbour, **kwargs: Any) -> None:
        threads.add(await sync_to_async(threading.get_ident)())
        assert await Harbour.objects.filter(pk=instance.pk).aexists()

    harbours(3)
    receivers.connect(pre_save, hear, Harbour)
    receivers.connect(post_save, hear, Harbour)
    with signal_patch.bulk_signals():
        Harbour.objects.update(name="x")
    assert threads == {threading.get_ident()}


def test_the_rows_of_an_operation_share_one_event_loop(
    operate: Callable[[], None], company: str, receivers: Receivers
) -> None:
    loops = set()

    async def hear(**kwargs: Any) -> None:
        loops.add(asyncio.get_running_loop())

    harbours(5)
    receivers.connect(pre_save, hear, Harbour)
    receivers.connect(post_save, hear, Harbour)
    operate()
    assert len(loops) == 1


@pytest.mark.parametrize(
    "delete", [lambda: Harbour.objects.all().delete(), lambda: Harbour.objects.get().delete()]
)
def test_the_rows_of_a_delete_share_one_event_loop(delete: Callable[[], Any], receivers: Receivers) -> None:
    loops = set()
    heard = []

    async def hear(signal: Any, **kwargs: Any) -> None:
        loops.add(asyncio.get_running_loop())
        heard.append(signal)

    harbour = Harbour.objects.create()
    for _ in range(3):
        Tug.objects.create(removed=harbour, spared=None)
    for signal in (pre_delete, post_delete):
        for model in (Harbour, Tug):
            receivers.connect(signal, hear, model)
    with signal_patch.bulk_signals():
        delete()
    assert len(heard) == 8
    assert len(loops) == 1


def test_the_rows_of_a_batch_share_one_coroutine(operate: Callable[[], None], receivers: Receivers) -> None:
    """Switching between a thread and its event loop costs more than everything else for a row."""
    tasks: dict[Any, list[set[Any]]] = {pre_save: [], post_save: []}

    async def hear(signal: Any, **kwargs: Any) -> None:
        tasks[signal].append(asyncio.all_tasks())

    harbours(3)
    for signal in tasks:
        receivers.connect(signal, hear, Harbour)
    operate()
    announcing, reporting = (set.intersection(*found[:2]) for found in tasks.values())
    assert announcing - reporting
    assert reporting - announcing


# bulk_create(): of three instances, the second conflicts with an existing row.


@pytest.fixture(params=["plain", "ignore_conflicts", "update_conflicts"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _arguments(mode: str) -> dict[str, Any]:
    if mode == "plain":
        return {}
    if mode == "ignore_conflicts":
        return {mode: True}
    targets = connection.features.supports_update_conflicts_with_target
    return {mode: True, "update_fields": ["name"], "unique_fields": ["pk"] if targets else None}


def conflicting(mode: str) -> list[Harbour]:
    """Return instances to create; if conflicts are allowed, the second conflicts with an existing row."""
    there = None if mode == "plain" else Harbour.objects.create(name="there").pk
    return [Harbour(name="new"), Harbour(pk=there, name="given"), Harbour(name="new")]


def created_by(mode: str) -> list[bool | None]:
    """Return the expected `created` of these instances; None if they get no `post_save`."""
    return [True, {"plain": True, "ignore_conflicts": None, "update_conflicts": False}[mode], True]


CREATING: dict[str, Callable[..., list[Harbour]]] = {
    "bulk_create": lambda objs, **arguments: Harbour.objects.bulk_create(objs, **arguments),
    "abulk_create": lambda objs, **arguments: run(lambda: Harbour.objects.abulk_create(objs, **arguments)),
    "in batches": lambda objs, **arguments: _in_batches(
        lambda: Harbour.objects.bulk_create(objs, **arguments)
    ),
}


@pytest.fixture(params=CREATING)
def create(request: pytest.FixtureRequest, mode: str) -> Callable[[list[Harbour]], list[Harbour]]:
    def call(objs: list[Harbour]) -> list[Harbour]:
        with signal_patch.bulk_signals():
            return CREATING[request.param](objs, **_arguments(mode))

    return call


def test_async_receivers_get_each_new_row_once_with_its_arguments(
    create: Callable[[list[Harbour]], list[Harbour]], mode: str, company: str, receivers: Receivers
) -> None:
    announced: list[Any] = []
    reported: dict[int, Any] = {}

    async def announce(instance: Harbour, **kwargs: Any) -> None:
        announced.append((instance, kwargs))

    async def report(instance: Harbour, **kwargs: Any) -> None:
        assert id(instance) not in reported
        assert await Harbour.objects.aget(pk=instance.pk) == instance
        reported[id(instance)] = kwargs

    objs = conflicting(mode)
    receivers.connect(pre_save, announce, Harbour)
    receivers.connect(post_save, report, Harbour)
    assert create(objs) == objs
    common = {"sender": Harbour, "raw": False, "using": "default", "update_fields": None}
    assert sorted(map(id, objs)) == sorted(id(obj) for obj, _ in announced)
    assert all(kwargs == {**common, "signal": pre_save} for _, kwargs in announced)
    assert [reported.get(id(obj)) for obj in objs] == [
        None if created is None else {**common, "signal": post_save, "created": created}
        for created in created_by(mode)
    ]


def test_async_receivers_get_new_rows_as_sync_ones_do(
    create: Callable[[list[Harbour]], list[Harbour]], mode: str, receivers: Receivers
) -> None:
    objs, order = conflicting(mode), []

    async def late(signal: Any, instance: Harbour, **kwargs: Any) -> None:
        order.append(("async", signal, id(instance)))

    def early(signal: Any, instance: Harbour, **kwargs: Any) -> None:
        order.append(("sync", signal, id(instance)))

    for signal in (pre_save, post_save):
        receivers.connect(signal, late, Harbour)
        receivers.connect(signal, early, Harbour)
    create(objs)
    assert [kind for kind, *_ in order] == ["sync", "async"] * (len(order) // 2)
    assert [said for kind, *said in order if kind == "sync"] == [
        said for kind, *said in order if kind == "async"
    ]


def test_the_rows_of_a_bulk_create_share_one_event_loop(
    create: Callable[[list[Harbour]], list[Harbour]], mode: str, company: str, receivers: Receivers
) -> None:
    objs, loops = conflicting(mode), set()

    async def hear(**kwargs: Any) -> None:
        loops.add(asyncio.get_running_loop())

    receivers.connect(pre_save, hear, Harbour)
    receivers.connect(post_save, hear, Harbour)
    create(objs)
    assert len(loops) == 1


def test_the_rows_of_a_bulk_creates_batch_share_one_coroutine(mode: str, receivers: Receivers) -> None:
    objs = conflicting(mode)
    tasks: dict[Any, list[set[Any]]] = {pre_save: [], post_save: []}

    async def hear(signal: Any, **kwargs: Any) -> None:
        tasks[signal].append(asyncio.all_tasks())

    for signal in tasks:
        receivers.connect(signal, hear, Harbour)
    with signal_patch.bulk_signals():
        Harbour.objects.bulk_create(objs, **_arguments(mode))
    announcing, reporting = (set.intersection(*found) for found in tasks.values())
    assert announcing - reporting
    assert reporting - announcing


class Boom(Exception):
    pass


async def boom(**kwargs: Any) -> None:
    raise Boom


async def boom_too(**kwargs: Any) -> None:
    raise Boom


@pytest.mark.parametrize("failing", [[boom], [boom, boom_too]])
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_exception_is_djangos_own_and_leaves_no_row_changed(
    signal: Any, failing: list[Any], company: str, receivers: Receivers
) -> None:
    """If several receivers fail at once, Django 6.1 raises an exception group."""
    harbour, *_ = harbours(2)
    for receiver in failing:
        receivers.connect(signal, receiver, Harbour)
    with pytest.raises(Exception) as expected, transaction.atomic():  # noqa: PT011  # whatever it is
        harbour.save(update_fields=["name"])
    with signal_patch.bulk_signals(), pytest.raises(type(expected.value)) as raised, transaction.atomic():
        Harbour.objects.update(name="x")
    assert type(raised.value) is type(expected.value)
    assert set(Harbour.objects.values_list("name", flat=True)) == {""}
    receivers.disconnect_all()
    log = receivers.record(Harbour)
    with signal_patch.bulk_signals():
        Harbour.objects.update(name="y")
    assert len(log) == 4


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_interrupt_of_an_async_receiver_leaves_no_row_in_flight(
    signal: Any, interrupt: type[BaseException], company: str, receivers: Receivers
) -> None:
    """It ends the event loop, whose copy of the context was made inside the operation."""

    async def stop(**kwargs: Any) -> None:
        raise interrupt

    harbours(2)
    receivers.connect(signal, stop, Harbour)
    with signal_patch.bulk_signals(), pytest.raises(interrupt), transaction.atomic():
        Harbour.objects.update(name="x")
    receivers.disconnect_all()
    log = receivers.record(Harbour)
    with signal_patch.bulk_signals():
        Harbour.objects.update(name="y")
    assert len(log) == 4


def test_a_stop_iteration_beside_async_receivers_is_raised(receivers: Receivers) -> None:
    """asyncio's futures do not accept a StopIteration."""

    def stop(**kwargs: Any) -> None:
        next(iter(()))

    async def hear(**kwargs: Any) -> None: ...

    harbours(1)
    receivers.connect(post_save, stop, Harbour)
    receivers.connect(post_save, hear, Harbour)
    with signal_patch.bulk_signals(), pytest.raises(StopIteration), transaction.atomic():
        Harbour.objects.update(name="x")


def test_a_context_variable_that_a_sync_receiver_sets_stays_set(company: str, receivers: Receivers) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")
    seen = []

    def remember(**kwargs: Any) -> None:
        variable.set("set")

    async def hear(**kwargs: Any) -> None:
        seen.append(variable.get())

    harbours(1)
    receivers.connect(pre_save, remember, Harbour)
    receivers.connect(pre_save, hear, Harbour)
    receivers.connect(post_save, hear, Harbour)
    with signal_patch.bulk_signals():
        Harbour.objects.update(name="x")
    assert seen == ["set", "set"]
    assert variable.get() == "set"
