"""Examples that always run: those that are seldom generated, and those that once showed a difference."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from django.db.models import Case, Count, Exists, F, JSONField, OuterRef, Q, Subquery, Value, When, Window
from django.db.models.functions import Concat, Lower, Now, RowNumber, Upper

from tests.parity.models import Berth, CarFerry, Ferry, Harbour, Port, Ship, Vessel, Wide, Yacht
from tests.parity.rows import UTC
from tests.parity.scenario import Action, BulkUpdate, Given, Hearing, Update, step
from tests.parity.strategies import OTHERS_ACTIONS

if TYPE_CHECKING:
    from tests.parity.scenario import Change

MOMENT = datetime.datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)
ACTIONS = ("update_same", *OTHERS_ACTIONS)


def _acting(kind: str, signal: str, batch_size: int, seeds: tuple[int, ...]) -> Update:
    hearing = Hearing(actions=(Action(kind, signal, value="acted", call=1 if len(seeds) == 1 else None),))
    values = {"rank": Given(F("rank") + 1), "note": Given("new")}
    return Update(
        model=Ship, alias="default", seeds=seeds, hearing=hearing, batch_size=batch_size, values=values
    )


ACTING: dict[str, Change] = {
    f"{kind} at {signal}, {batch_size} a batch, {len(seeds)} rows": _acting(kind, signal, batch_size, seeds)
    for kind in ACTIONS
    for signal in ("pre", "post")
    for batch_size, seeds in ((1, (1, 2, 3)), (2000, (1, 2, 3)))
}
ALONE: dict[str, Change] = {
    f"{kind} without a sibling": Update(
        model=Port,
        alias="default",
        seeds=(1,),
        hearing=Hearing(actions=(Action(kind, "pre", value="acted"),)),
        values={"rank": Given(5)},
    )
    for kind in ("update_sibling", "save_sibling", "delete_sibling")
}

FOUND: dict[str, Change] = {
    "a statement that reads rows which it has written, and therefore writes one value twice (SQLite)": Update(
        model=Harbour,
        alias="default",
        seeds=(1,),
        hearing=Hearing(),
        batch_size=2000,
        filters=(step("filter", Exists(Harbour._base_manager.filter(rank__gt=OuterRef("rank")))),),
        values={"rank": Given(2), "slug": Given("")},
    ),
    "an aggregate beside an expression that reads what is assigned before it, without locks": Update(
        model=Ship,
        alias="default",
        seeds=(0,),
        hearing=Hearing(),
        batch_size=2000,
        lock=False,
        annotations=(step("annotate", total=Count("cargo")),),
        values={"note": Given("a"), "state": Given(Lower(F("note")))},
    ),
    "an order, a new key, and an expression that reads what is assigned before it": Update(
        model=Port,
        alias="default",
        seeds=(0,),
        hearing=Hearing(),
        batch_size=2000,
        order=(step("order_by", "-rank", "pk"),),
        total_order=True,
        lock=False,
        values={
            "rank": Given(0),
            "note": Given(Case(When(rank__gt=1, then=Value("a")), default=F("note"))),
            "code": Given("NEW"),
        },
    ),
    "a row in flight that a nested update comes to after another batch": Update(
        model=Wide,
        alias="default",
        seeds=(1, 2),
        filters=(step("filter", pk=2),),
        hearing=Hearing(
            actions=(
                Action("update_sibling", "post", value="sibling"),
                Action("update_all", "post", value="all", call=2),
            )
        ),
        batch_size=1,
        values={"rank": Given(0)},
    ),
    "a key that changes": Update(
        model=Port,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        values={"code": Given(Concat("code", Value("x")))},
    ),
    "a part of a composite key that changes": Update(
        model=Berth,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        values={"number": Given(F("number") + 100), "note": Given("moved")},
    ),
    "a receiver that makes one value for all unique": Update(
        model=Wide,
        alias="default",
        seeds=(1, 2, 3),
        hearing=Hearing(actions=(Action("distinguish", "pre", value="own"),)),
        batch_size=2,
        values={"slug": Given("fresh")},
    ),
    **{
        f"many texts that a parameter may cut, {batch_size} a batch": Update(
            model=Port,
            alias="default",
            seeds=(1,) * 120,
            filters=(step("exclude", code__in=["P1", "P4"]),),
            hearing=Hearing(actions=(Action("set", "pre", "memo", "set"),)),
            batch_size=batch_size,
            values={"note": Given("new")},
        )
        for batch_size in (60, 2000)
    },
    "a bulk_update of many texts, of which one is too long for its column": BulkUpdate(
        model=Port,
        alias="default",
        seeds=(1,) * 60,
        hearing=Hearing(actions=(Action("set", "pre", "memo", "set"),)),
        values=({"note": Given("new")},),
        without_row=True,
    ),
    "a value that no receiver makes unique": Update(
        model=Wide, alias="default", seeds=(1, 2), hearing=Hearing(), values={"slug": Given("fresh")}
    ),
    "a value that the database refuses, and a receiver that knows better": Update(
        model=Harbour,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(actions=(Action("set", "pre", "note", "mended"),)),
        values={"rank": Given("5")},
    ),
    "no values": Update(model=Ship, alias="default", seeds=(1,), hearing=Hearing(), values={}),
    "nobody who hears an update": Update(
        model=Yacht, alias="default", seeds=(1, 2), hearing=Hearing(sender=Ship), values={"rank": Given(3)}
    ),
    "nobody who hears a bulk_update": BulkUpdate(
        model=Yacht, alias="default", seeds=(1, 2), hearing=Hearing(sender=Ship), values=({"rank": Given(3)},)
    ),
    "what only the database knows": Update(
        model=Wide,
        alias="other",
        seeds=(1, 2),
        hearing=Hearing(),
        values={"moment": Given(Now(), volatile=True), "touched": Given(Now(), volatile=True)},
    ),
    "a child ordered by an annotation over its parent's column": Update(
        model=Ferry,
        alias="default",
        seeds=(1, 2, 3),
        hearing=Hearing(),
        annotations=(step("annotate", next_rank=F("rank") + 1),),
        order=(step("order_by", "next_rank", "pk"),),
        values={"log": Given(["a"])},
    ),
    "a composite key, distinct rows, an order by annotation": Update(
        model=Berth,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        annotations=(step("annotate", upper_note=Upper("note")),),
        order=(step("order_by", "-upper_note", "pk"),),
        looks=(step("distinct"),),
        values={"rank": Given(1)},
    ),
    "a composite key, distinct rows, no order": Update(
        model=Berth,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        order=(step("order_by", "?"),),
        looks=(step("distinct"),),
        values={"memo": Given("x")},
        total_order=False,
    ),
    "a bulk_update that Django refuses for its second object": BulkUpdate(
        model=CarFerry,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        batch_size=1,
        values=({"decks": Given(1)}, {"decks": Given(F("rank"))}),
    ),
    "a bulk_update of a list that a receiver appends to": BulkUpdate(
        model=Harbour,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(actions=(Action("append", "pre", value="appended"),)),
        write_back=False,
        values=({"log": Given(F("log"))},),
    ),
    "a bulk_update of what has no row": BulkUpdate(
        model=Vessel,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(actions=(Action("set", "pre", "note", "set"),)),
        values=({"rank": Given(7)},),
        without_row=True,
    ),
    **{
        f"a bulk_update of what has no row: {model.__name__}": BulkUpdate(
            model=model,
            alias="default",
            seeds=(1,),
            hearing=Hearing(),
            values=({"rank": Given(7)},),
            without_row=True,
        )
        for model in (Ship, Port, Berth, CarFerry, Wide)
    },
    "a bulk_update that the database refuses": BulkUpdate(
        model=Port, alias="default", seeds=(1, 2), hearing=Hearing(), values=({"note": Given(None)},)
    ),
    "a moment in a CASE": Update(
        model=Ship,
        alias="default",
        seeds=(1, 2, 3),
        hearing=Hearing(),
        values={"touched": Given(Case(When(rank__gt=1, then=Value(MOMENT)), default=F("touched")))},
    ),
    "an address with blanks": Update(
        model=Wide,
        alias="default",
        seeds=(1,),
        hearing=Hearing(),
        values={"ip": Given(" 10.0.0.2", vague=True)},
    ),
    "rows locked that are counted": Update(
        model=Ship,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        annotations=(step("annotate", total=Count("cargo")),),
        looks=(step("select_for_update"),),
        values={"memo": Given("x")},
    ),
    "rows locked and counted, a value that reads other rows": Update(
        model=Berth,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        annotations=(step("annotate", total=Count("note")),),
        filters=(step("filter", rank__gte=0),),
        looks=(step("select_for_update"),),
        lock=False,
        values={
            "length": Given(F("rank")),
            "note": Given(
                Subquery(Berth._base_manager.order_by("number").values("note")[:1]),
                crosses=True,
            ),
        },
    ),
    "a composite key, a window, distinct rows": Update(
        model=Berth,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        annotations=(
            step("annotate", window=Window(RowNumber())),
            step("annotate", upper_note=Upper("note")),
        ),
        order=(step("order_by", "-upper_note", "pk"),),
        looks=(step("distinct"),),
        values={"log": Given(F("log"))},
    ),
    **{
        f"{name}, {batch_size} a batch": Update(
            model=model,
            alias="default",
            seeds=(1, 2, 3),
            hearing=Hearing(),
            batch_size=batch_size,
            looks=(look,),
            in_place=True,
            values={"rank": Given(F("rank") + 1), "note": Given("new")},
        )
        for name, model, look in (
            ("a ship with its harbour", Ship, step("select_related", "home", "registry")),
            ("a ship with its cargo", Ship, step("prefetch_related", "cargo", "home")),
            ("a composite key with its ship", Berth, step("select_related", "ship")),
            ("a child with its route", CarFerry, step("select_related", "route")),
        )
        for batch_size in (1, 2000)
    },
    "bytes in memory": Update(
        model=Wide,
        alias="default",
        seeds=(1, 2),
        hearing=Hearing(),
        values={"binary": Given(memoryview(b"y"))},
    ),
    "the null of JSON where that of SQL may not be": Update(
        model=Wide,
        alias="default",
        seeds=(0,),
        hearing=Hearing(actions=(Action("set", "pre", "big", 1),)),
        values={"json": Given(Value(None, JSONField()), vague=True)},
    ),
    "a parent's column worked out from another that is set before it": Update(
        model=Ferry,
        alias="default",
        seeds=(0, 1),
        hearing=Hearing(actions=(Action("append", "pre", value="appended"),)),
        values={
            "rank": Given(2),
            "log": Given(Case(When(rank__gt=1, then=Value([1], JSONField())), default=F("log"))),
        },
    ),
    "a unique value that was another's": BulkUpdate(
        model=Harbour,
        alias="default",
        seeds=(0,),
        hearing=Hearing(),
        values=tuple({"number": Given(number)} for number in (0, 1, -5)),
    ),
    "a boolean worked out": Update(
        model=Wide, alias="default", seeds=(1, 2), hearing=Hearing(), values={"boolean": Given(Q(rank__gt=1))}
    ),
}

CASES = {**ACTING, **ALONE, **FOUND}
