from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.browser.pages import Admin
from tests.browser.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1200,1000",
)


def program(name: str) -> str:
    """Return the path of a program, or raise UsageError if it is missing."""
    path = shutil.which(name)
    if path is None:
        raise pytest.UsageError(f"--browser needs the program {name}: apt install chromium chromium-driver")
    return path


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = program("chromium")
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    driver = Chrome(options, ChromeService(program("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def options() -> tuple[str, ...]:
    """Options for `manage.py demo`, which a test may override."""
    return ()


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database made by `manage.py demo`."""
    folder = tmp_path_factory.mktemp("loaded")
    with Shop(folder).served():
        pass
    return folder / "shop.sqlite3"


@pytest.fixture
def shop(tmp_path: Path, loaded: Path) -> Shop:
    shutil.copy(loaded, tmp_path)
    return Shop(tmp_path)


@pytest.fixture
def admin(chrome: Chrome, shop: Shop, options: tuple[str, ...]) -> Iterator[Admin]:
    """The shop's admin, with a user logged in."""
    with shop.served(*options) as address:
        admin = Admin(chrome, f"{address}admin/")
        admin.log_in("admin", "admin")
        yield admin
        chrome.delete_all_cookies()
