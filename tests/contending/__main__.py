"""Writers of one SQLite file: `python -m tests.contending FILE ROUNDS`, each in a process of its own.

A process says "ready", waits for a line, runs all operations so many times, and says what became of them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from typing import Any
from uuid import uuid4

import django
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import F, QuerySet
from django.db.models.signals import post_save, pre_save

import signal_patch


def main(path: str, rounds: int) -> None:
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": {"timeout": 60}}
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=["tests.contending"],
    )
    django.setup()

    from .models import Item, Owner

    if not rounds:
        with connection.schema_editor() as editor:
            editor.create_model(Owner)
            editor.create_model(Item)
        Item.objects.bulk_create([Item(name=f"item {place}") for place in range(4)])
        return

    unlocked: list[str] = []
    current = ""

    def look(**arguments: Any) -> None:
        """Read, as receivers do, and see whether somebody else could write now."""
        Item.objects.count()
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            unlocked.append(current)
        except sqlite3.OperationalError:
            pass
        finally:
            other.close()

    pre_save.connect(look, Item)
    post_save.connect(look, Item)
    signal_patch.enable()
    items: QuerySet[Any] = Item.objects.filter(pk__lte=4)

    def bulk_update() -> None:
        objs = list(items)
        for obj in objs:
            obj.n = F("n") + 1  # type: ignore[assignment]
        Item.objects.bulk_update(objs, ["n"])

    def bulk_create(**arguments: Any) -> None:
        objs = [Item(name=f"item {place}") for place in range(6)]
        Item.objects.bulk_create(objs, **arguments)

    def create_new() -> None:
        Item.objects.bulk_create([Item(name=uuid4().hex[:20]) for _ in range(2)])

    def delete_owner() -> None:
        owner = Owner.objects.create()
        with signal_patch.no_bulk_signals():
            items.update(owner=owner)
        owner.delete()

    operations = {
        "update": lambda: items.update(n=F("n") + 1),
        "update in the caller's transaction": transaction.atomic(lambda: items.update(n=F("n") + 1)),
        "bulk_update": bulk_update,
        "bulk_create": create_new,
        "bulk_create(ignore_conflicts)": lambda: bulk_create(ignore_conflicts=True),
        "bulk_create(update_conflicts)": lambda: bulk_create(
            update_conflicts=True, unique_fields=["name"], update_fields=["owner"]
        ),
        "related manager": lambda: Owner.objects.create().items.add(*items),
        "SET_NULL": delete_owner,
    }
    print("ready", flush=True)
    sys.stdin.readline()
    failed: list[str] = []
    for _ in range(rounds):
        for current, operation in operations.items():
            try:
                operation()
            except OperationalError as error:
                failed.append(f"{current}: {error}")
    print(json.dumps({"failed": failed, "unlocked": unlocked, "counts": [row.n for row in items]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
