"""Who calls an operation: from which line of the project's code, and whether a function that is quiet."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from inspect import unwrap
from threading import Lock
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asgiref
import django
from asgiref.sync import SyncToAsync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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


# Functions of other libraries that do what the receivers do: the default of SIGNAL_PATCH["QUIET"].
QUIET: Final = (
    "simple_history.utils.bulk_create_with_history",
    "simple_history.utils.bulk_update_with_history",
    "simple_history.manager.HistoryManager.bulk_history_create",
)

# Of overrides that call Django's method by super(), too.
_OPERATIONS: Final = frozenset({"update", "bulk_update", "bulk_create"})


class Quiet:
    """Functions whose own bulk operations send nothing, given by their dotted paths.

    None is imported for it: as long as a package is not loaded, none of its functions is called. They are
    known by their code, however they were imported.
    """

    def __init__(self, paths: Iterable[str] = QUIET) -> None:
        self._lock = Lock()
        self.replace(paths)

    def replace(self, paths: Iterable[str]) -> None:
        """Have these functions, and no others, be quiet."""
        # By package: what most programs never load costs them one look-up.
        unloaded: dict[str, list[str]] = {}
        for path in paths:
            unloaded.setdefault(path.partition(".")[0], []).append(path)
        with self._lock:
            self._unloaded = unloaded
            # By id(), which for a code object is much faster than its hash.
            self._codes: dict[int, CodeType] = {}

    def is_caller(self) -> bool:
        """Say whether one of them makes the operation that asks itself: no other function is between them."""
        loaded = [package for package in self._unloaded if package in sys.modules]
        for package in loaded:
            self._find(package)
        if not self._codes:
            return False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if id(code) in self._codes:
                return True
            if code.co_name not in _OPERATIONS and _kind_of(code.co_filename) is not _Kind.MACHINERY:
                return False
            frame = frame.f_back
        return False

    def _find(self, package: str) -> None:
        # Other threads iterate over these meanwhile: they are replaced, not changed.
        with self._lock:
            found = {path: code_at(path) for path in self._unloaded.get(package, ())}
            self._codes = self._codes | {id(code): code for code in found.values() if code}
            # Of a module that is not loaded yet, though its package is.
            missing = [path for path, code in found.items() if code is None]
            others = {other: paths for other, paths in self._unloaded.items() if other != package}
            self._unloaded = {**others, package: missing} if missing else others


def code_at(path: str) -> CodeType | None:
    """Return the code of the function that has this dotted path, if its module is loaded."""
    name, attributes = path, list[str]()
    while name not in sys.modules:
        name, _, attribute = name.rpartition(".")
        attributes.insert(0, attribute)
    found: Any = sys.modules[name]
    for attribute in attributes:
        found = getattr(found, attribute, None)
    return getattr(unwrap(found), "__code__", None) if found else None


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

# Of asgiref 3, which Django 5.2 to 6.1 requires.
_THREAD_HANDLER: Final = SyncToAsync.thread_handler.__code__

# The site of an async operation, whose statements run in another thread.
_awaited_at: Final[ContextVar[Site | None]] = ContextVar("signal_patch_awaited_at", default=None)


def call_site() -> Site | None:
    """Return the innermost line of the project's code on the stack.

    Django, this package, the standard library and site-packages are passed over. Where nothing of the project
    is on the stack: the line that awaits the operation, else the innermost one of site-packages, else None.
    """
    library: FrameType | None = None
    awaited_at = _awaited_at.get()
    frame: FrameType | None = sys._getframe(1)
    # Beneath the call of sync_to_async() there may be others than who awaits it.
    while frame is not None and not (awaited_at and frame.f_code is _THREAD_HANDLER):
        kind = _kind_of(frame.f_code.co_filename)
        if kind is _Kind.PROJECT:
            return _site(frame)
        if kind is _Kind.LIBRARY and library is None:
            library = frame
        frame = frame.f_back
    return awaited_at or (_site(library) if library else None)


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


def _kind_of(filename: str) -> _Kind:
    return _kinds.get(filename) or _decide(filename)


def _decide(filename: str) -> _Kind:
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


quiet: Final = Quiet()
