"""Querysets, joins and methods that are not Django's own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import F, FilteredRelation, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.sql import UpdateQuery
from django.db.utils import OperationalError, ProgrammingError
from django_cte import CTE, with_cte

import signal_patch
from signal_patch import bulk_signals, patches
from tests.fleet import column, of_every_size, rows
from tests.queryset_models import Hub, Packet, Stamp
from tests.refusals import reads_its_own_table
from tests.startup import Project

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Log, Receivers

pytestmark = pytest.mark.django_db

IN_PLACE: dict[str, Callable[[], Any]] = {
    "inplace()": lambda: Packet.objects.all().inplace(),
    "a manager's": lambda: Packet.in_place.all(),
    "a filtered one": lambda: Packet.objects.filter(weight__gte=0).inplace(),
    "clones that share the query": lambda: Packet.sharing.all(),
}
in_place = pytest.mark.parametrize("queryset", IN_PLACE.values(), ids=IN_PLACE)


@pytest.fixture
def packets() -> list[Packet]:
    return rows(Packet, *({"label": name, "weight": weight} for weight, name in enumerate("abc", 1)))


def _keys_sent(log: Log, signal: str) -> list[Any]:
    return [sent.values["id"] for sent in log.of(signal)]


@pytest.mark.usefixtures("everything_on")
class TestSelfCloning:
    @of_every_size
    @in_place
    def test_update(
        self, queryset: Callable[[], Any], batch_size: int, packets: list[Packet], log: Log
    ) -> None:
        with bulk_signals(batch_size=batch_size):
            assert queryset().update(weight=F("weight") + 10) == 3
        assert column(Packet, "weight") == [11, 12, 13]
        assert (
            _keys_sent(log, "post_save") == _keys_sent(log, "pre_save") == [packet.pk for packet in packets]
        )

    @of_every_size
    def test_update_leaves_the_queryset_as_it_was(
        self, batch_size: int, packets: list[Packet], log: Log
    ) -> None:
        chosen = Packet.objects.order_by("-label").inplace()
        with bulk_signals(batch_size=batch_size):
            assert chosen.update(weight=0) == chosen.update(weight=5) == 3
        assert [packet.label for packet in chosen] == ["c", "b", "a"]

    @reads_its_own_table
    @of_every_size
    def test_update_in_an_order_that_only_the_queryset_knows(
        self, batch_size: int, packets: list[Packet], log: Log
    ) -> None:
        chosen = Packet.objects.order_by(F("label").desc()).annotate(stamp=Sum("stamps")).inplace()
        values: Any = Subquery(Packet.objects.order_by("-weight").values("weight")[:1])
        with bulk_signals(batch_size=batch_size):
            assert chosen.update(weight=values) == 3
        assert column(Packet, "weight") == [3, 3, 3]
        assert _keys_sent(log, "post_save") == [packet.pk for packet in reversed(packets)]

    def test_update_of_no_row(self, log: Log) -> None:
        chosen = Packet.objects.all().inplace()
        assert chosen.update(weight=1) == 0
        rows(Packet, {"label": "late"})
        assert chosen.update(weight=1) == 1

    @of_every_size
    @in_place
    def test_bulk_update(
        self, queryset: Callable[[], Any], batch_size: int, packets: list[Packet], log: Log
    ) -> None:
        for packet in packets:
            packet.weight *= 2
        with bulk_signals(batch_size=batch_size):
            assert queryset().bulk_update(packets, ["weight"]) == 3
        assert column(Packet, "weight") == [2, 4, 6]
        assert _keys_sent(log, "post_save") == [packet.pk for packet in packets]

    def test_bulk_update_leaves_the_queryset_as_django_does(self, packets: list[Packet], log: Log) -> None:
        left = []
        for switch in (signal_patch.disable, signal_patch.enable):
            switch()
            chosen = Packet.objects.all().inplace()
            chosen.bulk_update(packets[:2], ["weight"])
            left.append([packet.label for packet in chosen.order_by("label")])
        assert left == [["a", "b"], ["a", "b"]]

    @of_every_size
    @in_place
    def test_bulk_create(self, queryset: Callable[[], Any], batch_size: int, log: Log) -> None:
        chosen = queryset()
        with bulk_signals(batch_size=batch_size):
            made = chosen.bulk_create([Packet(label="x"), Packet(label="y")])
            made += chosen.bulk_create([Packet(label="z")], ignore_conflicts=True)
        assert column(Packet, "label") == ["x", "y", "z"]
        assert _keys_sent(log, "post_save") == [packet.pk for packet in made]

    @in_place
    def test_delete_in_batches(self, queryset: Callable[[], Any], packets: list[Packet], log: Log) -> None:
        keys = [packet.pk for packet in packets]
        with bulk_signals(delete_batch_size=2):
            assert queryset().delete() == (3, {"tests.Packet": 3})
        assert sorted(_keys_sent(log, "post_delete")) == keys

    @pytest.mark.parametrize("by", ["the queryset", "the instance"])
    def test_cascades_through_a_base_manager_with_such_querysets(
        self, by: str, packets: list[Packet], log: Log
    ) -> None:
        (hub,) = rows(Hub, {"name": "north"})
        with signal_patch.no_bulk_signals():
            Packet.objects.exclude(label="c").update(hub=hub)
        chosen: Any = Hub.objects.all() if by == "the queryset" else hub
        chosen.delete()
        saved = [sent.instance.pk for sent in log.of("post_save") if sent.sender is Packet]
        assert saved == [packet.pk for packet in packets[:2]]
        assert column(Packet, "hub_id") == [None] * 3


def _totals() -> tuple[Any, Any]:
    totals = CTE(Packet.objects.values("label").annotate(total=Sum("weight")), name="totals")
    joined = totals.join(Packet, label=totals.col.label)
    return totals, with_cte(totals, select=joined).annotate(total=totals.col.total)


def _total_of_label(totals: Any) -> Any:
    return Subquery(totals.queryset().filter(label=OuterRef("label")).values("total"))


without_cte_in_updates = pytest.mark.skipif(
    connection.vendor == "mysql", reason="WITH before UPDATE is not MariaDB's"
)


@pytest.mark.usefixtures("everything_on")
class TestCommonTableExpressions:
    @pytest.fixture(autouse=True)
    def packets(self) -> list[Packet]:
        return rows(Packet, *({"label": row[0], "weight": int(row[1])} for row in ("n1", "n2", "s1")))

    @of_every_size
    @without_cte_in_updates
    def test_a_joined_queryset(self, batch_size: int, packets: list[Packet], log: Log) -> None:
        _, chosen = _totals()
        with bulk_signals(batch_size=batch_size):
            assert chosen.filter(total__gt=1).update(weight=8) == 2
        assert column(Packet, "weight") == [8, 8, 1]
        assert _keys_sent(log, "post_save") == [packet.pk for packet in packets[:2]]

    @of_every_size
    @without_cte_in_updates
    def test_a_join_that_gives_rows_twice(self, batch_size: int, packets: list[Packet], log: Log) -> None:
        twins = CTE(Packet.objects.values("label", "weight"), name="twins")
        chosen = with_cte(twins, select=twins.join(Packet, label=twins.col.label))
        with bulk_signals(batch_size=batch_size):
            assert chosen.update(weight=F("weight") + 1) == 3
        assert column(Packet, "weight") == [2, 3, 2]
        assert _keys_sent(log, "post_save") == [packet.pk for packet in packets]

    @of_every_size
    @pytest.mark.parametrize("order", [(), ("-total", "pk"), ("-pk",)])
    @without_cte_in_updates
    def test_values_that_read_it(
        self, order: tuple[str, ...], batch_size: int, packets: list[Packet], receivers: Receivers
    ) -> None:
        totals, chosen = _totals()
        truth = receivers.check_truth(Packet)
        with bulk_signals(batch_size=batch_size):
            assert chosen.order_by(*order).update(weight=_total_of_label(totals)) == 3
        assert column(Packet, "weight") == [3, 3, 1]
        assert truth == [True] * 3

    @without_cte_in_updates
    def test_a_cte_without_a_join(self, packets: list[Packet], log: Log) -> None:
        totals, _ = _totals()
        chosen = with_cte(totals, select=Packet.objects.filter(stamps=None))
        assert chosen.update(weight=_total_of_label(totals)) == 3
        assert column(Packet, "weight") == [3, 3, 1]

    @pytest.mark.parametrize(
        "refused",
        [
            lambda: _totals()[1].update(weight=F("total")),
            lambda: with_cte(_totals()[0], select=_totals()[0]).update(weight=1),
        ],
        ids=["a value that is joined", "a queryset of the expression itself"],
    )
    def test_what_the_database_refuses_is_refused_in_its_words(
        self, refused: Callable[[], Any], packets: list[Packet], log: Log
    ) -> None:
        messages = []
        for switch in (signal_patch.disable, signal_patch.enable):
            switch()
            with pytest.raises((OperationalError, ProgrammingError)) as caught, transaction.atomic():
                refused()
            # After this, some databases quote the statement.
            messages.append(str(caught.value)[:40])
        assert messages[0] == messages[1]
        assert not log


@pytest.mark.usefixtures("everything_on")
class TestJoins:
    @of_every_size
    def test_a_filtered_relation(self, batch_size: int, packets: list[Packet], log: Log) -> None:
        for place in ("x", "x", "y"):
            rows(Stamp, {"packet": packets[0], "place": place})
        chosen = Packet.objects.annotate(
            here=FilteredRelation("stamps", condition=Q(stamps__place="x"))
        ).filter(here__isnull=False)
        with bulk_signals(batch_size=batch_size):
            assert chosen.update(weight=F("weight") + 1) == 1
        assert column(Packet, "weight") == [2, 2, 3]
        assert _keys_sent(log, "post_save") == [packets[0].pk]


class TestSignatures:
    @pytest.mark.parametrize(
        ("own", "djangos"),
        [
            (patches._bulk_create, QuerySet.bulk_create),
            (patches._bulk_update, QuerySet.bulk_update),
            (patches._update_batch, UpdateQuery.update_batch),
        ],
    )
    def test_they_are_djangos(self, own: Callable[..., Any], djangos: Callable[..., Any]) -> None:
        own_parameters, djangos_parameters = (
            [(name, part.kind, part.default) for name, part in inspect.signature(each).parameters.items()]
            for each in (own, djangos)
        )
        assert own_parameters == djangos_parameters

    def test_where_another_library_has_replaced_the_methods_before(self, tmp_path: Path) -> None:
        """cacheops replaces `bulk_create()` by a function whose signature does not show the arguments."""
        Project(tmp_path).check(REPLACED)


REPLACED = """
from django.db import connection
from django.db.models import QuerySet
from django.db.models.signals import post_save

def replaced(name):
    djangos = getattr(QuerySet, name)
    def method(self, objs, *args, **kwargs):
        return djangos(self, objs, *args, **kwargs)
    setattr(QuerySet, name, method)

replaced("bulk_create")
replaced("bulk_update")

import signal_patch
from library.models import Book

with connection.schema_editor() as editor:
    editor.create_model(Book)
seen = []
post_save.connect(lambda instance, **kw: seen.append(instance.pk), sender=Book, weak=False)
signal_patch.enable()
for arguments in ({}, {"batch_size": 1}, {"ignore_conflicts": True}):
    Book.objects.bulk_create([Book(title="a")], **arguments)
upsert = {"update_conflicts": True, "update_fields": ["title"], "unique_fields": ["id"]}
Book.objects.bulk_create([Book(id=9, title="a")], **upsert)
Book.objects.bulk_create([Book(title="b")], 1, True)
Book.objects.bulk_create(objs=[Book(title="c")])
books = list(Book.objects.order_by("pk"))
assert len(seen) == len(books) == 6, seen
seen.clear()
for arguments in ((), (1,)):
    assert Book.objects.bulk_update(books, ["title"], *arguments) == 6
assert Book.objects.bulk_update(books, fields=["title"], batch_size=2) == 6
assert len(seen) == 18, seen
"""
