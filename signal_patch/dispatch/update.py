"""`QuerySet.update()`, with the signals that a loop of `save()` sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from django.db.models import QuerySet
from django.db.models.signals import pre_save

from signal_patch.dispatch import commits, transactions
from signal_patch.dispatch.operation import BulkSave
from signal_patch.dispatch.progress import PartOfReport, Report, current_report
from signal_patch.dispatch.rows import querysets
from signal_patch.dispatch.rows.keys import fields_of, is_part
from signal_patch.dispatch.rows.ranges import between, refusals, refusals_of_values
from signal_patch.dispatch.rows.selection import Batch, Selection
from signal_patch.dispatch.signals import in_flight, rounds, sending
from signal_patch.dispatch.values import columns
from signal_patch.dispatch.values.plan import (
    Plan,
    Planner,
    chooses_by_tables,
    is_void,
    may_be_refused,
    may_read_itself,
    value_reads_other_rows,
)
from signal_patch.dispatch.values.tracking import Changes
from signal_patch.dispatch.writing import updating
from signal_patch.dispatch.writing.refresh import Written
from signal_patch.dispatch.writing.rehearsal import rehearse, try_out

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from signal_patch.options import Options

    ModelField = Field[Any, Any]


def update(
    queryset: QuerySet[Any],
    values: dict[str, Any],
    options: Options,
    original: Callable[..., int],
) -> int:
    """Update the rows of a queryset and send their signals.

    `original` is Django's own `update()`, unbound. It does the writing; without receivers, nothing else runs.
    Returns the number of rows matched. Raises what `original` raises, before any signal, and what a receiver
    raises, with no row changed.
    """
    senders = sending.senders(queryset)
    if not values or queryset.query.is_empty() or not sending.has_save_receivers(senders):
        return original(queryset, **values)
    # On an empty queryset, Django's method checks everything and executes nothing.
    original(querysets.empty(queryset), **values)
    using = querysets.database_for_write(queryset)
    if is_void(queryset, values, using):
        return original(queryset, **values)
    rounds.check(options, senders)
    if commits.are_asked_for(options, using):
        matched = _update_in_transactions(queryset, values, using, senders, options, original)
    else:
        matched = Update(queryset, using, senders, options, original, values).execute()
    queryset._result_cache = None
    return matched


def _update_in_transactions(
    queryset: QuerySet[Any],
    values: dict[str, Any],
    using: str,
    senders: list[type[Model]],
    options: Options,
    original: Callable[..., int],
) -> int:
    """Update the rows batch by batch, each in a transaction of its own."""
    commits.refuse(queryset, "update", [*refusals(queryset), *refusals_of_values(queryset, values)])
    matched = 0

    def update_batch(keys: list[Any], after: Any) -> int:
        nonlocal matched
        rows = between(queryset, after, keys[-1]) if keys else querysets.matching_nothing(queryset)
        batch = UpdateOfBatch(rows, using, senders, options, original, values)
        matched += batch.execute()
        return batch.total

    field = columns.first_written(queryset.model, values)
    batches = commits.Batches("update", queryset, using, options, transactions.UPDATE, field)
    batches.run(update_batch, options.batch_size)
    return matched


@dataclass(eq=False, repr=False)
class Update(BulkSave[Batch]):
    """The update of a queryset's rows with the same values for all."""

    name = "update"
    values: dict[str, Any]

    def begin(self) -> None:
        self.begin_write()
        self.plan = self._plan()
        # The rehearsed values by key, once they are known.
        self.rehearsed: dict[Any, tuple[Any, ...]] | None = None
        self.fields, self.update_fields = self.plan.written, self.plan.update_fields
        self.writer = updating.writer_of(self.queryset, self.using)
        self.selection = Selection(
            self.queryset,
            self.using,
            self.options,
            self.plan.previews,
            self.plan.precomputed,
            self._replaced(),
        )

    def begin_write(self) -> None:
        field = columns.first_written(self.model, self.values)
        transactions.begin_write(self.using, transactions.UPDATE, field)

    def _plan(self) -> Plan:
        pre_save_heard = sending.has_receivers(pre_save, self.senders)
        return Planner(self.queryset, self.values, self.using, pre_save_heard=pre_save_heard).plan()

    def _replaced(self) -> list[str]:
        """Return the names of the fields whose old values nobody needs."""
        # Comparing the rows with the old values of unassigned fields may show which rows were written.
        kept = {*fields_of(self.model), *self.plan.mistyped, *self.plan.unassigned}
        return [field.name for field in self.fields if field not in kept]

    def run(self) -> int:
        if self.plan.reads_joined_table:
            return self._run_without_effect(querysets.copied(self.queryset))
        if may_be_refused(self.plan, self.queryset, self.values, self.connection):
            self._update_nothing()
        matched = super().run()
        return matched if self.total else self._update_nothing()

    def _update_nothing(self) -> int:
        """Run Django's statement with a condition that no row meets.

        The database then refuses what only the database can refuse. Because of the condition, a row that
        another transaction has just inserted is not changed without its signals.
        """
        return self._run_without_effect(querysets.matching_nothing(self.queryset))

    def _run_without_effect(self, queryset: QuerySet[Any]) -> int:
        """Run Django's statement where no row meets its condition, or the database refuses it."""
        with in_flight.silence(self.model):
            matched: int = self.original(queryset, **self.values)
        return matched

    def batches(self) -> Iterator[Batch]:
        needs_try = may_read_itself(self.plan, self.queryset, self.connection)
        for batch in self.selection.batches():
            if self.plan.to_rehearse and batch.keys:
                self._add_rehearsed(batch)
            elif needs_try and batch.keys:
                self._try_out(batch.keys[0])
                needs_try = False
            yield batch
            # Free this batch before the next one is loaded.
            del batch
            # A receiver may have connected another one to `pre_save`, which must see the next values before
            # they are written.
            if not self.plan.pre_save_heard and sending.has_receivers(pre_save, self.senders):
                self.plan = self._plan()
                self._use_rehearsed()
                self.selection.previews = self.plan.previews

    def _try_out(self, key: Any) -> None:
        row = querysets.with_keys(self.queryset, [key])
        try_out(lambda: self.original(row, **self.values), self.model, self.using)

    def _add_rehearsed(self, batch: Batch) -> None:
        """Add to a batch what a rehearsal gives for expressions that read columns assigned before them."""
        keys = self.selection.keys
        if self.rehearsed is None:
            self.rehearsed = rehearse(
                lambda: self.original(querysets.copied(self.queryset), **self.values),
                self.model,
                self.using,
                keys,
                [*self.plan.to_rehearse.values()],
                self.plan.new_keys,
                self._assign_before_key,
            )
            if not self.rehearsed.keys() >= set(keys):
                self.rehearsed = {}
            self._use_rehearsed()
        if self.rehearsed:
            batch.precomputed = {
                key: (*batch.precomputed.get(key, ()), *self.rehearsed[key]) for key in batch.keys
            }

    def _assign_before_key(self) -> None:
        values = self.plan.before_key(self.values)
        # Without values, Django would send MariaDB an ORDER BY alone (5.2 to 6.1).
        if values:
            self.original(querysets.copied(self.queryset), **values)

    def _use_rehearsed(self) -> None:
        if self.rehearsed:
            self.plan.use_rehearsed(writes_values=self.options.lock or self._may_read_its_table())

    def _may_read_its_table(self) -> bool:
        """Return whether Django's statement may read the table that it writes.

        Its expressions then read the old row, while those in the statement of a batch would read what that
        has assigned before them. Where it does not, expressions are written without locks, so that a change
        by another transaction in the meantime is not undone.
        """
        return chooses_by_tables(self.queryset) or any(
            value_reads_other_rows(value, self.queryset, self.model._meta.get_field(name))
            for name, value in self.values.items()
        )

    @property
    def total(self) -> int:
        return len(self.selection.keys)

    def assign(self, batch: Batch) -> None:
        self.plan.assign(batch, self.connection)
        if any(is_part(self.model, field) for field in self.fields):
            keys = self.flight.keys[self.model._meta.concrete_model]
            keys.update(instance.pk for instance in batch.instances)

    def write(self, batch: Batch, changes: dict[Any, Changes]) -> Written:
        matched = updating.Writer(batch, self.plan, changes, self.writer, self.original).write()
        return Written(
            matched,
            changes,
            missing=len(batch.keys) - matched,
            refresh_fields=self.plan.refresh_fields,
            unassigned=self.plan.unassigned,
        )


class UpdateOfBatch(Update):
    """The update of one of the batches that are committed one by one."""

    def begin_write(self) -> None:
        # The rows of the batch have been chosen since.
        pass

    def reporting(self) -> AbstractContextManager[Report]:
        return nullcontext(PartOfReport(cast("Report", current_report(self.name, self.model))))
