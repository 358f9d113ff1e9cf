"""One example: rows, a queryset, values, receivers and options, as data that can be printed and run twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db.models import Exists

from tests.parity.fields import put
from tests.parity.rows import absent
from tests.parity.typed_models import classes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.models import Model, QuerySet

    from tests.parity.oracle import Oracle


@dataclass(frozen=True, repr=False)
class Step:
    """One call on a queryset."""

    method: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    def __call__(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        result: QuerySet[Any] = getattr(queryset, self.method)(*self.arguments, **self.keywords)
        return result

    def __repr__(self) -> str:
        keywords = [f"{name}={value!r}" for name, value in self.keywords.items()]
        return f".{self.method}({', '.join([*map(repr, self.arguments), *keywords])})"


def step(method: str, *arguments: Any, **keywords: Any) -> Step:
    return Step(method, arguments, keywords)


@dataclass(frozen=True, repr=False)
class Given:
    """A value of the call, with what the oracle must know of it.

    ``crosses``: it reads other rows. ``volatile``: each evaluation gives another value. ``rounds``: the
    column may round it. ``vague``: only the row can tell its Python value.
    """

    value: Any
    crosses: bool = False
    volatile: bool = False
    rounds: bool = False
    vague: bool = False

    def fresh(self) -> Any:
        """Return the value, not shared with another run if it is a mutable constant."""
        return deepcopy(self.value) if isinstance(self.value, (list, dict)) else self.value

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Action:
    """What a receiver does besides recording: at the k-th signal or, if None, at each."""

    kind: str
    signal: str
    name: str = ""
    value: Any = None
    call: int | None = None


@dataclass(frozen=True)
class Hearing:
    """A receiver: its signals, its sender (None means all senders), and what it does."""

    signals: frozenset[str] = frozenset({"pre", "post"})
    sender: type[Model] | None = None
    actions: tuple[Action, ...] = ()

    def hears(self, signal: str, sender: type[Model]) -> bool:
        return signal in self.signals and self.sender in (None, sender)

    @property
    def makes_unique(self) -> bool:
        """Return whether a receiver makes a value unique that the statement would give to all rows."""
        return any(action.kind == "distinguish" and action.signal in self.signals for action in self.actions)

    @property
    def mends(self) -> bool:
        """Return whether a receiver may replace a value that the database refuses, or raise before that."""
        kinds = {action.kind for action in self.actions if action.signal in self.signals}
        # Nothing can be appended to NULL.
        return not kinds.isdisjoint({"set", "append", "nest", "delete_sibling", "raise"})

    def listens(self, model: type[Model]) -> bool:
        """Return whether a receiver may get signals of rows of a model."""
        return self.listens_to(classes_of(model))

    def listens_to(self, senders: Iterable[type[Model]]) -> bool:
        return any(self.hears(signal, sender) for sender in senders for signal in self.signals)


@dataclass(frozen=True, kw_only=True)
class Call(ABC):
    """What all examples have in common."""

    model: type[Model]
    alias: str
    seeds: Sequence[int]
    hearing: Hearing
    batch_size: int = 2000
    write_back: bool = True
    lock: bool = True
    # Whether the inserts and reads of receivers are batched.
    batched: bool = False
    atomic: bool = True
    # Whether the order of the rows is unambiguous.
    total_order: bool = True

    @property
    def loads(self) -> frozenset[str]:
        """Return the relations whose objects the instances come with."""
        return frozenset()

    @property
    def says_nothing(self) -> bool:
        """Return whether the call names no field, so there is nothing to save."""
        return False

    @abstractmethod
    def call(self) -> int:
        """Run the call as the caller does."""
        ...

    @property
    def joins(self) -> bool:
        """Return whether the statement reads more than one table."""
        return False

    @property
    def orders(self) -> bool:
        return False

    @abstractmethod
    def volatile_columns(self) -> set[str]:
        """Return the columns whose values cannot be predicted."""
        ...

    def _columns(self, values: dict[str, Given]) -> set[str]:
        get_field: Callable[[str], Any] = self.model._meta.get_field
        return {get_field(name).attname for name, given in values.items() if given.volatile}


@dataclass(frozen=True, kw_only=True)
class Change(Call):
    """A call that changes existing rows."""

    @abstractmethod
    def loop(self, oracle: Oracle) -> int:
        """Run the call as the oracle does."""
        ...

    @abstractmethod
    def named(self) -> Iterable[tuple[str, Given]]:
        """Return all values of the call with their names."""
        ...

    def given(self) -> Iterable[Given]:
        return (given for _, given in self.named())


@dataclass(frozen=True, kw_only=True)
class Update(Change):
    # The steps: annotations, to which values may refer; what chooses rows; their order; how they are loaded.
    annotations: tuple[Step, ...] = ()
    filters: tuple[Step, ...] = ()
    order: tuple[Step, ...] = ()
    looks: tuple[Step, ...] = ()
    values: dict[str, Given]
    evaluated: bool = False
    # Whether the queryset returns itself as its clone.
    in_place: bool = False

    def plain(self) -> QuerySet[Any]:
        """Return all rows, with the annotations that the values may need."""
        return _chain(self.model._base_manager.using(self.alias), self.annotations)

    def rows(self) -> QuerySet[Any]:
        """Return the rows as the loop sees them, whatever the queryset yields."""
        return _chain(self.plain(), self.filters + self.order)

    @property
    def loads(self) -> frozenset[str]:
        """Return the relations whose objects come with the rows, except those that something changes."""
        looks = [call for call in self.looks if call.method in ("select_related", "prefetch_related")]
        names = {str(name).split("__")[0] for call in looks for name in call.arguments}
        changed = {*self.values, *(action.name for action in self.hearing.actions)}
        return frozenset(names - {name.removesuffix("_id") for name in changed})

    @property
    def says_nothing(self) -> bool:
        return not self.values

    def call(self) -> int:
        queryset = _chain(self.rows(), self.looks)
        if self.in_place:
            queryset.__class__ = type("InPlace", (type(queryset),), {"_clone": lambda itself: itself})
        if self.evaluated:
            len(queryset)
        result = queryset.update(**{name: given.fresh() for name, given in self.values.items()})
        assert queryset._result_cache is None
        return result

    def loop(self, oracle: Oracle) -> int:
        return oracle.update(self.rows(), self.values, self.plain())

    def named(self) -> Iterable[tuple[str, Given]]:
        return self.values.items()

    @property
    def joins(self) -> bool:
        subqueries = [
            argument for call in self.filters for argument in call.arguments if isinstance(argument, Exists)
        ]
        return bool(subqueries) or len(self.rows().query.alias_map) > 1

    @property
    def orders(self) -> bool:
        return bool(self.order)

    def volatile_columns(self) -> set[str]:
        return self._columns(self.values)


@dataclass(frozen=True, kw_only=True)
class BulkUpdate(Change):
    # The caller's values for each object, for the same fields. The last objects may have no row.
    values: tuple[dict[str, Given], ...]
    backwards: bool = False
    without_row: bool = False

    def objects(self) -> list[Any]:
        """Return the caller's objects, with their values."""
        objects = list(self.model._base_manager.using(self.alias).order_by("-pk" if self.backwards else "pk"))
        if self.without_row:
            objects.append(absent(self.model))
        for obj, values in zip(objects, self._each(objects), strict=True):
            for name, given in values.items():
                put(obj, name, given.fresh())
        return objects

    def _each(self, objects: list[Any]) -> list[dict[str, Given]]:
        return [self.values[number % len(self.values)] for number in range(len(objects))]

    def call(self) -> int:
        rows = self.model._base_manager.using(self.alias)
        return rows.bulk_update(self.objects(), list(self.values[0]))

    def loop(self, oracle: Oracle) -> int:
        objects = self.objects()
        return oracle.bulk_update(self.model._base_manager.using(self.alias), objects, self._each(objects))

    def named(self) -> Iterable[tuple[str, Given]]:
        return (item for values in self.values for item in values.items())

    def volatile_columns(self) -> set[str]:
        return set().union(*map(self._columns, self.values))


def _chain(queryset: QuerySet[Any], steps: tuple[Step, ...]) -> QuerySet[Any]:
    for call in steps:
        queryset = call(queryset)
    return queryset
