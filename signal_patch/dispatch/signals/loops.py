"""One event loop for the async receivers of a whole bulk operation.

`Signal.send()` runs async receivers through `async_to_sync()`, which starts a thread and an event loop for
each call, unless the calling thread already belongs to a loop. So the operation is run in such a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from asgiref.sync import async_to_sync, sync_to_async

from signal_patch.dispatch.signals import sending

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.signals import ModelSignal

    T = TypeVar("T")


def run(work: Callable[[], T], signals: Iterable[ModelSignal], senders: Collection[type[Model]]) -> T:
    """Run work that sends these signals for these senders, and return its result.

    It runs in the calling thread, with that thread's database connections and context variables. Only the
    event loop is shared, and none is started if no receiver is async.
    """
    if any(sending.receivers_of(signal, sender)[1] for signal in signals for sender in senders):
        return _within_a_loop(work)
    return work()


def _within_a_loop(work: Callable[[], T]) -> T:
    # The result bypasses the loop: asyncio's futures do not accept a StopIteration, which would hang it.
    outcome: Future[T] = Future()

    def run_work() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # result() raises it
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    async_to_sync(sync_to_async(run_work))()
    return outcome.result()
