"""A writer of an SQLite file, of which there are several: `python -m tests.contending FILE ROUNDS`.

It prints "ready", waits for a line, runs all operations ROUNDS times, and prints what the rows hold then.
With 0 rounds it creates the tables.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import django
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.db.models.signals import post_save, pre_save

import signal_patch


def main(path: str, rounds: int) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": {"timeout": 60}}
    settings.configure(
        DATABASES={"default": database},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=["tests.contending"],
    )
    django.setup()
    if rounds:
        _write(path, rounds)
    else:
        _prepare()


def _prepare() -> None:
    from .models import Item, Owner

    with connection.schema_editor() as editor:
        editor.create_model(Owner)
        editor.create_model(Item)
    Item._base_manager.bulk_create([Item(name=f"item {place}") for place in range(4)])


def _write(path: str, rounds: int) -> None:
    from .models import Item

    def look(**arguments: Any) -> None:
        """Read, as receivers do, and make sure that nobody else can write now."""
        Item._base_manager.count()
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    pre_save.connect(look, Item)
    post_save.connect(look, Item)
    signal_patch.enable()
    items = Item._base_manager.filter(pk__lte=4)
    operations = _operations(items)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for _ in range(rounds):
        for operation in operations:
            operation()
    json.dump([item.n for item in items], sys.stdout)


def _operations(items: QuerySet[Any]) -> list[Callable[[], object]]:
    from .models import Item, Owner

    def update() -> None:
        items.update(n=F("n") + 1)

    def bulk_update() -> None:
        objs = list(items)
        for obj in objs:
            obj.n = F("n") + 1
        Item._base_manager.bulk_update(objs, ["n"])

    def bulk_create() -> None:
        Item._base_manager.bulk_create([Item(name=uuid4().hex[:20]) for _ in range(2)])

    def ignore() -> None:
        Item._base_manager.bulk_create([Item(name="item 1"), Item(name="item 9")], ignore_conflicts=True)

    def upsert() -> None:
        objs = [Item(name="item 1"), Item(name=uuid4().hex[:20])]
        arguments: dict[str, Any] = {"unique_fields": ["name"], "update_fields": ["owner"]}
        Item._base_manager.bulk_create(objs, update_conflicts=True, **arguments)

    def add() -> None:
        owner: Any = Owner._base_manager.create()
        owner.items.add(*items)

    def set_null() -> None:
        owner: Any = Owner._base_manager.create()
        with signal_patch.no_bulk_signals():
            items.update(owner=owner)
        owner.delete()

    return [update, transaction.atomic(update), bulk_update, bulk_create, ignore, upsert, add, set_null]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
