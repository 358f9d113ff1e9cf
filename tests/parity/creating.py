"""``bulk_create()``: its examples, and the loop that determines the expected outcome.

The loop is the contract's: ``save(force_insert=True)`` for each instance. Each save is split in two, so that
a batch sends all its ``pre_save`` before its first write and all its ``post_save`` after its last. Django's
own ``bulk_create()`` writes rows in conflict, one instance at a time, and the table is read before and after:
a new row was created, an existing one was updated, and an instance with neither was left out.
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.models import FileField
from django.db.models.signals import post_save, pre_save
from hypothesis import reject

from tests.parity.comparison import Allowed, Frozen, Outcome, differing_cells
from tests.parity.fields import put
from tests.parity.oracle import base, outcome, row_of, statement, undone
from tests.parity.receivers import Receivers
from tests.parity.renumbering import renumbered
from tests.parity.rows import fields_of
from tests.parity.scenario import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model, QuerySet


class _Stop(Exception):
    pass


@dataclass(frozen=True, kw_only=True)
class Creation(Call):
    """One call of ``bulk_create()``; ``values`` holds the values of each instance."""

    values: tuple[dict[str, Any], ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    lazily: bool = False

    @property
    def mode(self) -> str:
        modes = [name for name in ("ignore_conflicts", "update_conflicts") if self.arguments.get(name)]
        return modes[0] if modes else "plain"

    def objects(self) -> list[Any]:
        return [self.model(**deepcopy(values)) for values in self.values]

    def rows(self) -> QuerySet[Any]:
        return self.model._base_manager.using(self.alias).all()

    def call(self) -> int:
        objects = self.objects()
        given: Any = iter(objects) if self.lazily else objects
        found = self.rows().bulk_create(given, **self.arguments)
        assert list(map(id, found)) == list(map(id, objects))
        return len(found)

    def known_keys(self) -> set[str]:
        """Return the keys that the database did not generate."""
        loaded = range(1, len(self.seeds) + 1)
        return {*map(str, loaded), *(str(values["id"]) for values in self.values if "id" in values)}

    def volatile_columns(self) -> set[str]:
        return {
            column.attname
            for column in self.model._meta.concrete_fields
            if getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False)
        }


class CreationOracle:
    """Creates the instances of a call one by one."""

    def __init__(self, scenario: Creation) -> None:
        self.scenario = scenario
        self.alias = scenario.alias
        self.rows = base(scenario.rows())
        self.receivers = Receivers(scenario.model, scenario.alias, scenario.hearing, lambda *_: None)
        self.announcing = False
        self.held: dict[int, dict[str, Any]] = {}
        self.written: dict[int, dict[str, Frozen]] = {}

    def run(self) -> int:
        pre_save.connect(self._pre)
        post_save.connect(self._post)
        try:
            for batch in self._batches(self.scenario.objects()):
                self._process(batch)
        finally:
            pre_save.disconnect(self._pre)
            post_save.disconnect(self._post)
        return len(self.scenario.values)

    def _pre(self, sender: type[Model], instance: Model, **arguments: Any) -> None:
        if self.announcing:
            self.receivers.receive("pre", sender, instance, arguments)
            raise _Stop

    def _post(self, sender: type[Model], instance: Model, **arguments: Any) -> None:
        self.held[id(instance)] = arguments

    def _batches(self, objs: list[Any]) -> Iterator[list[Any]]:
        size = self.scenario.batch_size
        if len(objs) > size:
            objs = keyed_first(objs)
        return (objs[start : start + size] for start in range(0, len(objs), size))

    def _process(self, batch: list[Any]) -> None:
        self.announcing = True
        for obj in batch:
            with suppress(_Stop):
                obj.save(force_insert=True, using=self.alias)
        self.announcing = False
        self._write(batch)
        for obj in batch:
            if arguments := self.held.pop(id(obj), None):
                self._report(obj, arguments)

    def _write(self, batch: list[Any]) -> None:
        if self.scenario.mode == "plain":
            for obj in keyed_first(batch):
                obj.save(force_insert=True, using=self.alias)
            return
        with undone(self.alias):
            # The database refuses a whole batch.
            self.rows.bulk_create(list(map(copy, batch)), **self.scenario.arguments)
        for obj in keyed_first(batch):
            self._write_in_conflict(obj)

    def _write_in_conflict(self, obj: Any) -> None:
        rival = self._rival(obj) if self.scenario.mode == "update_conflicts" else None
        before = set(self.rows.values_list("pk", flat=True))
        self.rows.bulk_create([copy(obj)], **self.scenario.arguments)
        created = set(self.rows.values_list("pk", flat=True)) - before
        for key in created or {rival} - {None}:
            row = self.rows.get(pk=key)
            for column in self.scenario.model._meta.concrete_fields:
                if not column.generated and not (created and isinstance(column, FileField)):
                    put(obj, column.attname, getattr(row, column.attname))
            self.written[id(obj)] = fields_of(row)
            obj._state.adding = False
            obj._state.db = self.alias
            arguments = {"created": bool(created), "update_fields": None, "raw": False, "using": self.alias}
            self.held[id(obj)] = {"signal": post_save, **arguments}

    def _rival(self, obj: Any) -> Any:
        """Return the key of the row that selecting and then saving would find."""
        named = self.scenario.arguments.get("unique_fields")
        unique = [f.name for f in self.scenario.model._meta.concrete_fields if f.unique and not f.primary_key]
        for names in [named] if named else [["pk"], *([name] for name in unique)]:
            key = {name: getattr(obj, name) for name in names}
            if None not in key.values() and (row := self.rows.filter(**key).first()):
                return row.pk
        return None

    def _report(self, obj: Any, arguments: dict[str, Any]) -> None:
        # Another instance of the batch may have updated the row since. For a file that is NULL, Django writes
        # '', but does not assign it to the instance.
        own = fields_of(obj)
        files = {column.attname for column in obj._meta.concrete_fields if isinstance(column, FileField)}
        earlier = self.written.pop(id(obj), {}) | {name: own[name] for name in files}
        allowances = {
            name: Allowed((value, earlier.get(name, value)))
            for name, value in row_of(self.rows, obj.pk).items()
        }
        self.receivers.receive("post", type(obj), obj, arguments, allowances)


def keyed_first(objs: list[Any]) -> list[Any]:
    """Return the instances in the order in which Django inserts them."""
    return sorted(objs, key=lambda obj: not obj._is_pk_set())


def expected(scenario: Creation) -> Outcome:
    """Return the expected outcome of the call; examples without a clear answer are dropped."""
    django = statement(scenario)
    if django.error and not isinstance(django.error, DatabaseError):
        return django
    if not scenario.hearing.listens_to(map(type, scenario.objects())):
        return django
    oracle = CreationOracle(scenario)
    found = outcome(scenario, oracle.run, oracle.receivers)
    if scenario.hearing.actions:
        return found
    if bool(django.error) != bool(found.error):
        # On PostgreSQL one statement cannot update a row twice, but two statements can.
        assert scenario.mode == "update_conflicts", f"{django.error!r}, not {found.error!r}"
        reject()
    runs = (renumbered(run, scenario.model, scenario.known_keys()) for run in (django, found))
    unlike = differing_cells(scenario, *runs)
    assert not unlike, f"the oracle differs from Django's statement: {unlike}"
    return found
