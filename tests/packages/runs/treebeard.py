"""Trees, whose moves are update() calls of many nodes."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from treebeard.mp_tree import MP_Node

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard


class Genre(MP_Node):
    name = models.CharField(max_length=10)


def make() -> None:
    """Make two trees, the second with a child."""
    Genre.objects.all()._raw_delete("default")
    Genre.add_root(name="rock")
    Genre.add_root(name="pop").add_child(name="synth")


def move() -> None:
    pop, rock = (Genre.objects.get(name=name) for name in ("pop", "rock"))
    pop.move(rock, "first-child")


def run() -> Iterator[Claim]:
    def tree() -> list[object]:
        return [*Genre.objects.order_by("path").values_list("name", "path", "depth", "numchild")]

    heard = Heard(lambda genre: (genre.name, tree()), post_save, sender=Genre)
    make()
    heard()
    before = tree()
    move()
    expected = tree()
    yield Claim("off: a move sends nothing", heard(), [])
    make()
    heard()
    with bulk_signals():
        move()
    seen = heard()
    yield Claim("on: the tree is the same", tree(), expected)
    yield Claim(
        "on: receivers hear of each node that moves", {name for name, _ in seen}, {"rock", "pop", "synth"}
    )
    halves = [found for _, found in seen if found not in (before, expected)]
    yield Claim("on: the tree that they see may be half moved", bool(halves), True)
