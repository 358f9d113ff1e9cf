"""What a user does in the admin and in the toolbar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.shadowroot import ShadowRoot
    from selenium.webdriver.remote.webelement import WebElement

SECONDS = 30


def words(element: WebElement) -> str:
    """Return an element's text, with single spaces."""
    return " ".join(element.text.split())


class Admin:
    def __init__(self, chrome: Chrome, url: str) -> None:
        self.chrome = chrome
        self.url = url

    def open(self, path: str = "") -> None:
        self.chrome.get(f"{self.url}{path}")

    def find(self, selector: str) -> WebElement:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.chrome.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.find_all(selector)]

    def press(self, selector: str) -> None:
        """Press a button or a link, and wait for the next page."""
        self._leave_by(self.find(selector))

    def follow(self, text: str) -> None:
        """Follow the first link with this text."""
        self._leave_by(self.chrome.find_element(By.LINK_TEXT, text))

    def _leave_by(self, element: WebElement) -> None:
        page = self.find("html")
        element.click()
        WebDriverWait(self.chrome, SECONDS).until(staleness_of(page))

    def log_in(self, name: str, password: str) -> None:
        self.open()
        self.find("#id_username").send_keys(name)
        self.find("#id_password").send_keys(password)
        self.press("input[type=submit]")

    def act(self, path: str, action: str, *names: str) -> str:
        """Choose objects of a list by name, run a bulk action on them, and return its message."""
        self.open(path)
        for row in self.find_all("#result_list tbody tr"):
            if row.find_element(By.TAG_NAME, "th").text in names:
                row.find_element(By.CSS_SELECTOR, "input.action-select").click()
        Select(self.find("select[name=action]")).select_by_visible_text(action)
        self.press("button[name=index], .actions button[type=submit]")
        return "\n".join(self.texts("ul.messagelist li"))

    def history(self, path: str, name: str) -> list[list[str]]:
        """Go to the history page of an object, and return its comments, users and changes."""
        self.open(path)
        self.follow(name)
        self.press("a.historylink")
        rows = self.find_all("#change-history tbody tr")
        cells = [[words(cell) for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]
        return [[comment, user, changes] for _, _, comment, user, _, changes in cells]


class Toolbar:
    """The debug toolbar of a page, which lives in a shadow root."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    @property
    def root(self) -> ShadowRoot:
        return self.admin.find("#djDebugRoot").shadow_root

    def show(self) -> None:
        self._wait_for("#djShowToolBarButton").click()

    def switch_to(self, method: str, path: str) -> None:
        """Choose an earlier request in the history panel."""
        self._wait_for("#djdt-HistoryPanel a").click()
        self._wait_for("#djdtHistoryRequests tr")
        rows = self.root.find_elements(By.CSS_SELECTOR, "#djdtHistoryRequests > tr")
        row = next(row for row in rows if _request(row) == [method, path])
        request_id = row.get_attribute("data-request-id")
        row.find_element(By.CSS_SELECTOR, "button.switchHistory").click()
        self._wait_for(f"#djDebug[data-request-id='{request_id}']")

    def summary(self) -> str:
        """Return the text on the button of the panel of bulk signals."""
        return self._wait_for("#djdt-BulkSignalsPanel small").text

    def operations(self) -> list[list[str]]:
        """Open the panel of bulk signals, and return its lines."""
        self._wait_for("#djdt-BulkSignalsPanel a").click()
        self._wait_for("#BulkSignalsPanel tbody tr")
        rows = self.root.find_elements(By.CSS_SELECTOR, "#BulkSignalsPanel tbody tr")
        return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]

    def _wait_for(self, selector: str) -> WebElement:
        return self._until(lambda: self.root.find_elements(By.CSS_SELECTOR, selector))

    def _until(self, find: Callable[[], list[WebElement]]) -> WebElement:
        shown: list[WebElement] = WebDriverWait(self.admin.chrome, SECONDS).until(
            lambda _: [element for element in find() if element.is_displayed()]
        )
        return shown[0]


def _request(row: WebElement) -> list[str]:
    """Return the method and the path of a line of the history."""
    method, path, *_ = [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "td > p")]
    return [method, path]
