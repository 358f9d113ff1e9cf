"""Bulk actions of the example shop's admin, and what the history page shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import program
from tests.browser.pages import Toolbar
from tests.browser.shop import Shop

if TYPE_CHECKING:
    from tests.browser.pages import Admin

PRODUCTS = "catalogue/product/"
ORDERS = "orders/order/"

CREATED = ["Created", "None", ""]

with_the_switch_on = pytest.mark.parametrize("options", [()], ids=["on"])
with_the_switch_off = pytest.mark.parametrize("options", [("--off",)], ids=["off"])


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder for pictures: that of the option `--screenshots`, if it is given."""
    return Path(request.config.getoption("--screenshots") or tmp_path)


def take_picture(admin: Admin, path: Path) -> None:
    admin.chrome.execute_script("document.querySelector('#djDebugRoot').remove()")
    assert admin.find("#content").screenshot(str(path))


@with_the_switch_on
def test_with_the_switch_on_the_history_has_every_bulk_action(admin: Admin, pictures: Path) -> None:
    assert admin.act(PRODUCTS, "Raise prices by 10 %", "Kettle", "Mug") == "Raised 2 prices by 10 %."
    assert "Mug: 11.00 EUR" in admin.texts(".field-in_the_window")
    assert admin.act(PRODUCTS, "Discontinue", "Mug") == "Discontinued 1 products."
    assert admin.act(ORDERS, "Mark as shipped", "Ada") == "Marked 4 orders as shipped."

    assert admin.history(ORDERS, "Ada") == [["Changed", "admin", "Status: paid → shipped"], CREATED]
    assert admin.history(PRODUCTS, "Kettle") == [["Changed", "admin", "Price: 42.00 → 46.20"], CREATED]
    assert admin.history(PRODUCTS, "Mug") == [
        ["Changed", "admin", "Active: True → False"],
        ["Changed", "admin", "Price: 10.00 → 11.00"],
        CREATED,
    ]
    take_picture(admin, pictures / "history-on.png")


@with_the_switch_off
def test_with_the_switch_off_the_history_has_none_of_them(admin: Admin, pictures: Path) -> None:
    # The page is cached from here on.
    admin.open(PRODUCTS)
    assert admin.act(PRODUCTS, "Raise prices by 10 %", "Kettle", "Mug") == "Raised 2 prices by 10 %."
    assert "Mug: 10.00 EUR" in admin.texts(".field-in_the_window")
    assert admin.act(PRODUCTS, "Discontinue", "Mug") == "Discontinued 1 products."
    assert admin.act(ORDERS, "Mark as shipped", "Ada") == "Marked 4 orders as shipped."

    assert admin.history(ORDERS, "Ada") == [CREATED]
    assert admin.history(PRODUCTS, "Kettle") == [CREATED]
    assert admin.history(PRODUCTS, "Mug") == [CREATED]
    take_picture(admin, pictures / "history-off.png")


def test_a_receiver_that_refuses_one_price_keeps_all(admin: Admin) -> None:
    said = admin.act(PRODUCTS, "Raise prices by 10 %", "Mug", "Espresso machine")

    assert said == "No price was raised: Espresso machine would cost 1043.90 EUR."
    assert admin.history(PRODUCTS, "Mug") == [CREATED]


@with_the_switch_on
def test_with_the_switch_on_the_toolbar_shows_what_an_action_sent(admin: Admin) -> None:
    admin.act(PRODUCTS, "Discontinue", "Mug", "Wok")

    toolbar = Toolbar(admin)
    toolbar.show()
    assert toolbar.summary() == "none"
    toolbar.switch_to("POST", "/admin/catalogue/product/")
    assert toolbar.summary() == "1 sent, 0 missed, 0 suppressed"
    ((state, name, rows, batches, _, _, _, receivers, site),) = toolbar.operations()
    assert (state, name, rows, batches) == ("sent", "catalogue.Product.update()", "2", "1")
    assert "post_save: catalogue.receivers.drop_the_price_tag" in receivers.splitlines()
    assert site.startswith("catalogue/admin.py:")
    assert site.endswith("discontinue")


@with_the_switch_off
def test_with_the_switch_off_the_toolbar_shows_what_was_missed(admin: Admin) -> None:
    admin.act(ORDERS, "Mark as shipped", "Ada")

    toolbar = Toolbar(admin)
    toolbar.show()
    toolbar.switch_to("POST", "/admin/orders/order/")
    assert toolbar.summary() == "0 sent, 1 missed, 0 suppressed"
    ((state, name, rows, *_),) = toolbar.operations()
    assert (state.splitlines()[0], name, rows) == ("missed", "orders.Order.update(status)", "4")


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(pytest.UsageError, match="--browser needs the program no-such-browser: apt install"):
        program("no-such-browser")


def test_a_shop_that_does_not_start_says_why(shop: Shop) -> None:
    with pytest.raises(pytest.fail.Exception, match="unrecognized arguments: --upside-down"):
        shop.served("--upside-down").__enter__()
