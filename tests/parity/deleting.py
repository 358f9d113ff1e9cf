"""``delete()``: its examples, the rows that they leave, and the signals that they must send."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.parity.deletion_models import COMPUTED, CONSTANT, DEFAULT, Bud, Bug, Leaf, Node
from tests.parity.oracle import undone
from tests.parity.receivers import Boom
from tests.parity.rows import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Cells = dict[str, tuple[str, object]]
    Tables = dict[type[Model], dict[Any, Cells]]

SIGNALS = {"pre_save": pre_save, "post_save": post_save, "pre_delete": pre_delete, "post_delete": post_delete}
SAVES = ("pre_save", "post_save")


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """One call of ``delete()``, of a queryset or of an instance, and its receivers.

    ``note`` is what a receiver writes to each instance before it is saved. The receiver of the signal with
    the number ``boom`` raises an exception.
    """

    model: type[Model]
    alias: str
    nodes: Sequence[int]
    leaves: Sequence[int]
    chosen: frozenset[int]
    of_queryset: bool
    signals: frozenset[str]
    sender: type[Model] | None
    batch_size: int
    note: str | None = None
    boom: int | None = None

    def load(self) -> None:
        spare = zip((DEFAULT, CONSTANT, COMPUTED), "xyz", strict=True)
        rows = [Node(pk=key, code=code) for key, code in spare] + list(
            map(self._node, *self._numbered(self.nodes))
        )
        Node.objects.using(self.alias).bulk_create(rows)
        for row in rows:
            # Not every database waits for the row to which another one refers.
            friend = Random(row.code).choice([None, *range(1, len(self.nodes) + 1)])
            Node.objects.using(self.alias).filter(pk=row.pk).update(friend=friend)
        for number, seed in enumerate(self.leaves, 1):
            self._leaf(number, seed)

    def _numbered(self, seeds: Sequence[int]) -> tuple[Iterable[int], Sequence[int]]:
        return range(1, len(seeds) + 1), seeds

    def _node(self, number: int, seed: int) -> Node:
        chance = Random(seed)
        parent = chance.choice([None, *range(1, number)]) if seed else None
        return Node(pk=number, code=f"n{number}", parent_id=parent)

    def _leaf(self, number: int, seed: int) -> None:
        chance = Random(seed)
        nodes = range(1, len(self.nodes) + 1)
        model = Bud if chance.random() < 0.3 else Leaf
        values: dict[str, Any] = {"pk": number, "note": "old", "log": [number]}
        for field in model._meta.concrete_fields:
            if field.remote_field and field.remote_field.model is Node:
                key = chance.choice([None, *nodes, *nodes])
                values[field.attname] = f"n{key}" if key and field.name == "coded" else key
        values["defaulted_id"] = values["defaulted_id"] or DEFAULT
        if chance.random() < 0.6:
            values["removed_id"] = None
        leaf = model(**values)
        if isinstance(leaf, Bud):
            leaf.id = number
        leaf.save(using=self.alias, force_insert=True)
        former = chance.choice([None, *range(1, number + 1)])
        Bug(pk=number, leaf_id=number if seed % 2 else None, former_id=former).save(
            using=self.alias, force_insert=True
        )

    def call(self) -> object:
        rows = self.model._base_manager.using(self.alias).filter(pk__in=self.chosen)
        if self.of_queryset:
            return rows.delete()
        return [(row.delete(), row.pk) for row in rows.order_by("pk")[:1]]


@dataclass(frozen=True)
class Received:
    """One signal as a receiver got it."""

    signal: str
    sender: type[Model]
    key: Any
    arguments: dict[str, Any]
    fields: Cells


@dataclass(frozen=True)
class Run:
    """All that a call leaves behind."""

    result: object
    error: Exception | None
    log: list[Received]
    tables: Tables

    def of(self, *signals: str) -> list[Received]:
        return [seen for seen in self.log if seen.signal in signals]


def run(scenario: Any, models: Sequence[type[Model]], call: Callable[[], object]) -> Run:
    """Run the call, and roll it back."""
    log: list[Received] = []
    result, error = None, None
    try:
        with undone(scenario.alias), _connected(scenario, log):
            result = call()
            tables = tables_of(models, scenario.alias)
    except Boom as caught:
        error, tables = caught, tables_of(models, scenario.alias)
    return Run(result, error, log, tables)


def tables_of(models: Sequence[type[Model]], alias: str) -> Tables:
    return {
        model: {row.pk: fields_of(row) for row in model._base_manager.using(alias).all()} for model in models
    }


@contextmanager
def _connected(scenario: Any, log: list[Received]) -> Iterator[None]:
    receivers = {name: _receiver(scenario, name, log) for name in scenario.signals}
    for name, receive in receivers.items():
        SIGNALS[name].connect(receive, sender=scenario.sender, weak=False)
    try:
        yield
    finally:
        for name, receive in receivers.items():
            SIGNALS[name].disconnect(receive, sender=scenario.sender)


def _receiver(scenario: Any, name: str, log: list[Received]) -> Callable[..., None]:
    def receive(sender: type[Model], instance: Any, **arguments: Any) -> None:
        del arguments["signal"]
        if "origin" in arguments:
            arguments["origin"] = type(arguments["origin"])
        assert type(instance) is sender
        log.append(Received(name, sender, instance.pk, arguments, fields_of(instance)))
        if len(log) == scenario.boom:
            raise Boom(instance.pk)
        if name == "pre_save" and scenario.note and hasattr(instance, "note"):
            instance.note = scenario.note

    return receive


Change = tuple[type[Model], Any, str]


def changes(before: Tables, after: Tables) -> dict[Change, str]:
    """Return the names of the foreign keys that a delete has changed, by model, key and column."""
    return {
        (model, key, field.attname): field.name
        for model, rows in after.items()
        for key, row in rows.items()
        for field in model._meta.local_concrete_fields
        if field.is_relation and row[field.attname] != before[model][key][field.attname]
    }


def differences(scenario: Any, before: Tables, django: Run, seen: Run) -> Iterator[str]:
    """Yield a line for each difference from the signals that must be sent and the rows that must remain."""
    if seen.result != django.result:
        yield f"returned {django.result} expected, {seen.result} found"
    if seen.of("pre_delete", "post_delete") != django.log:
        yield f"deletes {django.log} expected, {seen.of('pre_delete', 'post_delete')} found"
    yield from save_differences(scenario, before, django.tables, seen)


def save_differences(scenario: Any, before: Tables, after: Tables, seen: Run) -> Iterator[str]:
    """Yield what differs in the tables, and in the signals of changed rows."""
    changed = changes(before, after)
    heard = {change for change in changed if scenario.sender in (None, change[0])}
    to_signal = heard if scenario.signals & set(SAVES) else set()
    wanted_tables = _with_notes(scenario, after, to_signal) if "pre_save" in scenario.signals else after
    if seen.tables != wanted_tables:
        yield f"tables {wanted_tables} expected, {seen.tables} found"
    for signal in SAVES:
        due = heard if signal in scenario.signals else set()
        found = [_change_of(received, changed) for received in seen.of(signal)]
        if sorted(map(repr, found)) != sorted(map(repr, due)):
            yield f"{signal} of {due} expected, {found} found"
    for received in seen.of(*SAVES):
        yield from _dishonest(scenario, received, changed, before, wanted_tables)
    yield from _misplaced([received.signal for received in seen.log])
    if scenario.signals >= set(SAVES):
        yield from _unannounced(seen.of(*SAVES))


def _with_notes(scenario: Any, after: Tables, to_signal: set[Change]) -> Tables:
    if not scenario.note:
        return after
    keys = {(owner, key) for model, key, _ in to_signal for owner in (model, *model._meta.all_parents)}
    keys |= {
        (model, key)
        for model in after
        for parent in model._meta.all_parents
        for key in after[model]
        if (parent, key) in keys
    }
    note = ("str", repr(scenario.note))
    return {
        model: {
            key: {**row, "note": note} if (model, key) in keys and "note" in row else row
            for key, row in rows.items()
        }
        for model, rows in after.items()
    }


def _change_of(seen: Received, changed: dict[Change, str]) -> Change | tuple[Any, ...]:
    names = seen.arguments["update_fields"]
    for change, name in changed.items():
        if change[:2] == (seen.sender, seen.key) and name in names:
            return change
    return seen.sender, seen.key, names


def _dishonest(
    scenario: Any, seen: Received, changed: dict[Change, str], before: Tables, after: Tables
) -> Iterator[str]:
    change = _change_of(seen, changed)
    if change not in changed:
        return
    fixed = {
        "using": scenario.alias,
        "raw": False,
        **({"created": False} if seen.signal == "post_save" else {}),
    }
    names = seen.arguments["update_fields"]
    noted = {"note"} if scenario.note and seen.signal == "post_save" else set()
    if {**seen.arguments, "update_fields": None} != {**fixed, "update_fields": None}:
        yield f"{seen}: {fixed} expected"
    if type(names) is not frozenset or not {changed[change]} <= names <= {changed[change], *noted}:
        yield f"{seen}: {changed[change]} expected"
    old, new = before[seen.sender][seen.key], after[seen.sender][seen.key]
    for name, value in seen.fields.items():
        allowed = {repr(new[name])} if name == change[2] else {repr(old[name]), repr(new[name])}
        if repr(value) not in allowed:
            yield f"{seen}: {name}={allowed} expected"
    if seen.fields.keys() != new.keys():
        yield f"{seen}: not whole"


def _misplaced(names: list[str]) -> Iterator[str]:
    """Yield changes that do not come after all ``pre_delete`` and before the first ``post_delete``."""
    rounds = {"pre_delete": 0, "pre_save": 1, "post_save": 1, "post_delete": 2}
    order = [rounds[name] for name in names]
    if order != sorted(order):
        yield f"another order expected than {names}"


def _unannounced(saves: list[Received]) -> Iterator[str]:
    """Yield each ``post_save`` without a ``pre_save`` before it."""
    announced: Counter[tuple[type[Model], Any]] = Counter()
    for seen in saves:
        announced[seen.sender, seen.key] += 1 if seen.signal == "pre_save" else -1
        if announced[seen.sender, seen.key] < 0:
            yield f"{seen}: pre_save expected before"
