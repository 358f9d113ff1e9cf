"""What holds for the length of a `with` block, and not one instruction longer.

A signal handler (Ctrl-C, a worker's time limit) may raise an exception at nearly any instruction, so no
context manager written in Python is sure to undo what it has done: the exception may come before the block
has begun, or at the first line of `__exit__()` or of `finally`. So nothing is undone here. A context
variable holds a value next to a weak reference to a lock, and the value counts while the lock is locked.
A lock is entered and left by C code, with no instruction in between; and as only the `with` statement
refers to it, it is gone even where that statement was not able to leave it. A traceback that somebody
keeps refers to the local variables of a function, but not to this.
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
    """Return whether the block of a `with` statement over this lock is running."""
    lock = block()
    return lock is not None and lock.locked()


class Held(Generic[T]):
    """Values of this context, each of which counts while its block is running."""

    __slots__ = ("_entries",)

    def __init__(self, name: str) -> None:
        self._entries: ContextVar[tuple[tuple[ReferenceType[Lock], T], ...]] = ContextVar(name, default=())

    def holding(self, value: T) -> Lock:
        """Hold a value while the lock that is returned is locked.

        Use it as `with held.holding(value):`, and keep no reference to the lock.
        """
        lock = Lock()
        earlier = [entry for entry in self._entries.get() if is_running(entry[0])]
        self._entries.set((*earlier, (ref(lock), value)))
        return lock

    def values(self) -> list[T]:
        """Return the values whose blocks are running, that of the outermost block first."""
        return [value for block, value in self._entries.get() if is_running(block)]
