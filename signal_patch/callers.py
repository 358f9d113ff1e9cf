"""Who calls a bulk operation: which line of the project's code, and whether a function listed in QUIET."""

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
    # From Python 3.11 on, this includes the names of the enclosing classes and functions.
    function: str

    def __str__(self) -> str:
        return f"{_relative(self.filename)}:{self.line} in {self.function}"

    def is_within(self, dotted: str) -> bool:
        """Return whether the line is in this package, module, class or function, given by its dotted path."""
        return f"{self.module}.{self.function}.".startswith(f"{dotted}.")


# The default of SIGNAL_PATCH["QUIET"]: functions of other libraries that do the receivers' work themselves.
QUIET: Final = (
    "simple_history.utils.bulk_create_with_history",
    "simple_history.utils.bulk_update_with_history",
    "simple_history.manager.HistoryManager.bulk_history_create",
)

# An override that calls Django's method by super() has one of these names, too.
_OPERATIONS: Final = frozenset({"update", "bulk_update", "bulk_create"})


class Quiet:
    """Functions, given by their dotted paths, whose own bulk operations send no signals.

    No module is imported to find a function: nobody can call a function whose module is not loaded. Functions
    are recognized by their code objects, however they were imported.
    """

    def __init__(self, paths: Iterable[str] = QUIET) -> None:
        self._lock = Lock()
        self.replace(paths)

    def replace(self, paths: Iterable[str]) -> None:
        """Replace the functions with the ones at these paths."""
        # Grouped by package, so that a package that is never loaded costs a single look-up.
        unloaded: dict[str, list[str]] = {}
        for path in paths:
            unloaded.setdefault(path.partition(".")[0], []).append(path)
        with self._lock:
            self._unloaded = unloaded
            # Keyed by id(), because hashing a code object is much slower.
            self._codes: dict[int, CodeType] = {}

    def is_caller(self) -> bool:
        """Return whether one of these functions makes the current call of an operation.

        Between the two, the stack may only contain overrides of the operation and frames of Django, asgiref,
        this package and the standard library.
        """
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
        # Replaced, not changed, because other threads may be iterating over them.
        with self._lock:
            found = {path: code_at(path) for path in self._unloaded.get(package, ())}
            self._codes = self._codes | {id(code): code for code in found.values() if code}
            # The package is loaded, but the module is not loaded yet.
            missing = [path for path, code in found.items() if code is None]
            others = {other: paths for other, paths in self._unloaded.items() if other != package}
            self._unloaded = {**others, package: missing} if missing else others


def code_at(path: str) -> CodeType | None:
    """Return the code object of the function at this dotted path, or None if no loaded module has it."""
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
    # In site-packages: a call site only if none of the project's code is on the stack.
    LIBRARY = "library"
    # Django, asgiref, this package and the standard library: never a call site.
    MACHINERY = "machinery"


# Where Django's related managers are: their `set()` calls bulk operations in a transaction of its own.
_RELATED_MANAGERS: Final = tuple(
    os.path.join(os.path.dirname(django.__file__), *path)  # noqa: PTH118, PTH120  # as co_filename has it
    for path in (
        ("db", "models", "fields", "related_descriptors.py"),
        ("contrib", "contenttypes", "fields.py"),
    )
)
_MACHINERY: Final = tuple(
    os.path.dirname(file) + os.sep  # noqa: PTH120  # in the form of co_filename
    for file in (__file__, django.__file__, asgiref.__file__, os.__file__)
)
_INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))

# Keyed by co_filename: a string caches its hash, but a code object computes it anew each time.
_kinds: Final[dict[str, _Kind]] = {}

# From asgiref 3, which Django 5.2 to 6.1 requires.
_THREAD_HANDLER: Final = SyncToAsync.thread_handler.__code__

# The call site of an async operation, whose statements run in another thread.
_awaited_at: Final[ContextVar[Site | None]] = ContextVar("signal_patch_awaited_at", default=None)


def call_site() -> Site | None:
    """Return the innermost line of the project's code on the stack.

    Frames of Django, this package, the standard library and site-packages are skipped. If none of the
    project's code is on the stack, the result is the line that awaits the operation, else the innermost line
    in site-packages, else None.
    """
    library: FrameType | None = None
    awaited_at = _awaited_at.get()
    frame: FrameType | None = sys._getframe(1)
    # The frames beneath sync_to_async() need not belong to the code that awaits the operation.
    while frame is not None and not (awaited_at and frame.f_code is _THREAD_HANDLER):
        kind = _kind_of(frame.f_code.co_filename)
        if kind is _Kind.PROJECT:
            return _site(frame)
        if kind is _Kind.LIBRARY and library is None:
            library = frame
        frame = frame.f_back
    return awaited_at or (_site(library) if library else None)


def is_called_by_related_manager() -> bool:
    """Say whether a method of a related manager, such as `set()`, makes the operation that asks."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_between(frame.f_code):
        if frame.f_code.co_filename in _RELATED_MANAGERS:
            return True
        frame = frame.f_back
    return False


def _is_between(code: CodeType) -> bool:
    """Return whether a function may stand between an operation and who makes it, as overrides do."""
    return code.co_name in ("update", "delete") or _kind_of(code.co_filename) is _Kind.MACHINERY


def definition_site() -> Site | None:
    """Return the line that defines a class: the innermost one on the stack outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_MACHINERY[0]):
        frame = frame.f_back
    return _site(frame) if frame else None


@contextmanager
def awaited_at(site: Site | None) -> Iterator[None]:
    """Make this the call site of what the block awaits, if its thread has no line of the project's code."""
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
        # This is checked before the standard library, whose folder contains site-packages.
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
    """Return the path relative to the longest entry of `sys.path` that contains it."""
    folders = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109  # code objects name files by strings
    entries = [os.path.join(folder, "") for folder in folders]  # noqa: PTH118  # a Path drops the last slash
    longest = max((entry for entry in entries if filename.startswith(entry)), key=len, default="")
    return filename[len(longest) :]


quiet: Final = Quiet()
