from __future__ import annotations

from decimal import Decimal

from auditlog.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.models import F
from django.test import TestCase
from orders.models import Order

from catalogue.management.commands.demo import load
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


class BulkActionsOfTheAdminLeaveAHistory(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        load()

    def setUp(self) -> None:
        self.addCleanup(cache.clear)
        self.client.force_login(User.objects.get())

    def act(self, page: str, action: str, *objects: Product | Order) -> str:
        data = {"action": action, "_selected_action": [obj.pk for obj in objects]}
        return self.client.post(f"/admin/{page}/", data, follow=True).content.decode()

    def test_mark_as_shipped(self) -> None:
        order = Order.objects.first()

        self.assertIn("Marked 1 orders as shipped.", self.act("orders/order", "mark_as_shipped", order))

        newest, created = order.history.all()
        self.assertEqual((created.status, newest.status), ("paid", "shipped"))
        self.assertEqual(newest.history_user.username, "admin")
        entry = LogEntry.objects.get_for_object(order).first()
        self.assertEqual(entry.changes, {"status": ["paid", "shipped"]})
        self.assertEqual(entry.actor.username, "admin")

    def test_discontinue(self) -> None:
        mug, kettle = Product.objects.filter(name__in=["Mug", "Kettle"])

        self.assertIn("Discontinued 2 products.", self.act("catalogue/product", "discontinue", mug, kettle))

        for product in (mug, kettle):
            self.assertEqual([record.active for record in product.history.all()], [False, True])

    def test_raise_prices(self) -> None:
        mug = Product.objects.get(name="Mug")

        shown = self.act("catalogue/product", "raise_prices", mug)

        self.assertIn("Raised 1 prices by 10 %.", shown)
        self.assertIn("Mug: 11.00 EUR", shown)
        self.assertEqual([record.price for record in mug.history.all()], [Decimal("11.00"), Decimal("10.00")])
        self.assertEqual(PriceChange.objects.get().new, Decimal("11.00"))

    def test_a_receiver_that_refuses_one_price_keeps_all(self) -> None:
        shown = self.act("catalogue/product", "raise_prices", *Product.objects.all())

        self.assertIn("No price was raised: Espresso machine would cost 1043.90 EUR.", shown)
        self.assertEqual(Product.objects.get(name="Mug").price, Decimal("10.00"))
        self.assertEqual(Product.history.filter(name="Mug").count(), 1)
