from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from simple_history.admin import SimpleHistoryAdmin

from orders.models import Order


@admin.register(Order)
class OrderAdmin(SimpleHistoryAdmin):
    list_display = ("customer", "product", "status")
    list_filter = ("status",)
    ordering = ("customer", "pk")
    actions = ("mark_as_shipped",)

    @admin.action(description="Mark as shipped")
    def mark_as_shipped(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        changed = queryset.update(status=Order.Status.SHIPPED)
        self.message_user(request, f"Marked {changed} orders as shipped.")
