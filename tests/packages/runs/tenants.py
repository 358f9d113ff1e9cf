"""A schema for each tenant. Needs PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from django_tenants.models import DomainMixin, TenantMixin
from django_tenants.utils import schema_context

from signal_patch import bulk_signals
from tests.packages.comparing import Claim


class Client(TenantMixin):
    auto_create_schema = False


class Domain(DomainMixin):
    pass


class Book(models.Model):
    price = models.IntegerField(default=0)


def run() -> Iterator[Claim]:
    from django.db import connection

    for name in ("one", "two"):
        with connection.cursor() as cursor:
            cursor.execute(
                f"CREATE SCHEMA {name}; CREATE TABLE {name}.packages_book (LIKE public.packages_book)"
            )
        with schema_context(name):
            Book.objects.bulk_create([Book(pk=1)])
    heard: list[str] = []

    def mirror(instance: Book, **arguments: object) -> None:
        heard.append(connection.schema_name)
        if connection.schema_name == "one":
            with schema_context("two"):
                Book.objects.filter(pk=instance.pk).update(price=instance.price)

    post_save.connect(mirror, sender=Book)
    with bulk_signals(), schema_context("one"):
        Book.objects.update(price=5)
    yield Claim("on: the row with the same key in another schema is another row", heard, ["one", "two"])
