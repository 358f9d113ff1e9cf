"""The options: how bulk operations send their signals, and which of them do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from signal_patch.specs import Spec, closest, label_of, named

if TYPE_CHECKING:
    from collections.abc import Sequence

Operation: TypeAlias = Literal["update", "bulk_update", "bulk_create", "delete"]
OPERATIONS: frozenset[Operation] = frozenset(get_args(Operation))

# Those that `atomic=False` commits batch by batch.
SPLITTABLE: frozenset[Operation] = frozenset({"update", "delete"})

# Called as `progress(done, total)`; with `atomic=False` also with `key=`, the last committed primary key, if
# it takes that.
Progress = Callable[..., object]


class Keywords(TypedDict, total=False):
    """The options as `enable()` and `bulk_signals()` take them."""

    operations: Iterable[Operation]
    batch_size: int
    lock: bool
    write_back: bool
    progress: Progress | bool | None
    delete_batch_size: int | None
    prefetch: Iterable[str]
    batch_inserts: Iterable[Spec]
    batch_reads: bool
    atomic: bool


@dataclass(frozen=True, slots=True)
class Options:
    """The options for the models of one `enable()` or `bulk_signals()`.

    `operations` are those that send signals. `batch_size` is the number of instances in memory at a time.
    `lock` locks the rows. `write_back` saves what receivers of `pre_save` change in any field.
    `delete_batch_size` is the number of rows that are deleted at a time; None stands for all. `batch_inserts`
    are models whose rows receivers insert: these are inserted together. `batch_reads` answers reads of the
    batch's rows by key from one query. `prefetch` are names of relations to load for each batch.
    `atomic=False` commits each batch. `progress` is a callable that gets the rows done and the total, or True
    for a bar.

    A wrong value is an error here, when the switch is turned: TypeError for a value of the wrong type,
    ValueError for one out of range, LookupError for a model that does not exist, ImportError for a progress
    bar without tqdm.
    """

    operations: frozenset[Operation] = OPERATIONS
    batch_size: int = 2000
    lock: bool = True
    write_back: bool = True
    progress: Progress | bool | None = None
    delete_batch_size: int | None = None
    prefetch: Iterable[str] = ()
    batch_inserts: Iterable[Spec] = ()
    batch_reads: bool = False
    atomic: bool = True

    def __post_init__(self) -> None:
        # The class is frozen, and has slots, so there is no other way to normalize its values.
        object.__setattr__(self, "operations", _operations(self.operations))
        _check_batch_size("batch_size", self.batch_size)
        if self.delete_batch_size is not None:
            _check_batch_size("delete_batch_size", self.delete_batch_size)
        _check_switch("lock", self.lock)
        _check_switch("write_back", self.write_back)
        _check_progress(self.progress)
        object.__setattr__(self, "prefetch", _names("prefetch", self.prefetch))
        _check_switch("batch_reads", self.batch_reads)
        if self.batch_reads and not self.lock:
            raise ValueError("batch_reads needs lock=True: others may change rows that are not locked")
        object.__setattr__(self, "batch_inserts", named(self.batch_inserts, "batch_inserts"))
        _check_switch("atomic", self.atomic)
        if not self.atomic and self.operations.isdisjoint(SPLITTABLE):
            raise ValueError(
                f"atomic=False is for {_listed(sorted(SPLITTABLE))}, and operations has neither: "
                f"{_listed(sorted(self.operations))}"
            )

    @property
    def splits_delete(self) -> bool:
        """Whether a `delete()` of a queryset is not left to Django as it stands."""
        return self.delete_batch_size is not None or not self.atomic

    @classmethod
    def from_keywords(cls, keywords: Keywords) -> Options:
        """Return the options with these names; raise TypeError, with the valid names, for an unknown one."""
        valid = [field.name for field in fields(cls)]
        unknown = sorted(keywords.keys() - set(valid))
        if unknown:
            raise TypeError(f"unknown option {_listed(unknown)}{_option_meant(unknown[0], valid)}")
        return cls(**keywords)  # type: ignore[arg-type]  # any iterable of names, made a frozenset above


def changed(options: Options | None) -> dict[str, str]:
    """Return the options that differ from the defaults, as they are written in code."""
    return {name: _written(value) for name, value in _changed(options).items()}


def changed_as_json(options: Options | None) -> dict[str, Any]:
    """Return the options that differ from the defaults, as values of JSON. Models become labels."""
    return {name: _as_json(value) for name, value in _changed(options).items()}


def _changed(options: Options | None) -> dict[str, Any]:
    return {
        field.name: getattr(options, field.name)
        for field in fields(Options)
        if options is not None and getattr(options, field.name) != field.default
    }


def _written(value: object) -> str:
    if isinstance(value, frozenset):
        return repr(sorted(value))
    return getattr(value, "__qualname__", repr(value))


def _as_json(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return list(map(label_of, value))
    return _written(value) if callable(value) else value


def check_operation(operation: str) -> None:
    """Raise ValueError, listing the valid names, if this is not the name of an operation."""
    valid = sorted(OPERATIONS)
    if operation not in valid:
        # The operation covers its async form.
        meant = _suggestion(str(operation).removeprefix("a"), valid)
        raise ValueError(f"unknown operation {operation!r}{meant}")


def _suggestion(wrong: str, valid: Sequence[str]) -> str:
    meant = closest(wrong, valid)
    names = f"valid are {_listed(valid)}"
    return f"; did you mean {meant!r}? ({names})" if meant else f"; {names}"


def _option_meant(unknown: str, valid: list[str]) -> str:
    if unknown in ("model", "models"):
        return ": models are positional arguments, as in enable('shop.Book', 'shop.Price')"
    # `exclude` is not an option, but is given in the same way.
    return _suggestion(unknown, [*valid, "exclude"])


def _operations(names: object) -> frozenset[Operation]:
    if isinstance(names, str):
        raise TypeError(f"operations must be a collection, such as [{names!r}], not the string {names!r}")
    try:
        chosen = list(names)  # type: ignore[call-overload]  # this is what is being checked
    except TypeError:
        raise TypeError(f"operations must be a collection of names, not {names!r}") from None
    for name in chosen:
        check_operation(name)
    if not chosen:
        raise ValueError(f"operations is empty; valid are {_listed(sorted(OPERATIONS))}")
    return frozenset(chosen)


def _names(option: str, names: object) -> tuple[str, ...]:
    chosen = None if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if chosen is None or not all(isinstance(name, str) for name in chosen):
        raise TypeError(f"{option} must be a collection of names, such as ['category'], not {names!r}")
    return chosen


def _check_batch_size(name: str, batch_size: object) -> None:
    # True is an int, but is never meant as a number of rows.
    if not isinstance(batch_size, int) or isinstance(batch_size, bool):
        raise TypeError(f"{name} must be a whole number of rows, at least 1, not {batch_size!r}")
    if batch_size < 1:
        raise ValueError(f"{name} must be at least 1, not {batch_size!r}")


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def _check_progress(progress: object) -> None:
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress must be True, False, None or a callable(done, total), not {progress!r}")
    if progress is True:
        _check_tqdm()
    elif callable(progress) and not _takes_two(progress):
        name = getattr(progress, "__qualname__", repr(progress))
        raise TypeError(f"progress must take two arguments, (done, total); {name} does not")


def takes_key(function: Progress) -> bool:
    """Return whether a function can be given `key` by name."""
    try:
        signature(function).bind(0, 0, key=0)
    except (TypeError, ValueError):
        return False
    return True


def _takes_two(function: Progress) -> bool:
    try:
        signature(function).bind(0, 0)
    except ValueError:
        # Functions written in C may have no signature.
        return True
    except TypeError:
        return False
    return True


def _check_tqdm() -> None:
    try:
        import_module("tqdm")
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'django-signal-patch[progress]'") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
