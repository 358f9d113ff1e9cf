"""From which line of the project's code an operation comes: the call site."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

import asgiref
import django

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Site(NamedTuple):
    """A line of code: `str()` gives `orders/tasks.py:88 in expire_old`."""

    filename: str
    line: int
    module: str
    # With the names of the classes and functions around it, from Python 3.11 on.
    function: str

    def __str__(self) -> str:
        return f"{_relative(self.filename)}:{self.line} in {self.function}"

    def is_within(self, dotted: str) -> bool:
        """Say whether the line is in this package, module, class or function, given by its dotted path."""
        return f"{self.module}.{self.function}.".startswith(f"{dotted}.")


class _Kind(Enum):
    PROJECT = "project"
    # In site-packages: the call site if the project's code is not on the stack.
    LIBRARY = "library"
    # Django, this package, what runs them, and the standard library: never a call site.
    MACHINERY = "machinery"


_MACHINERY: Final = tuple(
    os.path.dirname(file) + os.sep  # noqa: PTH120  # as co_filename has it
    for file in (__file__, django.__file__, asgiref.__file__, os.__file__)
)
_INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))

# By co_filename, whose hash a string remembers; that of a code object is computed anew each time.
_kinds: Final[dict[str, _Kind]] = {}

# The site of an async operation, whose statements run in another thread.
_awaited_at: Final[ContextVar[Site | None]] = ContextVar("signal_patch_awaited_at", default=None)


def call_site() -> Site | None:
    """
    Return the innermost line of the project's code on the stack.

    Django, this package, the standard library and site-packages are passed over. Where nothing of the project
    is on the stack: the line that awaits the operation, else the innermost one of site-packages, else None.
    """
    library: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        kind = _kinds.get(frame.f_code.co_filename) or _kind(frame.f_code.co_filename)
        if kind is _Kind.PROJECT:
            return _site(frame)
        if kind is _Kind.LIBRARY and library is None:
            library = frame
        frame = frame.f_back
    return _awaited_at.get() or (_site(library) if library else None)


def definition_site() -> Site | None:
    """Return the innermost line on the stack outside this package, where a class of any library is made."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_MACHINERY[0]):
        frame = frame.f_back
    return _site(frame) if frame else None


@contextmanager
def awaited_at(site: Site | None) -> Iterator[None]:
    """Let what the block awaits have this call site, where its thread knows of none."""
    outer = _awaited_at.get()
    _awaited_at.set(site)
    try:
        yield
    finally:
        _awaited_at.set(outer)


def _kind(filename: str) -> _Kind:
    if filename.startswith(("<frozen ", *_MACHINERY[:3])):
        kind = _Kind.MACHINERY
    elif any(part in filename for part in _INSTALLED):
        # The standard library's folder has site-packages in it.
        kind = _Kind.LIBRARY
    else:
        kind = _Kind.MACHINERY if filename.startswith(_MACHINERY[3]) else _Kind.PROJECT
    _kinds[filename] = kind
    return kind


def _site(frame: FrameType) -> Site:
    code = frame.f_code
    # co_qualname came with Python 3.11.
    function = getattr(code, "co_qualname", code.co_name)
    return Site(code.co_filename, frame.f_lineno, frame.f_globals.get("__name__", "?"), function)


def _relative(filename: str) -> str:
    """Return the path as an import would find it: below the longest entry of `sys.path`."""
    entries = [os.path.join(entry or os.getcwd(), "") for entry in sys.path]  # noqa: PTH109, PTH118
    longest = max((entry for entry in entries if filename.startswith(entry)), key=len, default="")
    return filename[len(longest) :]
