"""Generates calls of ``bulk_create()``."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import Model, Value
from django.db.models.functions import Upper
from hypothesis import strategies as st

from tests.parity import particular, typed_models
from tests.parity.creating import Creation
from tests.parity.models import Berth, Cargo, Ferry, Harbour, Port, Ship, Vessel, Wide, Yacht, concrete_fields
from tests.parity.rows import pool, ship_id
from tests.parity.scenario import Action, Hearing
from tests.parity.strategies import MAX_ROWS, rarely

MODELS: tuple[type[Model], ...] = (
    *(Wide, Wide, Ship, Yacht, Harbour, Cargo, Cargo, Vessel, Port, Berth),
    *typed_models.MODELS,
    *particular.MODELS,
)
# Django refuses a child's table, so this need not be drawn often.
CHOICES: tuple[type[Model], ...] = (*MODELS, *MODELS, *MODELS, Ferry)
# The database generates a key for these if they have none.
NUMBERED: tuple[type[Model], ...] = (Wide, Cargo, Vessel, Ferry, *typed_models.MODELS, *particular.MODELS)
# Columns besides the unique ones; the database does not decide any of these alone.
UPDATED = ["rank", "note", "log", "memo"]


def _keys(model: Any, number: int) -> dict[str, Any]:
    """Return a key. Low numbers are keys of rows that may exist."""
    if issubclass(model, Ship):
        return {"id": ship_id(number)}
    if model is Harbour:
        return {"code": "_ABCDEFGHIJ"[number % 11], "number": number}
    if model is Port:
        return {"code": f"P{number}"}
    return {"dock": "NS"[number % 2], "number": number} if model is Berth else {"id": number}


def _required(model: Any) -> dict[str, Any]:
    if issubclass(model, Ship):
        return {"registry_id": 1}
    return {"ship_id": ship_id(1)} if model is Cargo else {}


@st.composite
def instances(draw: st.DrawFn, model: Any, place: int, clashing: bool) -> dict[str, Any]:
    """Draw the values of one instance."""
    values = _required(model)
    # These may clash: they have keys and unique values of existing rows and of each other.
    number = draw(st.integers(1, 7)) if clashing else place + 4
    if model not in NUMBERED or draw(st.booleans()):
        values |= _keys(model, number)
    if draw(st.booleans()):
        values["slug"] = f"slug{draw(st.integers(1, 5)) if clashing else 10 + place}"
    skipped = {"slug", "touched", "created", *values}
    fields = [field for field in concrete_fields(model) if field.name not in skipped]
    for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name)):
        if field.attname not in skipped:
            values[field.attname] = draw(st.sampled_from(pool(field)))
    if issubclass(model, Ship) and draw(st.booleans()):
        values.pop("home_id", None)
        values["home"] = Harbour(code="B", number=2)
    return values | draw(_computed())


def _computed() -> st.SearchStrategy[dict[str, Any]]:
    """Sometimes draw an expression, which the database computes."""
    computed = [{"rank": Value(2) + Value(3)}, {"note": Upper(Value("loud"))}]
    return st.sampled_from([{}] * 10 + computed)


@st.composite
def actions(draw: st.DrawFn, model: Any) -> Action:
    kind = draw(st.sampled_from(["set", "set", "append", "nest", "distinguish", "raise"]))
    call = draw(st.none() | st.integers(1, 4))
    if kind == "raise":
        return Action(kind, draw(st.sampled_from(["pre", "post"])), call=draw(st.integers(1, 8)))
    if kind != "set":
        return Action(kind, "pre", value=kind, call=call)
    free = {field.attname: field for field in concrete_fields(model) if not field.unique}
    name = draw(st.sampled_from(sorted(free.keys() - {"touched", "created"})))
    return Action(kind, "pre", name, draw(st.sampled_from(pool(free[name]))), call)


@st.composite
def hearings(draw: st.DrawFn, model: Any) -> Hearing:
    signals = draw(st.sampled_from([{"pre", "post"}] * 6 + [{"pre"}, {"post"}]))
    others = sorted(typed_models.classes_of(model) - {model}, key=str)
    sender = draw(st.sampled_from([None, None, model, model._meta.concrete_model, *others]))
    return Hearing(frozenset(signals), sender, tuple(draw(st.lists(actions(model), max_size=2))))


@st.composite
def arguments(draw: st.DrawFn, model: Any, alias: str) -> dict[str, Any]:
    """Draw the arguments: none, or what to do about conflicts."""
    size = draw(st.sampled_from([None, None, 1, 2]))
    given: dict[str, Any] = {} if size is None else {"batch_size": size}
    mode = draw(st.sampled_from(["plain", "ignore", "update"]))
    if mode == "ignore":
        return {**given, "ignore_conflicts": True}
    if mode == "plain":
        return given
    names = draw(st.lists(st.sampled_from(UPDATED), min_size=1, max_size=2, unique=True))
    given |= {"update_conflicts": True, "update_fields": names}
    if connections[alias].features.supports_update_conflicts_with_target:
        given["unique_fields"] = draw(st.sampled_from(_targets(model)))
    return given


def _targets(model: Any) -> list[list[str]]:
    numbers = [["number"]] if model is Harbour else []
    return [["pk"], [field.name for field in model._meta.pk_fields], ["slug"], *numbers]


@st.composite
def creations(draw: st.DrawFn) -> Creation:
    model = draw(st.sampled_from(CHOICES))
    alias = draw(st.sampled_from(["default", "default", "default", "other"]))
    given = draw(arguments(model, alias))
    clashing = not given.keys() <= {"batch_size"} or draw(rarely(5))
    places = range(draw(st.integers(1, MAX_ROWS + 2)))
    return Creation(
        model=model,
        alias=alias,
        seeds=draw(st.lists(st.integers(0, 99), min_size=1, max_size=3)),
        hearing=draw(hearings(model)),
        batch_size=draw(st.integers(1, MAX_ROWS) | st.just(2000)),
        lock=draw(st.booleans()),
        batched=draw(st.booleans()),
        values=tuple(draw(instances(model, place, clashing)) for place in places),
        arguments=given,
        lazily=draw(st.booleans()),
    )
