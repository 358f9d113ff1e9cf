"""Does the same work with a loop of saves and with a bulk operation, and shows what receivers did."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals, no_bulk_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.db.models import Model
    from django.dispatch import Signal

    Receive = Callable[..., Any]


@dataclass
class Outcome:
    """What receivers saw, how the work ended, and the rows that it left."""

    seen: list[Any] = field(default_factory=list)
    error: type[BaseException] | None = None
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)

    def of(self) -> tuple[Any, ...]:
        """Return what must not depend on how the work was done."""
        return self.seen, self.error, self.rows


@dataclass
class Work:
    """Rows to be made, receivers of their model, and a change to each of them."""

    make: Callable[[], object]
    sender: type[Model]
    values: Callable[[], dict[str, Any]]
    receivers: Sequence[tuple[Signal, Callable[[list[Any], Any], Any]]]
    tables: Sequence[type[Model]]
    ignored: frozenset[str] = frozenset({"made", "changed", "entry_id"})

    def by_loop(self) -> Outcome:
        return self.by(self._save_each, off=True)

    def by_update(self, **options: Any) -> Outcome:
        return self.by(self.update, **options)

    def update(self) -> None:
        self.sender._base_manager.order_by("pk").update(**self.values())

    def by_bulk_update(self, **options: Any) -> Outcome:
        def update() -> None:
            objs = self.changed()
            self.sender._base_manager.bulk_update(objs, [*self.values()])

        return self.by(update, **options)

    def changed(self) -> list[Any]:
        """Return the objects with their new values, not saved."""
        objs = list(self.sender._base_manager.order_by("pk"))
        for obj in objs:
            for name, value in self.values().items():
                setattr(obj, name, value)
        return objs

    def _save_each(self) -> None:
        with transaction.atomic(savepoint=False):
            for obj in self.changed():
                obj.save(update_fields=[*self.values()])

    def by(self, run: Callable[[], object], *, off: bool = False, **options: Any) -> Outcome:
        """Do the work with this function, and undo it."""
        outcome = Outcome()
        with transaction.atomic(), no_bulk_signals() if off else bulk_signals(**options):
            with no_bulk_signals():
                self.make()
            with self._listening(outcome.seen), CaptureQueriesContext(connection) as queries:
                try:
                    with transaction.atomic():
                        run()
                except Exception as error:  # noqa: BLE001  # to be compared
                    outcome.error = type(error)
            outcome.statements = [query["sql"] for query in queries]
            outcome.rows = {model.__name__: self._rows(model) for model in self.tables}
            transaction.set_rollback(True)
        return outcome

    def _rows(self, model: Any) -> list[tuple[Any, ...]]:
        """Return the rows with keys counted from 1, because databases go on counting after a rollback."""
        columns = [f for f in model._meta.concrete_fields if f not in model._meta.pk_fields]
        names = [f.attname for f in columns if f.attname not in self.ignored]
        found = [_plain(row) for row in model._base_manager.order_by("pk").values_list("pk", *names)]
        if not model._meta.auto_field:
            return found
        return [(row[0] - found[0][0], *row[1:]) for row in found]

    @contextmanager
    def _listening(self, seen: list[Any]) -> Iterator[None]:
        connected = [(signal, _receiver(receive, seen)) for signal, receive in self.receivers]
        for signal, receiver in connected:
            signal.connect(receiver, sender=self.sender, weak=False)
        try:
            yield
        finally:
            for signal, receiver in connected:
                signal.disconnect(receiver, sender=self.sender)


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    # Drivers return bytes as different types, which compare equal.
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)


def _receiver(receive: Callable[[list[Any], Any], Any], seen: list[Any]) -> Receive:
    if iscoroutinefunction(receive):

        async def areceiver(instance: Any, **arguments: Any) -> None:
            await receive(seen, instance)

        return areceiver

    def receiver(instance: Any, **arguments: Any) -> None:
        receive(seen, instance)

    return receiver
