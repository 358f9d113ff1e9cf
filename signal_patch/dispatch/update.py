"""`QuerySet.update()`, as the loop of `save()`s would tell it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import QuerySet, Value
from django.db.models.lookups import Exact
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import Query

from signal_patch.dispatch import backends, transactions
from signal_patch.dispatch.progress import reporting
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import fields_of, is_part
from signal_patch.dispatch.rows.selection import Selection
from signal_patch.dispatch.signals import in_flight, loops, rounds, sending
from signal_patch.dispatch.telling import Teller
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.plan import Plan, is_void, plan_values
from signal_patch.dispatch.writing import returning, updating
from signal_patch.dispatch.writing.rehearsal import rehearse

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.dispatch.rows.selection import Batch
    from signal_patch.options import Options

    ModelField = Field[Any, Any]


def update(
    queryset: QuerySet[Any],
    values: dict[str, Any],
    options: Options,
    original: Callable[..., int],
) -> int:
    """Update the rows of a queryset and send their signals.

    `original` is Django's own `update()`, unbound; it writes, and it alone where nobody
    listens. Returns the number of rows matched. Raises what it raises, before any signal,
    and whatever a receiver raises, with no row changed.
    """
    senders = sending.senders(queryset)
    if not values or queryset.query.is_empty() or not sending.hears_saves(senders):
        return original(queryset, **values)
    # With no row to touch, Django's statement checks all_rows and executes nothing.
    original(querysets.none(queryset), **values)
    using = querysets.database_for_write(queryset)
    if is_void(queryset, values, using):
        return original(queryset, **values)
    rounds.check(options, senders)
    with transaction.atomic(using=using, savepoint=False):
        transactions.begin_write(using, transactions.UPDATE, columns.first_written(queryset.model, values))
        operation = _Update(queryset, senders, values, using, options, original)
        matched = loops.run(operation.run, (pre_save, post_save), senders)
    queryset._result_cache = None
    return matched


class _Update:
    def __init__(
        self,
        queryset: QuerySet[Any],
        senders: list[type[Model]],
        values: dict[str, Any],
        using: str,
        options: Options,
        original: Callable[..., int],
    ) -> None:
        self.queryset = queryset
        self.senders = senders
        self.values = values
        self.using = using
        self.options = options
        self.original = original
        self.model = queryset.model
        self.connection = connections[using]
        self.plan = self._plan()
        # By key, once it is known.
        self.rehearsed: dict[Any, tuple[Any, ...]] | None = None
        self.writer = updating.writer_of(queryset, using)
        self.teller = Teller(senders, using, options, self.plan.update_fields, self.plan.written)
        self.returning_fields = self._returning_fields(senders) if self.teller.hears_post_save else []

    def _plan(self) -> Plan:
        pre_save_heard = sending.is_heard(pre_save, self.senders)
        return plan_values(
            self.queryset, self.values, self.using, self.connection, pre_save_heard=pre_save_heard
        )

    def _returning_fields(self, senders: list[type[Model]]) -> list[ModelField]:
        """Return the fields that the statement itself can tell, as it has written them."""
        if senders != [self.model] or self._writes_key() or self.plan.mistyped:
            return []
        returning_fields = [*self.plan.refresh_fields, *columns.generated_from(self.model, self.plan.written)]
        return (
            returning_fields if returning.is_possible(self.model, returning_fields, self.connection) else []
        )

    def _writes_key(self) -> bool:
        return any(is_part(self.model, field) for field in self.plan.written)

    def run(self) -> int:
        selection = Selection(
            self.queryset,
            self.using,
            self.options,
            self.plan.previews,
            self.plan.precomputed,
            self._replaced(),
        )
        if self._may_be_refused():
            self._update_nothing()
        matched = done = 0
        with reporting(self.options, self.model._meta.label) as report:
            for batch in selection.batches():
                if self.plan.to_rehearse and batch.keys:
                    self._bring_rehearsed(batch, selection)
                if batch.keys:
                    matched += self._process(batch)
                done += len(batch.keys)
                report(done, selection.total)
                # The next one is loaded when this one is gone.
                del batch
                self._ask_again_who_listens(selection)
        if not selection.total:
            return self._update_nothing()
        return matched

    def _bring_rehearsed(self, batch: Batch, selection: Selection) -> None:
        """Give a batch what Django's statement makes of its rows where it reads what it has assigned."""
        if self.rehearsed is None:
            self.rehearsed = rehearse(
                lambda: self.original(querysets.copied(self.queryset), **self.values),
                self.model,
                self.using,
                selection.keys,
                [*self.plan.to_rehearse.values()],
                self.plan.new_keys,
                lambda: self.original(querysets.copied(self.queryset), **self.plan.before_key(self.values)),
            )
            if not self.rehearsed.keys() >= set(selection.keys):
                self.rehearsed = {}
            self._take_rehearsed()
        if self.rehearsed:
            batch.precomputed = {
                key: (*batch.precomputed.get(key, ()), *self.rehearsed[key]) for key in batch.keys
            }

    def _take_rehearsed(self) -> None:
        if self.rehearsed:
            self.plan.take_rehearsed(is_locked=self.options.lock)

    def _ask_again_who_listens(self, selection: Selection) -> None:
        # A receiver may have connected one that is to see the next values before they are written.
        if not self.plan.pre_save_heard and sending.is_heard(pre_save, self.senders):
            self.plan = self._plan()
            self._take_rehearsed()
            selection.previews = self.plan.previews

    def _replaced(self) -> list[str]:
        kept = {*fields_of(self.model), *self.plan.mistyped}
        if not self.returning_fields:
            # Where the statement does not tell which rows it has written, the old values may.
            kept.update(self.plan.unassigned)
        return [field.name for field in self.plan.written if field not in kept]

    def _may_be_refused(self) -> bool:
        """Return whether the database may refuse Django's statement where it takes our SELECTs.

        Windows, aggregates, other tables, the caller's locks, a column that is assigned twice, an
        expression of another type than its column's, and what a query of another class than Django's adds.
        """
        query = self.queryset.query
        return bool(
            query.where.contains_over_clause
            or query.where.contains_aggregate
            or query.extra_tables
            or query.select_for_update
            or (self.plan.mistyped and backends.of(self.connection).refuses_other_types())
            or type(query) is not Query
            or len(self.plan.update_fields) < len(self.values)
        )

    def _update_nothing(self) -> int:
        """Run Django's statement where the rows were looked for and none was found.

        What only the database refuses, it refuses here. A row that another transaction has
        just made must not be changed in silence, hence the condition.
        """
        nowhere = QuerySet.filter(querysets.copied(self.queryset), Exact(Value(1), Value(0)))
        with in_flight.silence(self.model):
            return self.original(nowhere, **self.values)

    def _process(self, batch: Batch) -> int:
        by_class = self._keys_by_class(batch)
        already_in_flight = in_flight.keys_in_flight_of(self.using, by_class)
        flight = in_flight.flight_of(self.using, by_class)
        with in_flight.flying(flight):
            pairs = list(zip(batch.keys, batch.instances, strict=True))
            self.plan.assign(batch, self.connection)
            self._add_new_keys(flight, batch)
            to_signal = (
                [pair for pair in pairs if pair[0] not in already_in_flight] if already_in_flight else pairs
            )
            changes = self.teller.before(to_signal)
            matched, stored = updating.write(
                batch, self.plan, changes, self.writer, self.original, self.returning_fields
            )
            if stored is None:
                told = self.teller.settle(
                    to_signal,
                    changes,
                    self.plan.refresh_fields,
                    missing=len(pairs) - matched,
                    unassigned=self.plan.unassigned,
                )
            else:
                told = self.teller.settle_by(stored, to_signal, self.returning_fields)
            return matched - self.teller.after(told, flight)

    def _keys_by_class(self, batch: Batch) -> dict[type[Model], list[Any]]:
        if self.senders == [self.model]:
            return {self.model: batch.keys}
        return in_flight.keys_by_class(self.model, batch.keys, batch.instances)

    def _add_new_keys(self, flight: in_flight.Flight, batch: Batch) -> None:
        if self._writes_key():
            keys = flight.keys[self.model._meta.concrete_model]
            keys.update(instance.pk for instance in batch.instances)
