"""Bulk methods of related managers and ``set_RELATED_order()``: examples, and their equivalent updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.contenttypes.models import ContentType
from hypothesis import strategies as st

from tests.parity.models import Entry, Flag
from tests.parity.scenario import Action, Change, Given, Hearing
from tests.parity.strategies import batch_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.models import QuerySet

    from tests.parity.oracle import Oracle

CALLS: dict[str, Callable[[Any, list[Entry]], object]] = {
    "add": lambda flag, entries: flag.entries.add(*entries),
    "remove": lambda flag, entries: flag.entries.remove(*(e for e in entries if e.flag_id == flag.pk)),
    "clear": lambda flag, entries: flag.entries.clear(),
    "set": lambda flag, entries: flag.entries.set(entries),
    "set from nothing": lambda flag, entries: flag.entries.set(entries, clear=True),
    "add tags": lambda flag, entries: flag.tags.add(*entries),
    "set order": lambda flag, entries: flag.set_entry_order(
        [entry.pk for entry in entries], using=flag._state.db
    ),
}


@dataclass(frozen=True, kw_only=True)
class Relating(Change):
    """One call for a flag with some entries, which may belong to it, to another flag, or to none."""

    flag: int
    entries: tuple[int, ...]
    method: str

    def rows(self) -> QuerySet[Any]:
        return Entry._base_manager.using(self.alias).all()

    def owner(self) -> Flag:
        return Flag._base_manager.using(self.alias).get(pk=self.flag)

    def chosen(self) -> list[Entry]:
        found = self.rows().in_bulk(self.entries)
        return [found[key] for key in self.entries if key in found]

    def call(self) -> int:
        CALLS[self.method](self.owner(), self.chosen())
        return 0

    def loop(self, oracle: Oracle) -> int:
        if self.method == "set order":
            self._set_order(oracle)
        else:
            for queryset, values in self._updates():
                oracle.update(queryset, values, self.rows())
        return 0

    def _updates(self) -> list[tuple[QuerySet[Any], dict[str, Given]]]:
        """Return the updates to which the call is equivalent, in order."""
        flag, keys = self.owner(), [entry.pk for entry in self.chosen()]
        mine, these = self.rows().filter(flag=flag), self.rows().filter(pk__in=keys)
        lost, joined = {"flag": Given(None)}, {"flag": Given(flag)}
        if self.method == "add tags":
            kind = ContentType.objects.db_manager(self.alias).get_for_model(Flag)
            return [(these, {"content_type": Given(kind), "object_id": Given(flag.pk)})]
        if self.method == "set":
            old = set(mine.values_list("pk", flat=True))
            leaving = mine.filter(pk__in=old - {*keys})
            return [(leaving, lost), (self.rows().filter(pk__in={*keys} - old), joined)]
        return {
            "add": [(these, joined)],
            "remove": [(mine.filter(pk__in=keys), lost)],
            "clear": [(mine, lost)],
            "set from nothing": [(mine, lost), (these, joined)],
        }[self.method]

    def _set_order(self, oracle: Oracle) -> None:
        """Assign the entries their positions, each batch as it is when its turn comes."""
        mine = self.rows().filter(flag=self.flag)
        places = [(entry.pk, {"_order": Given(place)}) for place, entry in enumerate(self.chosen())]
        for batch in oracle.batches(places):
            found = self.rows().in_bulk([key for key, _ in batch])
            for key, values in batch:
                found[key]._order = values["_order"].value
            oracle.bulk_update(mine, [found[key] for key, _ in batch], [values for _, values in batch])

    def named(self) -> Iterable[tuple[str, Given]]:
        return ()

    def volatile_columns(self) -> set[str]:
        return set()


@st.composite
def hearings(draw: st.DrawFn) -> Hearing:
    acts = [
        Action("set", "pre", "note", "set"),
        Action("append", "pre", value="appended"),
        *(
            Action(kind, signal, value=f"{kind} at {signal}", call=2)
            for kind in ("update_same", "update_sibling", "update_all", "save_sibling", "raise")
            for signal in ("pre", "post")
        ),
    ]
    return Hearing(
        frozenset(draw(st.sampled_from([{"pre", "post"}] * 4 + [{"pre"}, {"post"}]))),
        draw(st.sampled_from([None, Entry])),
        tuple(draw(st.lists(st.sampled_from(acts), max_size=2))),
    )


@st.composite
def relatings(draw: st.DrawFn) -> Relating:
    hearing = draw(hearings())
    return Relating(
        model=Entry,
        alias=draw(st.sampled_from(["default", "default", "default", "other"])),
        seeds=draw(st.lists(st.integers(0, 99), min_size=1, max_size=5)),
        hearing=hearing,
        batch_size=draw(batch_sizes(hearing)),
        batched=draw(st.booleans()),
        flag=draw(st.integers(1, 2)),
        entries=tuple(draw(st.lists(st.integers(1, 5), max_size=4, unique=True))),
        method=draw(st.sampled_from(sorted(CALLS))),
    )
