"""``delete()`` if the database itself removes and changes rows.

A run of Django alone shows which rows remain. Signals must be sent for the rows that it removes or changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.db import connection
from hypothesis import given

from tests.parity.deleting import SIGNALS, Deletion, Run, run, save_differences, tables_of
from tests.parity.oracle import undone
from tests.parity.profiles import share
from tests.parity.test_delete import DELETES, deletions, switched_on, with_argument, with_received

if django.VERSION < (6, 1):
    pytest.skip("DB_CASCADE, DB_SET_NULL and DB_SET_DEFAULT came with Django 6.1", allow_module_level=True)

from tests.parity.database_deletion_models import SPARE, Branch, Sprout, Trunk, Twig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from tests.parity.deleting import Tables

pytestmark = pytest.mark.django_db(databases=["default", "other"])
MODELS: tuple[type[Model], ...] = (Trunk, Branch, Twig)
if connection.features.supports_on_delete_db_default:
    MODELS += (Sprout,)
# The models whose rows are removed along with a model's rows, directly or further down.
GOING: dict[type[Model], set[type[Model]]] = {Trunk: {Branch, Twig}, Branch: {Branch, Twig}}


@dataclass(frozen=True, kw_only=True)
class DatabaseDeletion(Deletion):
    def load(self) -> None:
        keys = range(1, len(self.nodes) + 1)
        for key in (*keys, SPARE):
            Trunk(pk=key).save(using=self.alias, force_insert=True)
        for key, seed in enumerate(self.nodes, 1):
            chance = Random(seed)
            trunk, parent = chance.choice([None, *keys]), chance.choice([None, *range(1, key)])
            Branch(pk=key, trunk_id=trunk, parent_id=parent).save(using=self.alias, force_insert=True)
        for key, seed in enumerate(self.leaves, 1):
            self._leaf(key, seed)

    def _leaf(self, key: int, seed: int) -> None:
        chance, keys = Random(seed), range(1, len(self.nodes) + 1)
        columns = {name: chance.choice([None, *keys]) for name in ("branch_id", "former_id", "trunk_id")}
        Twig(pk=key, **columns).save(using=self.alias, force_insert=True)
        if Sprout in MODELS:
            Sprout(pk=key, trunk_id=chance.choice(keys)).save(using=self.alias, force_insert=True)

    def has_delete_receivers(self, model: type[Model]) -> bool:
        return bool(self.signals & DELETES) and self.sender in (None, model)

    def looks_up(self, model: type[Model]) -> bool:
        """Return whether rows that the database would remove have receivers, or lead to rows that have."""
        return any(map(self.has_delete_receivers, {model, *GOING.get(model, ())}))


def differences(scenario: DatabaseDeletion, before: Tables, vanilla: Run, seen: Run) -> Iterator[str]:
    removed = {
        (model, key): row
        for model, rows in before.items()
        for key, row in rows.items()
        if key not in vanilla.tables[model]
    }
    yield from _delete_differences(scenario, removed, seen)
    yield from save_differences(scenario, before, vanilla.tables, seen)
    wanted, found = _counts(scenario, vanilla), _counts(scenario, seen)
    for model in filter(scenario.looks_up, MODELS):
        if rows := [key for owner, key in removed if owner is model]:
            wanted[model._meta.label] = len(rows)
    if wanted != found:
        yield f"counts {wanted} expected, {found} found"


def _delete_differences(scenario: DatabaseDeletion, removed: dict[Any, Any], seen: Run) -> Iterator[str]:
    for signal in DELETES & scenario.signals:
        due = [place for place in removed if scenario.sender in (None, place[0])]
        received = [(sent.sender, sent.key) for sent in seen.of(signal)]
        if sorted(map(repr, received)) != sorted(map(repr, due)):
            yield f"{signal} of {due} expected, {received} found"
    origin = type(scenario.model._base_manager.all()) if scenario.of_queryset else scenario.model
    for sent in seen.of(*DELETES):
        if sent.arguments != {"using": scenario.alias, "origin": origin}:
            yield f"{sent}: origin {origin} expected"
        if sent.fields != removed.get((sent.sender, sent.key)):
            yield f"{sent}: the row as it was expected"


def _counts(scenario: DatabaseDeletion, found: Run) -> dict[str, int]:
    """Return the counts of the call, by label: of a queryset, or of one instance if there was one."""
    result: Any = found.result
    if not scenario.of_queryset:
        result = result[0][0] if result else (0, {})
    assert result[0] == sum(result[1].values())
    return dict(result[1])


@share(4)
@given(deletions(DatabaseDeletion, [Trunk, Trunk, Branch], MODELS))
def test_delete_sends_signals_for_what_the_database_removes_and_changes(scenario: DatabaseDeletion) -> None:
    with undone(scenario.alias):
        scenario.load()
        before = tables_of(MODELS, scenario.alias)
        vanilla = run(scenario, MODELS, scenario.call)
        seen = run(scenario, MODELS, lambda: switched_on(scenario))
        assert not list(differences(scenario, before, vanilla, seen))


SCENARIO = DatabaseDeletion(
    model=Trunk,
    alias="default",
    nodes=[0, 1, 2, 3],
    leaves=list(range(10)),
    chosen=frozenset({1, 2}),
    of_queryset=True,
    signals=frozenset(SIGNALS),
    sender=None,
    batch_size=2000,
)

WRONG: dict[str, Callable[[Run], Run]] = {
    **{f"a {signal} is missing": with_received(signal, lambda received: []) for signal in SIGNALS},
    **{
        f"a {signal} comes twice": with_received(signal, lambda received: [received, received])
        for signal in SIGNALS
    },
    "the origin is another": with_argument("post_delete", "origin", Twig),
    "the database is another": with_argument("pre_delete", "using", "other"),
    "an instance is not whole": with_received("pre_delete", lambda received: [replace(received, fields={})]),
    "the count is another": lambda seen: replace(seen, result=(0, {})),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_notices_that(wrong: str) -> None:
    with undone("default"):
        SCENARIO.load()
        before = tables_of(MODELS, "default")
        vanilla = run(SCENARIO, MODELS, SCENARIO.call)
        seen = run(SCENARIO, MODELS, lambda: switched_on(SCENARIO))
        assert not list(differences(SCENARIO, before, vanilla, seen))
        assert list(differences(SCENARIO, before, vanilla, WRONG[wrong](seen)))
