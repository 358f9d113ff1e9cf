from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.core.management import BaseCommand, CommandParser, call_command
from orders.models import Order

import signal_patch
from catalogue.models import Product

PRODUCTS = {
    "Apron": "18.50",
    "Bread knife": "24.00",
    "Coffee grinder": "64.00",
    "Colander": "15.90",
    "Copper pan": "89.00",
    "Corkscrew": "9.90",
    "Espresso machine": "949.00",
    "Garlic press": "12.00",
    "Kettle": "42.00",
    "Lemon squeezer": "8.50",
    "Mixing bowl": "14.00",
    "Mug": "10.00",
    "Nutcracker": "11.00",
    "Paring knife": "13.50",
    "Pepper mill": "29.00",
    "Rolling pin": "16.00",
    "Salad bowl": "27.00",
    "Teapot": "35.00",
    "Whisk": "7.00",
    "Wok": "58.00",
}
CUSTOMERS = ("Ada", "Barbara", "Edsger", "Grace", "Ken")


class Command(BaseCommand):
    help = "Make the shop's database with some data in it, and start the shop."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--off", action="store_true", help="turn the switch off")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *, off: bool, port: int, **options: Any) -> None:
        call_command("migrate", run_syncdb=True, verbosity=0)
        if not User.objects.exists():
            load()
        if off:
            signal_patch.disable()
        switch = "off" if off else "on"
        self.stdout.write(f"The switch is {switch}. Log in as admin, with the password admin.")
        # The reloader would start this command a second time.
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)


def load() -> None:
    """Create products, orders, and a user who may do everything."""
    User.objects.create_superuser("admin", password="admin")
    # With a history from their first day on, whether or not the switch is on.
    with signal_patch.bulk_signals():
        products = Product.objects.bulk_create(
            Product(name=name, price=Decimal(price)) for name, price in PRODUCTS.items()
        )
        Order.objects.bulk_create(
            Order(customer=CUSTOMERS[number % len(CUSTOMERS)], product=product)
            for number, product in enumerate(products)
        )
