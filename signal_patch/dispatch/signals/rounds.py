"""Rounds: one signal, sent for all instances of one batch.

A round opens and closes the features that make receivers fast (`receivers/`). Only this module knows them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.db.models import prefetch_related_objects
from django.db.models.signals import ModelSignal, post_delete, pre_delete

from signal_patch.dispatch.signals import in_flight, sending

if TYPE_CHECKING:
    from django.db.models import Model

    from signal_patch.options import Options
    from signal_patch.receivers.batch_inserts import HeldRows
    from signal_patch.receivers.batch_reads import BatchReads

    Arguments = dict[str, Any]


class ListReceiver(ABC):
    """A receiver that gets the instances of a round in one list, at the end of the round."""

    @abstractmethod
    def receive(self, arguments: Arguments) -> None:
        """Take the instances of a round, with the other arguments of its signal."""

    def is_collected(self, arguments: Arguments) -> bool:
        """Return whether the round keeps this signal's instance for a list.

        A row that is saved or deleted individually in the middle of a round is in a flight of its own,
        without a round.
        """
        flight = in_flight.innermost_flight()
        if flight is None or flight.round is None:
            return False
        return flight.round.collect(self, arguments)


class Round:
    """What one round collects: lists for receivers, and rows to insert at its end.

    Senders in `without` get no lists, because a delete may cascade to models that are not on.
    """

    def __init__(self, without: Collection[type[Model]] = ()) -> None:
        self.without = without
        self.lists: list[tuple[ListReceiver, Arguments, list[Model]]] = []
        self.held: HeldRows | None = None

    def collect(self, receiver: ListReceiver, arguments: Arguments) -> bool:
        """Keep the instance for the receiver; return False if its sender gets no lists."""
        if arguments["sender"] in self.without:
            return False
        others = dict(arguments)
        instance = others.pop("instance")
        self._instances(receiver, others).append(instance)
        return True

    def _instances(self, receiver: ListReceiver, arguments: Arguments) -> list[Model]:
        for known, others, instances in self.lists:
            if known is receiver and others == arguments:
                return instances
        self.lists.append((receiver, arguments, []))
        return self.lists[-1][-1]

    def finish(self) -> None:
        """Call the receivers with what was collected, and insert what receivers have saved."""
        lists, self.lists = self.lists, []
        for receiver, arguments, instances in lists:
            receiver.receive({"instances": instances, **arguments})
        if self.held is not None:
            self.held.write()


def has_list_receivers(signal: ModelSignal, senders: Iterable[type[Model]]) -> bool:
    """Return whether a receiver of the signal wants lists."""
    return any(
        isinstance(receiver, ListReceiver)
        for sender in senders
        for receivers in sending.receivers_of(signal, sender)
        for receiver in receivers
    )


def check(options: Options, senders: Iterable[type[Model]]) -> None:
    """Raise an error if the options do not fit these models, before the operation begins."""
    if options.prefetch:
        from signal_patch.receivers import prefetching

        for sender in senders:
            prefetching.check(sender, options.prefetch)


class Rounds:
    """The rounds of one operation, which its options open and close."""

    def __init__(self, using: str, options: Options, senders: Collection[type[Model]]) -> None:
        self.using = using
        self.options = options
        self.senders = senders
        self.is_needed = bool(options.batch_inserts or options.batch_reads)

    def begin_batch(self, instances: Iterable[Model]) -> None:
        """Load the related objects that `prefetch` names, before the first signal of the batch."""
        if self.options.prefetch:
            prefetch_related_objects(list(instances), *self.options.prefetch)

    def begin_batch_of_new(self, instances: list[Model]) -> None:
        """Load, before the first signal, what can be loaded for instances whose rows do not exist yet."""
        if self.options.prefetch:
            from signal_patch.receivers import prefetching

            prefetching.load_before_insert(instances, self.options.prefetch)

    def continue_batch_of_new(self, instances: Iterable[Any]) -> None:
        """Load the rest, before the first `post_save`. What is loaded already takes no statement."""
        if self.options.prefetch:
            # Where the database does not tell the key of a new row, nothing can refer to the instance.
            prefetch_related_objects(
                [instance for instance in instances if instance._is_pk_set()], *self.options.prefetch
            )

    def open(self, signal: ModelSignal) -> AbstractContextManager[None]:
        """Open a round; the signal is sent inside the block, for the rows in flight."""
        if self.is_needed or has_list_receivers(signal, self.senders):
            return self._opened(Round())
        return nullcontext()

    def open_delete(self, collector: Any) -> AbstractContextManager[None]:
        """Open the rounds of a delete; `Collector.delete()` runs inside the block."""
        signals = (pre_delete, post_delete)
        if self.is_needed or any(has_list_receivers(signal, self.senders) for signal in signals):
            round_ = Round(without=collector.data.keys() - self.senders)
            _divide(collector, round_.finish)
            return self._opened(round_)
        return nullcontext()

    @contextmanager
    def _opened(self, round_: Round) -> Iterator[None]:
        flight: Any = in_flight.innermost_flight()
        with ExitStack() as stack:
            if self.options.batch_reads:
                stack.enter_context(self._reads.answering(flight.keys))
            if self.options.batch_inserts:
                from signal_patch.receivers import batch_inserts

                round_.held = stack.enter_context(
                    batch_inserts.holding(self.options.batch_inserts, self.using)
                )
            flight.round = round_
            try:
                yield
                round_.finish()
            finally:
                flight.round = None

    @cached_property
    def _reads(self) -> BatchReads:
        from signal_patch.receivers import batch_reads

        return batch_reads.BatchReads(self.using)


def _divide(collector: Any, finish: Callable[[], None]) -> None:
    """Finish a round whenever Collector.delete() has sent one kind of signal for one model."""

    def after_pre_delete() -> None:
        finish()
        for model, rows in collector.data.items():
            collector.data[model] = Rows(rows, finish)

    collector.fast_deletes.insert(0, FirstFastDelete(after_pre_delete))


class FirstFastDelete:
    """The first of the fast deletes, which Django executes after sending `pre_delete` (Django 5.2 to 6.1)."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run

    def _raw_delete(self, **_: str) -> int:
        self.run()
        return 0


class Rows(list[Any]):
    """The rows of a model in `Collector.data`; calls a function at the end of each iteration.

    Collector.delete() iterates over them to send `post_delete`, and then deletes the rows of the next model
    (Django 5.2 to 6.1).
    """

    def __init__(self, rows: Iterable[Model], after: Callable[[], None]) -> None:
        super().__init__(rows)
        self.after = after

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        self.after()
