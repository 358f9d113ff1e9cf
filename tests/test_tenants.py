"""Schemas as tenants: there is one alias, and `connection.schema_name` tells them apart."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.key_models import Coupon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on", "_tenants")]

OPERATIONS: dict[str, Callable[[], object]] = {
    "update": lambda: Coupon.objects.filter(number=1).update(uses=5),
    "bulk_update": lambda: Coupon.objects.bulk_update([Coupon(number=1, uses=5)], ["uses"]),
    "save": lambda: Coupon(number=1, uses=5).save(force_update=True),
}


@contextmanager
def _tenant(name: str) -> Iterator[None]:
    """Work on a tenant's rows as django-tenants does: with its PostgreSQL schema, and its name."""
    former = getattr(connection, "schema_name", "public")
    _use(name)
    yield
    _use(former)


def _use(schema: str) -> None:
    connection.schema_name = schema  # type: ignore[attr-defined]  # as django-tenants names it
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path = {schema}, public")


@pytest.fixture
def _tenants(db: None) -> Iterator[None]:
    """The same row in two schemas. On a database without schemas, both tenants share one row."""
    for schema in ("one", "two"):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE SCHEMA {schema}")
                cursor.execute(f"CREATE TABLE {schema}.tests_coupon (LIKE public.tests_coupon INCLUDING ALL)")
        with _tenant(schema):
            Coupon.objects.update_or_create(number=1)
    _use("one")
    yield
    del connection.schema_name  # type: ignore[attr-defined]  # the database's own search_path comes back with the rollback


def _heard(receivers: Receivers, signal: Any, act: Callable[[], object]) -> list[str]:
    """Return the tenants whose rows a receiver got, in the order of signals; it acts once, for tenant one."""
    heard: list[str] = []

    def receive(instance: Coupon, **arguments: Any) -> None:
        heard.append(connection.schema_name)  # type: ignore[attr-defined]  # as set by _use()
        if heard == ["one"]:
            act()

    receivers.connect(signal, receive, Coupon)
    return heard


@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre_save", "post_save"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("inner", OPERATIONS.values(), ids=OPERATIONS)
def test_the_row_with_the_same_key_in_another_schema_is_another_row(
    operation: Callable[[], object], inner: Callable[[], object], signal: Any, receivers: Receivers
) -> None:
    def act() -> None:
        with _tenant("two"):
            inner()

    heard = _heard(receivers, signal, act)
    operation()
    assert heard == ["one", "two"]
    with _tenant("two"):
        assert Coupon.objects.get().uses == 5


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_the_row_itself_is_in_flight_whichever_schema_was_used_meanwhile(
    operation: Callable[[], object], receivers: Receivers
) -> None:
    def act() -> None:
        with _tenant("two"):
            Coupon.objects.count()
        OPERATIONS["update"]()

    heard = _heard(receivers, post_save, act)
    operation()
    assert heard == ["one"]


def test_what_is_created_in_another_schema_sends_signals(receivers: Receivers) -> None:
    def act() -> None:
        with _tenant("two"):
            Coupon.objects.filter(number=1).delete()
            Coupon.objects.bulk_create([Coupon(number=1)])

    heard = _heard(receivers, pre_save, act)
    OPERATIONS["update"]()
    assert heard == ["one", "two"]


@pytest.mark.parametrize("signal", [pre_delete, post_delete], ids=["pre_delete", "post_delete"])
def test_a_delete_in_one_schema_leaves_the_other_its_signals(signal: Any, receivers: Receivers) -> None:
    saved: list[str] = []

    def note_schema(**arguments: Any) -> None:
        saved.append(connection.schema_name)  # type: ignore[attr-defined]  # _use() sets it

    receivers.connect(post_save, note_schema, Coupon)

    def act() -> None:
        with _tenant("two"):
            Coupon.objects.update_or_create(number=1)
            saved.clear()
            OPERATIONS["update"]()

    _heard(receivers, signal, act)
    Coupon.objects.all().delete()
    assert saved == ["two"]
