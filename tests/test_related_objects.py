"""Instances come with the related objects that `select_related()` and `prefetch_related()` name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import pytest
from django.db import connection, models
from django.db.models import Case, Count, F, FilteredRelation, Prefetch, Q, Subquery, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

from signal_patch import bulk_signals
from tests.fleet import column, of_every_size, rows
from tests.queryset_models import Express, Hub, Packet, Stamp, Voucher

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


@pytest.fixture
def hubs() -> list[Hub]:
    (top,) = rows(Hub, {"name": "top"})
    return [top, *rows(Hub, {"name": "north", "region": top}, {"name": "south"})]


@pytest.fixture
def packets(hubs: list[Hub]) -> list[Packet]:
    _, north, south = hubs
    packets = rows(
        Packet,
        *(
            {"label": label, "hub": hub}
            for label, hub in zip("abcd", (north, south, None, north), strict=True)
        ),
    )
    rows(Voucher, *({"packet": packet, "text": packet.label} for packet in packets[:2]))
    rows(Stamp, *({"packet": packets[0], "place": place} for place in "xy"))
    return packets


def _hub(packet: Any) -> Any:
    return packet.hub and (packet.hub.name, packet.hub.region and packet.hub.region.name)


def _voucher(packet: Any) -> Any:
    return getattr(getattr(packet, "voucher", None), "text", None)


def _stamps(packet: Any) -> Any:
    return sorted(stamp.place for stamp in packet.stamps.all())


def _in_list(packet: Any) -> Any:
    return [stamp.place for stamp in packet.listed]


def _filtered(packet: Any) -> Any:
    # Django does not cache a missing object.
    return getattr(getattr(packet, "mine", None), "text", None)


_THROUGH_LISTED: Any = "listed__packet"

# The queryset, and what a receiver reads.
LOADS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "select_related": (lambda: Packet.objects.select_related("hub__region"), _hub),
    "reverse": (lambda: Packet.objects.select_related("voucher"), _voucher),
    "with an order": (lambda: Packet.objects.select_related("hub__region").order_by("-label"), _hub),
    "with an order by another table": (
        lambda: Packet.objects.select_related("hub__region").order_by("hub__name", "pk"),
        _hub,
    ),
    "with a filter that joins": (
        lambda: Packet.objects.select_related("hub__region").filter(
            Q(stamps__place__in="xy") | Q(stamps__isnull=True)
        ),
        _hub,
    ),
    "with a filter by it": (
        lambda: Packet.objects.select_related("hub__region").exclude(hub__name="nowhere"),
        _hub,
    ),
    "with a count": (
        lambda: Packet.objects.annotate(n=Count("stamps")).filter(n__gte=0).select_related("hub__region"),
        _hub,
    ),
    "with only()": (
        lambda: Packet.objects.select_related("hub__region").only("label", "hub__name", "hub__region__name"),
        _hub,
    ),
    "with defer()": (lambda: Packet.objects.select_related("hub__region").defer("label", "hub__name"), _hub),
    "in place": (lambda: Packet.in_place.select_related("hub__region"), _hub),
    "prefetch_related": (lambda: Packet.objects.prefetch_related("stamps"), _stamps),
    "prefetched forward": (lambda: Packet.objects.prefetch_related("hub__region"), _hub),
    "a Prefetch": (
        lambda: Packet.objects.prefetch_related(
            Prefetch("stamps", Stamp.objects.filter(place="x"), to_attr="listed")
        ),
        _in_list,
    ),
    "a lookup that goes on from it": (
        lambda: Packet.objects.prefetch_related(
            Prefetch("stamps", Stamp.objects.filter(place="x"), to_attr="listed"), _THROUGH_LISTED
        ),
        lambda packet: [stamp.packet.label for stamp in packet.listed],
    ),
    "both": (
        lambda: Packet.objects.select_related("voucher").prefetch_related("stamps", "hub__region"),
        lambda packet: (_hub(packet), _stamps(packet), _voucher(packet)),
    ),
    "a Prefetch of what is selected": (
        lambda: Packet.objects.select_related("hub__region").prefetch_related(
            Prefetch("hub", Hub.objects.select_related("region"))
        ),
        _hub,
    ),
}
RAW: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "in a condition": (lambda: Packet.objects.select_related("hub__region").extra(where=["id > 0"]), _hub),
    "in the order": (
        lambda: Packet.objects.select_related("hub__region").order_by(RawSQL("id", ()).desc()),
        _hub,
    ),
    "in an annotation": (
        lambda: Packet.objects.annotate(n=RawSQL("id", ())).filter(n__gt=0).select_related("voucher"),
        _voucher,
    ),
}
loads = pytest.mark.parametrize(("queryset", "read"), LOADS.values(), ids=LOADS)
ASSIGNED = {
    "a constant": lambda: 5,
    "an expression": lambda: F("weight") + 1,
    "a subquery": lambda: Subquery(Hub.objects.order_by("-pk").values("pk")[:1]),
    "raw SQL": lambda: RawSQL("id + 1", ()),
}


@pytest.mark.parametrize("value", ASSIGNED.values(), ids=ASSIGNED)
@of_every_size
@loads
def test_reading_them_in_a_receiver_runs_no_statement(
    queryset: Callable[[], Any],
    read: Callable[[Any], Any],
    batch_size: int,
    value: Callable[[], Any],
    packets: list[Packet],
    receivers: Receivers,
) -> None:
    expected = {packet.pk: read(packet) for packet in queryset()}
    with bulk_signals(batch_size=batch_size):
        _check(lambda: queryset().update(weight=value()), read, expected, receivers)


@of_every_size
@pytest.mark.parametrize(("queryset", "read"), RAW.values(), ids=RAW)
def test_raw_sql_may_name_columns_that_related_tables_have_too(
    queryset: Callable[[], Any],
    read: Callable[[Any], Any],
    batch_size: int,
    packets: list[Packet],
    receivers: Receivers,
) -> None:
    expected = {packet.pk: read(packet) for packet in Packet.objects.all()}
    with bulk_signals(batch_size=batch_size):
        _check(lambda: queryset().update(weight=5), read, expected, receivers)


def _check(
    update: Callable[[], int], read: Callable[[Any], Any], expected: dict[Any, Any], receivers: Receivers
) -> None:
    """Check what receivers read on the instances, and that it needs no statement."""
    seen: dict[str, dict[Any, Any]] = {"pre": {}, "post": {}}
    spent: list[Any] = []

    def receiver(name: str) -> Callable[..., None]:
        def receive(instance: Any, **arguments: Any) -> None:
            with CaptureQueriesContext(connection) as captured:
                seen[name][instance.pk] = read(instance)
            spent.extend(captured)

        return receive

    receivers.connect(pre_save, receiver("pre"), Packet)
    receivers.connect(post_save, receiver("post"), Packet)
    assert update() == len(expected)
    assert seen == {"pre": expected, "post": expected}
    assert not spent


def _statements(count: int) -> int:
    rows(Packet, *({"hub": hub} for hub in Hub.objects.all()[:2] for _ in range(count)))
    with CaptureQueriesContext(connection) as captured:
        Packet.objects.select_related("hub").prefetch_related("stamps").update(weight=1)
    return len(captured)


def test_the_statements_do_not_grow_with_the_rows(hubs: list[Hub], receivers: Receivers) -> None:
    receivers.connect(pre_save, lambda instance, **arguments: instance.hub.name, Packet)
    assert _statements(1) == _statements(20)


@of_every_size
@pytest.mark.parametrize("load", ["select_related", "prefetch_related"])
@pytest.mark.parametrize("name", ["hub", "hub_id"])
@pytest.mark.parametrize("computed", [False, True])
def test_a_new_reference_drops_the_old_object(
    computed: bool,
    name: str,
    load: str,
    batch_size: int,
    packets: list[Packet],
    hubs: list[Hub],
    receivers: Receivers,
) -> None:
    seen = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(_hub(instance)), Packet)
    value: Any = Case(When(pk__gt=0, then=Value(hubs[0].pk))) if computed else hubs[0].pk
    with bulk_signals(batch_size=batch_size):
        assert getattr(Packet.objects, load)("hub__region").update(**{name: value}) == 4
    assert seen == [("top", None)] * 4


@of_every_size
def test_a_filtered_relation(batch_size: int, packets: list[Packet], receivers: Receivers) -> None:
    if connection.vendor == "mysql":
        pytest.skip("a join of it would lock its table too")
    seen = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(_filtered(instance)), Packet)
    chosen: Any = Packet.objects.all()
    chosen = chosen.annotate(mine=FilteredRelation("voucher", condition=Q(voucher__text="a"))).select_related(
        "mine", "hub"
    )
    with bulk_signals(batch_size=batch_size):
        assert chosen.update(weight=1) == 4
    assert seen == ["a", None, None, None]


@pytest.mark.filterwarnings("ignore:Calling select_related")
def test_select_related_without_names(packets: list[Packet], receivers: Receivers) -> None:
    seen: list[Any] = []

    def receive(instance: Any, **arguments: Any) -> None:
        with CaptureQueriesContext(connection) as captured:
            seen.append((instance.packet.label, len(captured)))

    receivers.connect(pre_save, receive, Stamp)
    assert Stamp.objects.select_related().update(place="z") == 2
    assert seen == [("a", 0), ("a", 0)]


@of_every_size
def test_a_child_with_a_table_of_its_own(batch_size: int, hubs: list[Hub], receivers: Receivers) -> None:
    for hub in (*hubs, None):
        Express(label="e", hub=hub, courier=hubs[0]).save_base(force_insert=True)
    seen: list[Any] = []

    def receive(instance: Any, **arguments: Any) -> None:
        with CaptureQueriesContext(connection) as captured:
            seen.append((_hub(instance), instance.courier.name, len(captured)))

    receivers.connect(pre_save, receive, Express)
    with bulk_signals(batch_size=batch_size):
        assert Express.objects.select_related("hub__region", "courier").update(weight=2, priority=1) == 4
    assert seen == [
        (("top", None), "top", 0),
        (("north", "top"), "top", 0),
        (("south", None), "top", 0),
        (None, "top", 0),
    ]


@of_every_size
def test_the_object_whose_related_manager_it_is(
    batch_size: int, packets: list[Packet], hubs: list[Hub], receivers: Receivers
) -> None:
    north = hubs[1]
    seen: list[Any] = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance.hub is north), Packet)
    with bulk_signals(batch_size=batch_size):
        assert north.packets.update(weight=1) == 2
    assert seen == [True, True]


@pytest.mark.parametrize("load", ["select_related", "prefetch_related"])
@pytest.mark.parametrize("name", ["nowhere", "label", "hub_id", "pk", "hub__name", "hub__region__nowhere"])
def test_a_name_that_is_not_a_relation_is_ignored(
    load: str, name: str, packets: list[Packet], receivers: Receivers
) -> None:
    log = receivers.record(Packet)
    assert getattr(Packet.objects, load)(name).update(weight=7) == 4
    assert len(log.of("post_save")) == 4
    assert column(Packet, "weight") == [7] * 4


@pytest.mark.skipif(not connection.features.has_select_for_update, reason="SQLite has no locks of rows")
def test_their_rows_are_not_locked(packets: list[Packet], receivers: Receivers) -> None:
    receivers.record(Packet)
    with CaptureQueriesContext(connection) as captured:
        Packet.objects.select_related("hub", "voucher").update(weight=7)
    locking = [query["sql"] for query in captured if "FOR UPDATE" in query["sql"]]
    assert locking
    of_itself = f"FOR UPDATE OF {connection.ops.quote_name('tests_packet')}"
    assert all("JOIN" not in sql or sql.endswith(of_itself) for sql in locking)


@pytest.mark.skipif(django.VERSION < (6, 1), reason="fetch modes came with Django 6.1")
@pytest.mark.parametrize("mode", ["FETCH_ONE", "FETCH_PEERS"])
@of_every_size
def test_the_fetch_mode_of_the_queryset(
    mode: str, batch_size: int, packets: list[Packet], receivers: Receivers
) -> None:
    fetch_mode = getattr(models, mode)
    seen: list[Any] = []
    receivers.connect(pre_save, lambda instance, **arguments: seen.append(instance._state.fetch_mode), Packet)
    chosen: Any = Packet.objects.all()
    with bulk_signals(batch_size=batch_size):
        assert chosen.fetch_mode(fetch_mode).update(weight=7) == 4
    assert seen == [fetch_mode] * 4
