"""The same work in plain Django, with the switch on, and as a loop, and what a package records of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.dispatch import Signal

from signal_patch import bulk_signals

ROWS = 5


@dataclass(frozen=True)
class Claim:
    """A statement about a package, and whether it was true."""

    text: str
    got: object
    expected: object

    @property
    def holds(self) -> bool:
        return self.got == self.expected

    def __str__(self) -> str:
        if self.holds:
            return f"  {self.text}"
        return f"  NOT SO: {self.text}\n    got:      {self.got!r}\n    expected: {self.expected!r}"


@dataclass(frozen=True)
class Work:
    """Rows of a model, what is done to them, and what a package records of that."""

    model: Any
    # Makes this many unsaved instances, with keys.
    new: Callable[[int], list[Any]]
    values: dict[str, Any]
    # What `values` means to one instance.
    change: Callable[[Any], object]
    records: Callable[[], Sequence[object]]
    # The package's own, which are emptied before each.
    tables: Iterable[Any] = ()

    def operations(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """Return the bulk operations by their names, each with its loop."""
        return {
            "update()": (lambda: self.rows().update(**self.values), self.save_each),
            "bulk_update()": (self.bulk_update, self.save_each),
            "bulk_create()": (
                lambda: self.model._default_manager.bulk_create(self.new(2 * ROWS)[ROWS:]),
                lambda: [row.save(force_insert=True) for row in self.new(2 * ROWS)[ROWS:]],
            ),
            "delete()": (lambda: self.rows().delete(), lambda: [row.delete() for row in self.rows()]),
        }

    def rows(self) -> Any:
        return self.model._default_manager.order_by("pk")

    def changed(self) -> list[Any]:
        found = list(self.rows())
        for row in found:
            self.change(row)
        return found

    def save_each(self) -> None:
        for row in self.changed():
            row.save(update_fields=[*self.values])

    def bulk_update(self) -> None:
        self.model._default_manager.bulk_update(self.changed(), [*self.values])

    def recorded(self, operate: Callable[[], object]) -> list[object]:
        empty(self.model)
        self.model._default_manager.bulk_create(self.new(ROWS))
        for table in self.tables:
            empty(table)
        operate()
        return [*self.records()]

    def compare(self, *names: str, **options: Any) -> Iterator[Claim]:
        """Claim for each operation that the package records the same with the switch on as for the loop.

        With options, claim the same with these.
        """
        for name, (bulk, loop) in self.operations().items():
            if names and name not in names:
                continue
            off = self.recorded(bulk)
            on = self.recorded(bulk_signals()(bulk))
            by_loop = self.recorded(loop)
            yield Claim(
                f"{name:<14} records: {len(off)} off, {len(on)} on, {len(by_loop)} of the loop", on, by_loop
            )
            if options:
                with_them = self.recorded(bulk_signals(**options)(bulk))
                yield Claim(f"{name:<14} the same with {', '.join(options)}", with_them, by_loop)
            # Two ways that both record nothing are also equal.
            if not by_loop:
                yield Claim(f"{name} has something to record", 0, ROWS)


def empty(model: Any) -> None:
    rows = model._base_manager.all()
    rows._raw_delete(rows.db)


class Heard:
    """What receivers noted of each instance, in order; given and forgotten when it is called."""

    def __init__(self, note: Callable[[Any], object], *signals: Signal, sender: Any = None) -> None:
        self._note = note
        self._noted: list[object] = []
        for signal in signals:
            signal.connect(self._receive, sender=sender, weak=False)

    def _receive(self, instance: Any, **arguments: Any) -> None:
        self._noted.append(self._note(instance))

    def __call__(self) -> list[object]:
        noted, self._noted = self._noted, []
        return noted
