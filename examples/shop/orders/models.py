from __future__ import annotations

from auditlog.registry import auditlog
from catalogue.models import Product
from django.db import models
from simple_history.models import HistoricalRecords


class Order(models.Model):
    class Status(models.TextChoices):
        PAID = "paid"
        SHIPPED = "shipped"

    customer = models.CharField(max_length=100)
    product = models.ForeignKey(Product, models.PROTECT)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PAID)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return f"{self.product} for {self.customer}"


auditlog.register(Order)
