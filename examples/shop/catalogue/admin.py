"""Bulk actions as most projects have them: one `update()` each."""

from __future__ import annotations

from decimal import Decimal

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import F, QuerySet
from django.http import HttpRequest
from simple_history.admin import SimpleHistoryAdmin

from catalogue.models import PriceChange, Product, price_tag
from catalogue.receivers import TooExpensive


@admin.register(Product)
class ProductAdmin(SimpleHistoryAdmin):
    list_display = ("name", "price", "active", "in_the_window")
    list_filter = ("active",)
    ordering = ("name",)
    actions = ("discontinue", "raise_prices")

    @admin.display(description="in the shop window (cached)")
    def in_the_window(self, product: Product) -> str:
        return price_tag(product.pk)

    @admin.action(description="Discontinue")
    def discontinue(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        changed = queryset.update(active=False)
        self.message_user(request, f"Discontinued {changed} products.")

    @admin.action(description="Raise prices by 10 %%")
    def raise_prices(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        try:
            # In a block of its own: with ATOMIC_REQUESTS, an error then rolls back this update only.
            with transaction.atomic():
                changed = queryset.update(price=F("price") * Decimal("1.1"))
        except TooExpensive as error:
            self.message_user(request, f"No price was raised: {error}.", messages.ERROR)
        else:
            self.message_user(request, f"Raised {changed} prices by 10 %.")


@admin.register(PriceChange)
class PriceChangeAdmin(admin.ModelAdmin):
    list_display = ("product", "old", "new")
    ordering = ("-pk",)
