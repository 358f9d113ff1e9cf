"""For `manage.py bulk_jobs`, and the admin's pages of jobs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db.models import F, QuerySet

from catalogue.models import Product
from signal_patch.contrib.jobs import BulkUpdateJob


class RaisePrices(BulkUpdateJob):
    first_step = 5

    def queryset(self) -> QuerySet[Product]:
        return Product.objects.filter(active=True)

    def values(self) -> dict[str, Any]:
        return {"price": F("price") * Decimal("1.1")}
