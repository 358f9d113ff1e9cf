"""After an exception at any instruction the next operation sends its signals (contract.md, section 1.8)."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import sys
import traceback
from contextlib import ExitStack, suppress
from contextvars import copy_context
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wrapt
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import F, QuerySet
from django.db.models.signals import pre_save

import signal_patch
from signal_patch import bulk_signals, disable, enable, is_enabled, no_bulk_signals, patches, scopes
from signal_patch.dispatch.signals import in_flight
from tests.fleet import rows
from tests.models import Berth, Foghorn, Port, Ship

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.recording import Log, Receivers

    Operation = Callable[[], object]


PACKAGE = Path(signal_patch.__path__[0])
INTERRUPTED = (str(PACKAGE), wrapt.__path__[0])
BLOCKS = str(PACKAGE / "blocks.py")
UPDATE = vars(QuerySet)["update"]


class Interrupt(BaseException):
    pass


class Interrupter:
    """A trace function that raises at one bytecode instruction of the package or of the operation."""

    def __init__(self, operation: Operation, at: int) -> None:
        self.code = operation.__code__
        self.at = at
        self.seen: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> Interrupter | None:
        name = frame.f_code.co_filename
        if not name.startswith(INTERRUPTED) and frame.f_code is not self.code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.seen.append(name)
            if len(self.seen) == self.at:
                raise Interrupt
        return self


def run(operation: Operation, at: int = 0) -> tuple[list[str], Interrupt | None]:
    """Run an operation, interrupted at an instruction.

    Return the files of the instructions that were run, and the exception.
    """
    interrupter, found = Interrupter(operation, at), sys.gettrace()
    sys.settrace(interrupter)
    try:
        operation()
    except Interrupt as interrupt:
        return interrupter.seen, interrupt
    finally:
        sys.settrace(found)
    return interrupter.seen, None


def instructions(operation: Operation) -> list[str]:
    """Return the file of each instruction of an operation."""
    # Later runs have fewer instructions, because decisions are cached. And from Python 3.12 on, not all
    # instructions of a function are traced in the first run.
    for _ in range(2):
        run(operation)
    return run(operation)[0]


def update() -> None:
    Port.objects.update(name="x")


def update_with_an_expression() -> None:
    Ship.objects.update(speed=F("speed") + 1)


def update_batch_by_batch() -> None:
    with bulk_signals(Port, atomic=False, batch_size=1):
        Port.objects.update(name="x")


def update_by_the_mixin() -> None:
    Foghorn.objects.update(name="x")


def bulk_update() -> None:
    ports = list(Port.objects.all())
    Port.objects.bulk_update(ports, ["name"])


def bulk_create() -> None:
    Port.objects.bulk_create([Port(code="C"), Port(code="D")])


def upsert() -> None:
    ports = [Port(code="A", name="x"), Port(code="D")]
    unique = ["code"] if connection.features.supports_update_conflicts_with_target else None
    Port.objects.bulk_create(ports, update_conflicts=True, update_fields=["name"], unique_fields=unique)


def delete() -> None:
    Port.objects.filter(code="A").delete()


def save() -> None:
    Port.objects.get(code="A").save()


def update_where_only_update_is_on() -> None:
    with no_bulk_signals(Port), bulk_signals(Port, operations=["update"]):
        ports = list(Port.objects.all())
        Port.objects.bulk_update(ports, ["name"])


@pytest.fixture(autouse=True)
def _lost_exceptions_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore exceptions that Python cannot raise: in a destructor, or while a generator is closed."""
    # Any built-in function will do. A hook written in Python would be interrupted itself.
    monkeypatch.setattr(sys, "unraisablehook", id)


@pytest.fixture(autouse=True)
def _lock_is_free_afterwards() -> Iterator[None]:
    """Release the switch's lock, which other threads wait for.

    These tests interrupt at any instruction. From CPython 3.12 on, no signal handler runs at the instructions
    that leave a `with` statement, and an exception there leaves the lock locked.
    """
    yield
    lock: Any = scopes.lock
    while lock._is_owned():
        lock.release()


@pytest.fixture
def fleet() -> None:
    port, _ = rows(Port, {"code": "A"}, {"code": "B"})
    berth, _ = rows(Berth, {"port": port}, {"port": port})
    rows(Ship, {"berth": berth}, {"berth": berth})
    rows(Foghorn, {}, {})


def sends_everything(log: Log) -> bool:
    """Return whether an update of each of two rows sends both signals for each."""
    with bulk_signals():
        for model, values in (Port, {"name": "y"}), (Ship, {"speed": 1}):
            log.clear()
            model.objects.update(**values)
            if log.names() != ["pre_save"] * 2 + ["post_save"] * 2:
                return False
    return True


def run_in_transaction(operation: Operation, at: int = 0) -> tuple[list[str], Interrupt | None]:
    # As in the transaction of a TestCase, what commits batch by batch is not refused.
    block: Any = transaction.atomic()
    block._from_testcase = True
    with block:
        ran = run(operation, at)
        close_cursors(ran[1])
        transaction.set_rollback(True)
    return ran


def close_cursors(interrupt: Interrupt | None) -> None:
    """Close what an interrupt of the instructions that leave a `with` statement has left open.

    No signal handler runs at them. SQLite makes no savepoint while a statement is not done.
    """
    frames = traceback.walk_tb(interrupt.__traceback__ if interrupt else None)
    values = (value for frame, _ in frames for value in frame.f_locals.values())
    list(map(methodcaller("close"), (value for value in values if isinstance(value, CursorWrapper))))


def places(operation: Operation) -> list[int]:
    """Return where to interrupt an operation: near where rows come in flight, and throughout."""
    for _ in range(2):
        run_in_transaction(operation)
    seen, _ = run_in_transaction(operation)
    holding = [place for place, name in enumerate(seen, 1) if name == BLOCKS]
    return sorted({*holding[:40], *range(1, len(seen) + 1, 1 + len(seen) // 20)})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "operation",
    [
        update,
        update_with_an_expression,
        update_batch_by_batch,
        update_by_the_mixin,
        update_where_only_update_is_on,
        bulk_update,
        bulk_create,
        upsert,
        delete,
        save,
    ],
)
@pytest.mark.usefixtures("fleet", "everything_on")
def test_after_an_interrupt_of_an_operation_the_next_sends_all_its_signals(
    operation: Operation, log: Log
) -> None:
    """Also while somebody keeps the exception, whose traceback keeps the local variables."""
    kept = []

    def interrupt(at: int) -> bool:
        kept.append(run_in_transaction(operation, at)[1])
        held = in_flight._flights.values() or in_flight._silent.values()
        return not held and sends_everything(log)

    failed = [at for at in places(operation) if not copy_context().run(interrupt, at)]

    assert not failed
    assert any(kept)


# The scopes

REUSED = bulk_signals(Port)


def with_statement() -> None:
    with bulk_signals(Port):
        pass


def without_statement() -> None:
    with no_bulk_signals():
        pass


def with_one_scope_again() -> None:
    with REUSED, REUSED:
        pass


def with_an_exception() -> None:
    with suppress(KeyError), REUSED:
        raise KeyError


@bulk_signals(Port)
def decorated() -> None:
    pass


def call_decorated() -> None:
    decorated()


@no_bulk_signals(Port)
def decorated_without() -> None:
    pass


def call_decorated_without() -> None:
    decorated_without()


def with_a_stack() -> None:
    with ExitStack() as stack:
        stack.enter_context(bulk_signals(Port))


def by_hand() -> None:
    scope = bulk_signals(Port)
    scope.__enter__()
    scope.__exit__(None, None, None)


def close_the_last_after_disable() -> None:
    enable()
    with REUSED:
        disable()


def places_of_scopes(operation: Operation) -> list[int]:
    """Return where to interrupt code that opens scopes: everywhere, except where it installs patches."""
    own = (operation.__code__.co_filename, str(PACKAGE / "scopes.py"), str(PACKAGE / "switch.py"))
    return [place for place, name in enumerate(instructions(operation), 1) if name in own]


@pytest.mark.parametrize(
    "operation",
    [
        with_statement,
        without_statement,
        with_one_scope_again,
        with_an_exception,
        call_decorated,
        call_decorated_without,
    ],
)
@pytest.mark.usefixtures("everything_on")
def test_after_an_interrupt_of_a_scope_none_is_open(operation: Operation) -> None:
    """Also while somebody keeps the exception, whose traceback keeps the local variables."""
    kept = []

    def interrupt(at: int) -> bool:
        kept.append(run(operation, at)[1])
        return not scopes.process.open_scopes and is_enabled(Port)

    failed = [at for at in places_of_scopes(operation) if not copy_context().run(interrupt, at)]
    disable()

    assert not failed
    assert any(kept)
    assert vars(QuerySet)["update"] is UPDATE


@pytest.fixture
def quick_collection() -> Iterator[None]:
    """Make `gc.collect()` only look at what the test creates."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("operation", [with_a_stack, by_hand])
@pytest.mark.usefixtures("everything_on", "quick_collection")
def test_after_an_interrupt_of_a_scope_without_a_with_statement_none_is_open(operation: Operation) -> None:
    """The scope object must be gone, and the stack or a traceback may keep it."""
    interrupted = []

    def interrupt(at: int) -> bool:
        interrupted.append(run(operation, at)[1] is not None)
        # An `ExitStack` and the exception that it has handled refer to each other.
        gc.collect()
        return not scopes.process.open_scopes and is_enabled(Port)

    failed = [at for at in places_of_scopes(operation) if not copy_context().run(interrupt, at)]

    assert not failed
    assert any(interrupted)


def test_after_an_interrupt_of_the_last_scope_the_next_disable_takes_the_patches_off() -> None:
    kept = []

    def interrupt(at: int) -> bool:
        kept.append(run(close_the_last_after_disable, at)[1])
        disable()
        return vars(QuerySet)["update"] is UPDATE

    places = places_of_scopes(close_the_last_after_disable)[::5]
    failed = [at for at in places if not copy_context().run(interrupt, at)]

    assert not failed
    assert any(kept)


def test_a_scope_that_is_entered_by_hand_is_closed_by_hand() -> None:
    """Also if its `__exit__()` was read before another scope was entered."""
    book, port = bulk_signals(Berth), bulk_signals(Port)
    book.__enter__()
    leave_book = book.__exit__
    port.__enter__()
    port.__exit__(None, None, None)

    assert is_enabled(Berth)
    assert not is_enabled(Port)
    leave_book(None, None, None)
    assert not is_enabled()


def test_a_scope_that_is_entered_by_hand_and_not_kept_is_closed() -> None:
    bulk_signals(Port).__enter__()

    assert not is_enabled()
    assert not scopes.process.open_scopes


# The switch


def is_installed() -> bool:
    return all(patches.ours(owner, name) for owner, name, _ in patches.ENTRY_POINTS + patches.ROW_MARKERS)


def some_places(operation: Operation) -> range:
    return range(1, len(instructions(operation)) + 1, 29)


def switch() -> None:
    enable()
    disable()


def test_what_an_interrupt_leaves_undone_the_next_call_does() -> None:
    def interrupt(at: int) -> bool:
        run(switch, at)
        enable()
        complete = is_installed()
        disable()
        return complete and vars(QuerySet)["update"] is UPDATE and not is_enabled()

    assert all(interrupt(at) for at in some_places(switch))


def test_after_an_interrupt_what_is_on_has_its_patches() -> None:
    def interrupt(at: int) -> bool:
        run(enable, at)
        consistent = is_installed() or not is_enabled()
        disable()
        return consistent

    assert all(interrupt(at) for at in some_places(enable))


# Signals of the operating system, and tasks


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
def test_a_signal_handler_may_raise_at_any_time() -> None:
    flight = in_flight.flight_of("default", {Port: [1]})
    kept = []

    def enter_and_leave() -> None:
        while True:
            with bulk_signals(Port), in_flight.silence(Port), in_flight.flying(flight):
                decorated()

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Only interrupt code of the package or of this file, because coverage would leave its own lock
        # locked. And interrupt again later, because an exception in a destructor is lost.
        if frame is None or not frame.f_code.co_filename.startswith((str(PACKAGE), __file__)):
            return
        while frame is not None:
            if frame.f_code is enter_and_leave.__code__:
                raise Interrupt
            frame = frame.f_back

    def is_left_alone(after: float) -> bool:
        signal.setitimer(signal.ITIMER_REAL, after, 0.005)
        try:
            enter_and_leave()
        except Interrupt as error:
            kept.append(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        held = in_flight._flights.values() or in_flight._silent.values()
        return not held and not is_enabled() and not scopes.process.open_scopes

    moments = random.Random(1)
    found = signal.signal(signal.SIGALRM, interrupt)
    try:
        results = [copy_context().run(is_left_alone, 5e-5 + moments.random() * 1e-3) for _ in range(300)]
    finally:
        signal.signal(signal.SIGALRM, found)

    assert all(results)


def test_a_cancelled_task_leaves_no_scope_open() -> None:
    async def work(started: asyncio.Event) -> None:
        with bulk_signals(Port):
            started.set()
            await asyncio.Event().wait()

    async def cancel() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(work(started))
        await started.wait()
        assert scopes.process.open_scopes
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    assert not scopes.process.open_scopes


@pytest.mark.django_db
@pytest.mark.usefixtures("fleet")
def test_a_cancelled_receiver_leaves_no_row_in_flight(log: Log, receivers: Receivers) -> None:
    def cancelled(**arguments: Any) -> None:
        # As `async_to_sync()` does when the task that it waits for is cancelled.
        raise asyncio.CancelledError

    receivers.connect(pre_save, cancelled, Port)
    with pytest.raises(asyncio.CancelledError), transaction.atomic(), bulk_signals(Port):
        Port.objects.update(name="x")
    pre_save.disconnect(cancelled, Port)

    assert not in_flight._flights.values()
    assert sends_everything(log)
