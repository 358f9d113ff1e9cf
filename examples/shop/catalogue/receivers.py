"""Ordinary receivers, written for save(): nothing here knows of bulk operations."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.cache import cache
from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import receiver

from catalogue.models import PriceChange, Product

HIGHEST_PRICE = Decimal(1000)


class TooExpensive(ValueError):
    """A product would cost more than this shop asks for anything."""


@receiver([post_save, post_delete], sender=Product)
def drop_the_price_tag(instance: Product, **kwargs: Any) -> None:
    cache.delete(f"price-tag-{instance.pk}")


@receiver(pre_save, sender=Product)
def refuse_what_is_too_expensive(instance: Product, **kwargs: Any) -> None:
    if instance.price > HIGHEST_PRICE:
        raise TooExpensive(f"{instance} would cost {instance.price} EUR")


@receiver(pre_save, sender=Product)
def log_the_price_change(instance: Product, **kwargs: Any) -> None:
    old = Product.objects.filter(pk=instance.pk).values_list("price", flat=True).first()
    if old is not None and old != instance.price:
        PriceChange.objects.create(product=instance, old=old, new=instance.price)
