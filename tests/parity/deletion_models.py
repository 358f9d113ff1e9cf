"""Models for deletions: a tree, and rows that refer to its nodes by each rule that Python follows."""

from __future__ import annotations

from django.db import models

# The keys of nodes to which rows fall back, and which no example deletes.
DEFAULT, CONSTANT, COMPUTED = 101, 102, 103


def computed_node() -> Node:
    return Node(pk=COMPUTED, code="z")  # whatever the database


class Node(models.Model):
    code = models.CharField(max_length=10, unique=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
    friend = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")
    note = models.CharField(max_length=20, default="")

    objects = models.Manager()


class Leaf(models.Model):
    removed = models.ForeignKey(Node, models.CASCADE, null=True, related_name="+")
    nulled = models.ForeignKey(Node, models.SET_NULL, null=True, related_name="+", db_column="null_id")
    coded = models.ForeignKey(Node, models.SET_NULL, null=True, to_field="code", related_name="+")
    emptied = models.ForeignKey(Node, models.SET_DEFAULT, null=True, default=None, related_name="+")
    defaulted = models.ForeignKey(Node, models.SET_DEFAULT, default=DEFAULT, related_name="+")
    fixed = models.ForeignKey(Node, models.SET(CONSTANT), null=True, related_name="+")
    computed = models.ForeignKey(Node, models.SET(computed_node), null=True, related_name="+")
    note = models.CharField(max_length=20, default="")
    log = models.JSONField(default=list)

    objects = models.Manager()


class Bud(Leaf):
    """A child with a table of its own."""

    twig = models.ForeignKey(Node, models.SET_NULL, null=True, related_name="+")


class Bug(models.Model):
    """Refers to a leaf, and is deleted with it."""

    leaf = models.ForeignKey(Leaf, models.CASCADE, null=True, related_name="+")
    former = models.ForeignKey(Leaf, models.SET_NULL, null=True, related_name="+")
    note = models.CharField(max_length=20, default="")

    objects = models.Manager()
