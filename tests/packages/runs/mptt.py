"""Trees, whose nodes carry numbers that an insert or a move changes by update()."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from mptt.models import MPTTModel, TreeForeignKey

from signal_patch import bulk_signals, no_bulk_signals
from tests.packages.comparing import Claim, Heard


class Genre(MPTTModel):
    name = models.CharField(max_length=10)
    parent = TreeForeignKey("self", models.CASCADE, null=True, related_name="children")

    class MPTTMeta:
        order_insertion_by = ("name",)


def insert() -> None:
    """Insert a tree before two others, which moves these."""
    Genre.objects.all()._raw_delete("default")
    for name in ("rock", "soul", "pop"):
        Genre.objects.create(name=name)


def run() -> Iterator[Claim]:
    def trees() -> list[object]:
        return [*Genre.objects.order_by("name").values_list("name", "tree_id", "lft", "rght")]

    heard = Heard(lambda genre: (genre.name, Genre.objects.count()), post_save, sender=Genre)
    insert()
    expected, off = trees(), heard()
    with bulk_signals():
        insert()
    yield Claim("on: the trees are the same", trees(), expected)
    yield Claim(
        "on: receivers hear of the rows that make room, before the new row is there",
        heard(),
        [*off[:2], ("rock", 2), ("soul", 2), off[2]],
    )
    with bulk_signals(), no_bulk_signals(Genre):
        insert()
    yield Claim("in no_bulk_signals() they do not", heard(), off)
