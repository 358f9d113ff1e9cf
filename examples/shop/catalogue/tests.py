from __future__ import annotations

from decimal import Decimal

from django.core.cache import cache
from django.db.models import F
from django.test import TestCase

from catalogue.models import PriceChange, Product, price_tag


class BulkOperationsReachTheReceivers(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.mug = Product.objects.create(name="Mug", price=Decimal("10.00"))
        cls.pen = Product.objects.create(name="Pen", price=Decimal("2.00"))

    def setUp(self) -> None:
        self.addCleanup(cache.clear)

    def test_an_update_drops_the_cached_price_tags_and_logs_every_change(self) -> None:
        self.assertEqual(price_tag(self.mug.pk), "Mug: 10.00 EUR")

        Product.objects.update(price=F("price") * Decimal("1.5"))

        self.assertEqual(price_tag(self.mug.pk), "Mug: 15.00 EUR")
        self.assertEqual(
            list(PriceChange.objects.order_by("product").values_list("product__name", "old", "new")),
            [("Mug", Decimal("10.00"), Decimal("15.00")), ("Pen", Decimal("2.00"), Decimal("3.00"))],
        )

    def test_an_update_of_another_field_logs_no_price_change(self) -> None:
        Product.objects.update(active=False)

        self.assertFalse(PriceChange.objects.exists())

    def test_a_delete_drops_the_cached_price_tags(self) -> None:
        price_tag(self.pen.pk)

        Product.objects.filter(pk=self.pen.pk).delete()

        with self.assertRaises(Product.DoesNotExist):
            price_tag(self.pen.pk)
