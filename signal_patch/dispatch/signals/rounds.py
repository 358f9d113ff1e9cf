"""Rounds: one signal, sent for all instances of one batch.

A round opens and closes what makes receivers fast. Operations know nothing of it but this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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
        """Return whether the instance that a signal was sent for comes in a list later on.

        A row that is saved or deleted by itself, in the middle of a round, is in flight by itself, too.
        """
        flight = in_flight.innermost_flight()
        if flight is None or flight.round is None:
            return False
        return flight.round.collect(self, arguments)


class Round:
    """What the list receivers of one round are to get, and the rows that are inserted at its end.

    `without` are senders whose instances come in no list: a delete may cascade models that are not on.
    """

    def __init__(self, without: Collection[type[Model]] = ()) -> None:
        self.without = without
        self.lists: list[tuple[ListReceiver, Arguments, list[Model]]] = []
        self.held: HeldRows | None = None

    def collect(self, receiver: ListReceiver, arguments: Arguments) -> bool:
        """Keep the instance for the receiver, or return False if its sender's come in no list."""
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
    """Raise what is wrong with the options of an operation on these models, before it begins."""
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
        self.reads: BatchReads | None = None

    def begin_batch(self, instances: Iterable[Model]) -> None:
        """Load what the receivers of a batch will ask for, before its first signal."""
        if self.options.prefetch:
            prefetch_related_objects(list(instances), *self.options.prefetch)

    def open(self, signal: ModelSignal) -> AbstractContextManager[None]:
        """Open the round of a signal, which is sent inside the block for the rows that are in flight."""
        if self.is_needed or has_list_receivers(signal, self.senders):
            return self._opened(Round())
        return nullcontext()

    def open_delete(self, collector: Any) -> AbstractContextManager[None]:
        """Open the rounds of a delete of the senders' rows: `Collector.delete()` runs inside the block."""
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
                stack.enter_context(self._reads().answering(flight.keys))
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

    def _reads(self) -> BatchReads:
        if self.reads is None:
            from signal_patch.receivers import batch_reads

            self.reads = batch_reads.BatchReads(self.using)
        return self.reads


def _divide(collector: Any, finish: Callable[[], None]) -> None:
    """Have rounds finished when Collector.delete() has sent the signals of one kind and one model."""

    def after_pre_delete() -> None:
        finish()
        for model, rows in collector.data.items():
            collector.data[model] = Rows(rows, finish)

    collector.fast_deletes.insert(0, FirstFastDelete(after_pre_delete))


class FirstFastDelete:
    """Stands first among the fast deletes, to which Django comes when `pre_delete` is sent (5.2 to 6.1)."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run

    def _raw_delete(self, **_: str) -> int:
        self.run()
        return 0


class Rows(list[Any]):
    """The rows of a model in `Collector.data`.

    Collector.delete() goes through them to send `post_delete`, and deletes the next model's rows then
    (Django 5.2 to 6.1).
    """

    def __init__(self, rows: Iterable[Model], after: Callable[[], None]) -> None:
        super().__init__(rows)
        self.after = after

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        self.after()
