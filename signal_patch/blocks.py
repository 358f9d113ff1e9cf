"""Values that count while a `with` block runs, and not one instruction longer.

A signal handler (Ctrl-C, a worker's time limit) may raise an exception at almost any instruction. So no
context manager written in Python can be sure to undo what it has done: the exception may come before the
block begins, or at the first line of `__exit__()` or of `finally`.

Therefore nothing has to be undone here. A context variable holds a value together with a weak reference to a
lock, and the value counts while the lock is locked. The lock is acquired and released by C code, with no
Python instruction in between. Only the `with` statement refers to the lock, so if the statement could not
release it, the lock is deleted together with the statement. A traceback that somebody keeps refers to the
local variables of functions, but not to the lock.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from weakref import ReferenceType

T = TypeVar("T")


def is_running(block: ReferenceType[Lock]) -> bool:
    """Return whether the `with` block over this lock is still running."""
    lock = block()
    return lock is not None and lock.locked()


class Held(Generic[T]):
    """Values in this context; each of them counts while its block is running."""

    __slots__ = ("_entries",)

    def __init__(self, name: str) -> None:
        self._entries: ContextVar[tuple[tuple[ReferenceType[Lock], T], ...]] = ContextVar(name, default=())

    def holding(self, value: T) -> Lock:
        """Return a lock; the value counts while the lock is locked.

        Use it as `with held.holding(value):`, and keep no reference to the lock.
        """
        lock = Lock()
        earlier = [entry for entry in self._entries.get() if is_running(entry[0])]
        self._entries.set((*earlier, (ref(lock), value)))
        return lock

    def values(self) -> list[T]:
        """Return the values whose blocks are running, outermost block first."""
        return [value for block, value in self._entries.get() if is_running(block)]
