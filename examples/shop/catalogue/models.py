from __future__ import annotations

from auditlog.registry import auditlog
from django.core.cache import cache
from django.db import models
from simple_history.models import HistoricalRecords


class Product(models.Model):
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    active = models.BooleanField(default=True)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.name


auditlog.register(Product)


class PriceChange(models.Model):
    """The shop's own log: one row for each time that a product's price really changed."""

    product = models.ForeignKey(Product, models.CASCADE, related_name="price_changes")
    old = models.DecimalField(max_digits=8, decimal_places=2)
    new = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.product}: {self.old} -> {self.new}"


def price_tag(pk: int) -> str:
    """Return a product's price as the shop window shows it, from the cache if it is there."""
    return cache.get_or_set(f"price-tag-{pk}", lambda: _render(Product.objects.get(pk=pk)))


def _render(product: Product) -> str:
    return f"{product.name}: {product.price} EUR"
