"""The same work in plain Django code, as a loop of `save()`s, and with the library.

The floor is the least work that is possible: load the rows as instances, send both signals for each,
write once. It is what a good programmer would write who knows the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.models import F, Model, QuerySet
from django.db.models.signals import post_save, pre_save

from signal_patch import bulk_signals, disable

from .models import Columns, Parcel, Unrelated

# Django's own, kept before anything is patched.
DJANGO_UPDATE = QuerySet.update
DJANGO_BULK_UPDATE = QuerySet.bulk_update

CONSTANTS: dict[str, Any] = {"status": "sent", "stock": 7}
EXPRESSIONS: dict[str, Any] = {"stock": F("stock") + 1, "price": F("price") + 1}
COLUMNS = ("status", "stock", "price")
# Of the sizes 100 to 2000, this is the fastest for Django's bulk_update() over the three databases.
BATCH = 200


def receive_before(sender: type[Model], **arguments: Any) -> None:
    """Listen to pre_save, and do nothing."""


def receive_after(sender: type[Model], **arguments: Any) -> None:
    """Listen to post_save, and do nothing."""


def change(sender: type[Model], instance: Parcel, **arguments: Any) -> None:
    """Change another field of each row, to a value of its own."""
    instance.code = f"{instance.status}-{instance.pk}"


@contextmanager
def listening(before: Any = receive_before, sender: type[Columns] = Parcel) -> Iterator[None]:
    """Connect one receiver to each signal."""
    pre_save.connect(before, sender=sender)
    post_save.connect(receive_after, sender=sender)
    try:
        yield
    finally:
        pre_save.disconnect(before, sender=sender)
        post_save.disconnect(receive_after, sender=sender)


def send_before(
    objs: Iterable[Columns], names: frozenset[str] | None, sender: type[Columns] = Parcel
) -> None:
    for obj in objs:
        pre_save.send(sender=sender, instance=obj, raw=False, using="default", update_fields=names)


def send_after(
    objs: Iterable[Columns],
    names: frozenset[str] | None,
    sender: type[Columns] = Parcel,
    *,
    created: bool = False,
) -> None:
    for obj in objs:
        post_save.send(
            sender=sender, instance=obj, created=created, update_fields=names, raw=False, using="default"
        )


def floor_update(queryset: QuerySet[Columns]) -> None:
    names = frozenset(CONSTANTS)
    with transaction.atomic():
        objs = list(queryset)
        for obj in objs:
            obj.status = "sent"
            obj.stock = 7
        send_before(objs, names, queryset.model)
        queryset.update(**CONSTANTS)
        send_after(objs, names, queryset.model)


def floor_expressions(queryset: QuerySet[Parcel]) -> None:
    names = frozenset(EXPRESSIONS)
    with transaction.atomic():
        objs = list(queryset)
        send_before(objs, names)
        queryset.update(**EXPRESSIONS)
        values = {key: rest for key, *rest in queryset.values_list("pk", "stock", "price")}
        for obj in objs:
            obj.stock, obj.price = values[obj.pk]
        send_after(objs, names)


def loop(queryset: QuerySet[Parcel]) -> None:
    # Not even a dormant wrapper around save().
    disable()
    with transaction.atomic():
        for obj in queryset:
            obj.status = "sent"
            obj.stock = 7
            obj.save(update_fields=["status", "stock"])


def patched_update(queryset: QuerySet[Columns]) -> None:
    with bulk_signals():
        queryset.update(**CONSTANTS)


def patched_expressions(queryset: QuerySet[Parcel]) -> None:
    with bulk_signals():
        queryset.update(**EXPRESSIONS)


def django_update(queryset: QuerySet[Parcel]) -> None:
    DJANGO_UPDATE(queryset, **CONSTANTS)


def django_update_nothing(calls: int) -> None:
    for _ in range(calls):
        DJANGO_UPDATE(Parcel.objects.filter(pk=0), status="sent")


def unselected_update_nothing(calls: int) -> None:
    with bulk_signals(Unrelated):
        for _ in range(calls):
            Parcel.objects.filter(pk=0).update(status="sent")


def by_hand_write_back(queryset: QuerySet[Parcel]) -> None:
    names = frozenset({*CONSTANTS, "code"})
    with transaction.atomic():
        objs = list(queryset)
        for obj in objs:
            obj.status = "sent"
            obj.stock = 7
        send_before(objs, names)
        Parcel.objects.bulk_update(objs, names, batch_size=BATCH)
        send_after(objs, names)


def floor_bulk_update(objs: Sequence[Parcel]) -> None:
    names = frozenset(COLUMNS)
    with transaction.atomic():
        send_before(objs, names)
        Parcel.objects.bulk_update(objs, COLUMNS, batch_size=BATCH)
        send_after(objs, names)


def patched_bulk_update(objs: Sequence[Parcel]) -> None:
    with bulk_signals():
        Parcel.objects.bulk_update(objs, COLUMNS, batch_size=BATCH)


def heard_bulk_update(objs: Sequence[Parcel], batch_size: int | None) -> None:
    with listening(), bulk_signals():
        Parcel.objects.bulk_update(objs, [*CONSTANTS], batch_size=batch_size)


def django_bulk_update(objs: Sequence[Parcel], batch_size: int | None) -> None:
    disable()
    DJANGO_BULK_UPDATE(Parcel.objects.all(), objs, [*CONSTANTS], batch_size=batch_size)


def floor_bulk_create(objs: Sequence[Parcel]) -> None:
    with transaction.atomic():
        send_before(objs, None)
        Parcel.objects.bulk_create(objs)
        send_after(objs, None, created=True)


def patched_bulk_create(objs: Sequence[Parcel]) -> None:
    with bulk_signals():
        Parcel.objects.bulk_create(objs)
