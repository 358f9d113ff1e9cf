"""Generates scenarios."""

from __future__ import annotations

from functools import cache
from typing import Any

import django
from django.db.models import Count, Exists, F, Model, OuterRef, Q, Window
from django.db.models.functions import Lower, RowNumber, Upper
from hypothesis import strategies as st

from tests.parity import particular, typed_models
from tests.parity.models import (
    Berth,
    CarFerry,
    Cargo,
    Ferry,
    Harbour,
    Port,
    Ship,
    Vessel,
    Wide,
    Yacht,
    concrete_fields,
)
from tests.parity.rows import HARBOURS, pool, port_code, saved_pool, ship_id
from tests.parity.scenario import Action, BulkUpdate, Given, Hearing, Step, Update, step
from tests.parity.values import constants, expressions, new_keys, refused

MODELS: tuple[type[Model], ...] = (
    *(Wide, Ship, Yacht, Harbour, Cargo, Vessel, Ferry, CarFerry, Port, Berth),
    *typed_models.MODELS,
    *particular.MODELS,
)
FLEET = (Ship, Yacht)
MAX_ROWS = 4


def rarely(times: int) -> st.SearchStrategy[bool]:
    """Draw True in one of this many cases; it shrinks to False."""
    return st.sampled_from([False] * (times - 1) + [True])


def first_key(model: Any, number: int) -> Any:
    """Return a key that some row may have."""
    if issubclass(model, Ship):
        return ship_id(number)
    keys: dict[Any, Any] = {Harbour: HARBOURS[number % 3], Port: port_code(number), Berth: ("N", number)}
    return keys.get(model, number)


@cache
def annotating(model: type[Any]) -> list[Step]:
    """Draw annotations. Their names are those to which values refer; Django refuses some of these there."""
    common = [
        step("annotate", next_rank=F("rank") + 1),
        step("annotate", upper_note=Upper("note")),
        step("annotate", window=Window(RowNumber())),
    ]
    if issubclass(model, Ship):
        return [
            *common,
            step("annotate", total=Count("cargo")),
            step("annotate", harbour_rank=F("home__rank")),
            step("annotate", loaded=Exists(Cargo._base_manager.filter(ship=OuterRef("pk")))),
        ]
    return [*common, step("annotate", total=Count("note"))]


@cache
def filters(model: type[Any]) -> list[Step]:
    higher = model._base_manager.filter(rank__gt=OuterRef("rank"))
    common = [
        step("filter", rank__gte=1),
        step("filter", rank__lt=3),
        step("filter", rank__in=[0, 1, 2]),
        step("exclude", note=""),
        step("filter", slug__isnull=False),
        step("filter", Q(rank__lt=3) | Q(note="a")),
        step("filter", doubled=F("rank") * 2),
        step("filter", pk=first_key(model, 1)),
        step("exclude", pk=first_key(model, 2)),
        step("filter", pk__in=[first_key(model, 1), first_key(model, 3), first_key(model, 4)]),
        step("filter", rank__gt=1000),
        step("filter", Exists(higher)),
        step("none"),
    ]
    return common + _joins(model)


def _joins(model: type[Any]) -> list[Step]:
    """Draw filters over relations; many of them find a row more than once."""
    if issubclass(model, Ship):
        return [
            step("filter", cargo__rank__gte=0),
            step("filter", flags__name__in=["x", "y"]),
            step("exclude", cargo__rank=1),
            step("filter", home__ships__rank__gte=0),
            step("filter", Q(cargo__rank__gte=0) | Q(flags__name="x")),
            step("filter", flagship__isnull=True),
            step("filter", registry__code="B"),
        ]
    joins: dict[type[Any], list[Step]] = {
        Harbour: [step("filter", ships__rank__gte=0), step("filter", registered__cargo__rank__gte=0)],
        Cargo: [step("filter", ship__flags__name__in=["x", "y"]), step("filter", ship__home__code="A")],
        Berth: [step("filter", ship__cargo__rank__gte=0), step("filter", dock="N")],
        Ferry: [step("filter", route__rank__gte=0), step("filter", route__ferries__rank__gte=0)],
        CarFerry: [step("filter", route__ferries__decks__gte=0), step("filter", tonnage__gt=1)],
    }
    return joins.get(model, [])


@cache
def orders(model: type[Any]) -> list[Step]:
    common = [
        step("order_by", "-rank", "pk"),
        step("order_by", "note", "-pk"),
        step("order_by", "-pk"),
        step("order_by", F("slug").desc(nulls_last=True), "pk"),
        step("order_by", Lower("note").asc(), F("rank").desc(), "pk"),
        step("order_by", "doubled", "pk"),
        step("order_by", "rank"),
        step("order_by", "?"),
        step("order_by", "-note"),
    ]
    related: dict[type[Any], list[Step]] = {
        Harbour: [step("order_by", "-ships__rank", "pk")],
        Cargo: [step("order_by", "ship__home__rank", "pk"), step("order_by", "-ship__slug", "pk")],
        Berth: [step("order_by", "ship__rank", "pk"), step("order_by", "dock", "-number")],
        Ferry: [step("order_by", "-tonnage", "pk"), step("order_by", "route__number", "pk")],
    }
    ships = [step("order_by", "home__rank", "pk"), step("order_by", "-cargo__rank", "pk")]
    return common + (ships if issubclass(model, Ship) else related.get(model, []))


def orders_by_annotation(annotated: tuple[Step, ...]) -> list[Step]:
    names = [
        name for call in annotated for name in call.keywords if name in ("next_rank", "upper_note", "total")
    ]
    return [step("order_by", f"{sign}{name}", "pk") for name in names for sign in ("", "-")]


def is_total(order: tuple[Step, ...]) -> bool:
    return all({"pk", "-pk", "-number"} & set(map(str, call.arguments)) for call in order)


@cache
def looks(model: type[Any]) -> list[Step]:
    plain = [
        step("distinct"),
        step("only", "rank"),
        step("defer", "log", "note"),
        step("values", "rank"),
        step("values_list", "note", "rank"),
        step("select_for_update"),
    ]
    if issubclass(model, Ship):
        plain += [
            step("select_related", "home", "flagship"),
            step("select_related", "registry"),
            step("prefetch_related", "cargo", "flags"),
            step("prefetch_related", "home__ships"),
        ]
    related: dict[type[Any], list[Step]] = {
        Cargo: [step("select_related", "ship__home"), step("prefetch_related", "ship")],
        Berth: [step("select_related", "ship")],
        Ferry: [step("select_related", "route"), step("prefetch_related", "route")],
        CarFerry: [step("select_related", "route")],
        Harbour: [step("prefetch_related", "ships", "registered__cargo")],
    }
    return plain + related.get(model, [])


def refused_looks(model: type[Any]) -> list[Step]:
    sliced = [step("__getitem__", slice(0, 2)), step("union", model._base_manager.all())]
    # Older versions of Django leave the refusal of distinct(*fields) to the database.
    return [*sliced, step("distinct", "rank")] if django.VERSION >= (6, 1) else sliced


def is_refused(look: tuple[Step, ...]) -> bool:
    return any(call.method in ("__getitem__", "union") or call.arguments == ("rank",) for call in look)


def some_fields(model: type[Any]) -> st.SearchStrategy[list[Any]]:
    """Draw one to three fields; unique ones, which few rows can share, less often."""
    fields = concrete_fields(model)
    common = [field for field in fields if not field.unique]
    return st.lists(
        st.sampled_from(common * (20 // len(common) + 1) + [field for field in fields if field.unique]),
        min_size=1,
        max_size=3,
        unique_by=lambda field: field.name,
    )


@st.composite
def callers_values(draw: st.DrawFn, model: Any, names: set[str]) -> dict[str, Given]:
    """Draw fields, by name or column, with constants, expressions and, sometimes, values that are refused."""
    fields = draw(some_fields(model))
    values: dict[str, Given] = {}
    for field in fields:
        kind = draw(st.sampled_from(["constant"] * 12 + ["expression"] * 13 + ["refused"]))
        options = {
            "constant": constants(field),
            "expression": [given for given in expressions(model, field) if _unknown(given, names) is None]
            or constants(field),
            "refused": refused(field),
        }[kind]
        name = draw(st.sampled_from([field.name, field.attname]))
        values[name] = draw(st.sampled_from(options))
    return values


ANNOTATED = {"next_rank", "upper_note", "total", "window", "harbour_rank"}


def _unknown(given: Given, names: set[str]) -> str | None:
    """Return the annotation that an expression needs and that the queryset does not have."""
    name = getattr(given.value, "name", None)
    return name if name in ANNOTATED - names else None


OWN_ACTIONS = ["set", "set", "set_named", "append", "nest", "update_same"]
OTHERS_ACTIONS = [
    "update_sibling",
    "update_all",
    "update_children",
    "save_sibling",
    "delete_sibling",
    "raise",
]


@st.composite
def actions(draw: st.DrawFn, model: type[Any], values: dict[str, Given]) -> Action:
    kind = draw(st.sampled_from(OWN_ACTIONS + OTHERS_ACTIONS))
    if kind in ("set", "set_named"):
        fields = {field.attname: field for field in concrete_fields(model)}
        named = [field.attname for field in fields.values() if {field.name, field.attname} & values.keys()]
        free = sorted({name for name in fields if name not in ("slug", "touched", "created", "memo")})
        name = draw(
            st.sampled_from(named if kind == "set_named" and not {"slug", "touched"} & {*named} else free)
        )
        return Action("set", "pre", name, draw(st.sampled_from(pool(fields[name]))))
    if kind in ("append", "nest"):
        return Action(kind, "pre", value="appended", call=draw(st.none() | st.integers(1, 3)))
    if kind == "update_children" and not issubclass(model, Ship):
        kind = "update_sibling"
    signal = draw(st.sampled_from(["pre", "post"]))
    call = draw(st.integers(1, 6) if kind == "raise" else st.none() | st.integers(1, 6))
    return Action(kind, signal, value=f"{kind} at {signal}", call=call)


@st.composite
def hearings(draw: st.DrawFn, model: type[Any], values: dict[str, Given], acting: bool) -> Hearing:
    signals = draw(st.sampled_from([{"pre", "post"}] * 6 + [{"pre"}, {"post"}]))
    others = sorted(typed_models.classes_of(model) - {model}, key=str)
    senders = [None, None, model, model, model._meta.concrete_model, *others]
    sender = draw(st.sampled_from(senders))
    acts = draw(st.lists(actions(model, values), max_size=2)) if acting else []
    return Hearing(frozenset(signals), sender, tuple(acts))


@st.composite
def updates(draw: st.DrawFn) -> Update:
    model = draw(st.sampled_from(MODELS))
    annotated = tuple(draw(st.lists(st.sampled_from(annotating(model)), max_size=2, unique_by=repr)))
    names = {name for call in annotated for name in call.keywords}
    order_options = orders(model) + orders_by_annotation(annotated) * 3
    order = draw(st.just(()) | st.sampled_from(order_options).map(lambda call: (call,)))
    values = draw(callers_values(model, names))
    rekeyed = model in (Wide, Port, Berth) and draw(rarely(4))
    if rekeyed:
        name, givens = draw(st.sampled_from(sorted(new_keys(model).items())))
        values = {**values, name: draw(st.sampled_from(givens))}
    look_options = looks(model) * 8 + refused_looks(model)
    look = draw(st.just(()) | st.sampled_from(look_options).map(lambda call: (call,)))
    hearing = draw(hearings(model, values, acting=not rekeyed and is_total(order)))
    some_filters = draw(st.lists(st.sampled_from(filters(model)), max_size=2))
    # none().union(others) yields the others.
    chosen = () if any(call.method == "union" for call in look) else tuple(some_filters)
    if not rekeyed and draw(rarely(20)):
        values = {**values, "slug": Given("fresh")}
        # A row that it does not hear of would get the value of all.
        sender = hearing.sender if typed_models.classes_of(model) == {model} else None
        own = Action("distinguish", "pre", value="own")
        hearing = Hearing(hearing.signals, sender, (*hearing.actions, own))
    return Update(
        model=model,
        alias=draw(st.sampled_from(["default", "default", "default", "other"])),
        seeds=draw(st.lists(st.integers(0, 99), min_size=1, max_size=MAX_ROWS)),
        annotations=annotated,
        filters=chosen,
        order=order,
        looks=look,
        values=values,
        hearing=hearing,
        batch_size=draw(batch_sizes(hearing)),
        write_back=draw(st.sampled_from([True, True, True, False])),
        batched=draw(st.booleans()),
        lock=draw(st.booleans()),
        evaluated=draw(st.booleans()) and not is_refused(look),
        in_place=draw(rarely(4)),
        total_order=is_total(order),
    )


def batch_sizes(hearing: Hearing) -> st.SearchStrategy[int]:
    """Draw batch sizes. With an update of all rows by a receiver, it matters which rows share a batch."""
    if any(action.kind == "update_all" for action in hearing.actions):
        return st.sampled_from([1, 2000])
    return st.integers(1, MAX_ROWS + 1) | st.just(2000)


@st.composite
def bulk_updates(draw: st.DrawFn) -> BulkUpdate:
    model = draw(st.sampled_from(MODELS))
    fields = draw(some_fields(model))
    values = tuple(
        {field.attname: draw(objects_value(model, field)) for field in fields}
        for _ in range(draw(st.integers(1, MAX_ROWS)))
    )
    hearing = draw(hearings(model, values[0], acting=True))
    return BulkUpdate(
        model=model,
        alias=draw(st.sampled_from(["default", "default", "default", "other"])),
        seeds=draw(st.lists(st.integers(0, 99), min_size=1, max_size=MAX_ROWS)),
        hearing=hearing,
        batch_size=draw(batch_sizes(hearing)),
        write_back=draw(st.sampled_from([True, True, True, False])),
        batched=draw(st.booleans()),
        values=values,
        backwards=draw(st.booleans()),
        without_row=draw(rarely(6))
        and not any(hasattr(given.value, "resolve_expression") for each in values for given in each.values()),
    )


def objects_value(model: Any, field: Any) -> st.SearchStrategy[Given]:
    """Draw a caller's value for an object: one of the field's own type, or an expression."""
    # In update() Django writes NULL for a file that is None.
    plain = [Given(value) for value in saved_pool(field)]
    return st.sampled_from(
        plain * 2 + [given for given in expressions(model, field) if not _unknown(given, set())]
    )
