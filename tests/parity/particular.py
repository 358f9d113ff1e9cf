"""Models and values that only exist on the database of this run."""

from __future__ import annotations

from typing import Any

from django.db import connection, models

from tests.parity.common import Common

MODELS: tuple[type[Common], ...] = ()
# By the class of the field: values that a column returns unchanged, other values that Django accepts, and
# values that it refuses.
POOLS: dict[type[models.Field[Any, Any]], list[Any]] = {}
LOOSE: dict[type[models.Field[Any, Any]], list[Any]] = {}
BAD: dict[type[models.Field[Any, Any]], list[Any]] = {}
NAMED_POOLS: dict[str, list[Any]] = {}
EXPRESSIONS: dict[type[models.Field[Any, Any]], list[Any]] = {}

if connection.vendor == "postgresql":
    # It cannot be imported without psycopg.
    from tests.parity import postgres_models

    MODELS = (postgres_models.Rich, postgres_models.Indexed)
    POOLS, LOOSE, BAD = postgres_models.POOLS, postgres_models.LOOSE, postgres_models.BAD
    NAMED_POOLS, EXPRESSIONS = postgres_models.NAMED_POOLS, postgres_models.EXPRESSIONS
