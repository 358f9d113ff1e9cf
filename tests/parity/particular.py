"""What only the database of this run has: models, and values for their fields."""

from __future__ import annotations

from typing import Any

from django.db import connection, models

from tests.parity.common import Common

MODELS: tuple[type[Common], ...] = ()
# By the kind of field: values that a column gives back as it got them, others that Django takes, and others.
POOLS: dict[type[models.Field[Any, Any]], list[Any]] = {}
LOOSE: dict[type[models.Field[Any, Any]], list[Any]] = {}
BAD: dict[type[models.Field[Any, Any]], list[Any]] = {}
NAMED_POOLS: dict[str, list[Any]] = {}
EXPRESSIONS: dict[type[models.Field[Any, Any]], list[Any]] = {}

if connection.vendor == "postgresql":
    # Where psycopg is not, it can't be imported.
    from tests.parity import postgres_models

    MODELS = (postgres_models.Rich, postgres_models.Indexed)
    POOLS, LOOSE, BAD = postgres_models.POOLS, postgres_models.LOOSE, postgres_models.BAD
    NAMED_POOLS, EXPRESSIONS = postgres_models.NAMED_POOLS, postgres_models.EXPRESSIONS
