"""One event loop for the async receivers of a whole bulk operation.

`Signal.send()` runs async receivers by `async_to_sync()`, which starts a thread and an event loop for
each call, unless the thread that it is called in belongs to a loop already. So it is made to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from asgiref.sync import async_to_sync, sync_to_async

from . import sending

if TYPE_CHECKING:
    from django.db.models import Model
    from django.db.models.signals import ModelSignal

    T = TypeVar("T")


def run(work: Callable[[], T], signals: Iterable[ModelSignal], senders: Collection[type[Model]]) -> T:
    """Run work that sends these signals of these senders, and return what it returns.

    It runs in the calling thread, with its database connections and context variables, and sends
    as ever: what is shared is the loop only, and none is started where no receiver is async.
    """
    if any(sending.receivers_of(signal, sender)[1] for signal in signals for sender in senders):
        return _within_a_loop(work)
    return work()


def _within_a_loop(work: Callable[[], T]) -> T:
    # Carried around the loop: a StopIteration, which asyncio's futures do not take, would hang it.
    outcome: Future[T] = Future()

    def settle() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # result() raises it
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    async_to_sync(sync_to_async(settle))()
    return outcome.result()
