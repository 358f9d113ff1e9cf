"""The admin's pages of jobs, with their buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.pages import words
from tests.browser.test_shop import CREATED, PRODUCTS

if TYPE_CHECKING:
    from tests.browser.pages import Admin
    from tests.browser.shop import Shop

JOBS = "signal_patch_jobs/job/"
JOB = f"{JOBS}1/change/"
RUN = ("bulk_jobs", "run", "catalogue.RaisePrices", "--processes", "2")


def press(admin: Admin, button: str) -> tuple[str, str, str]:
    """Press a button of the job, and return its status and progress as the list of jobs then shows them."""
    admin.open(JOB)
    admin.press(f".submit-row input[name={button}]")
    (said,) = admin.texts("ul.messagelist li")
    return said, admin.find(".field-status").text, admin.find(".field-progress").text


def buttons(admin: Admin) -> list[str | None]:
    admin.open(JOB)
    return [button.get_attribute("value") for button in admin.find_all(".submit-row form input[type=submit]")]


def field(admin: Admin, name: str) -> str:
    return admin.find(f".field-{name} .readonly").text


def test_a_job_is_resumed_paused_and_cancelled(admin: Admin, shop: Shop) -> None:
    shop.manage(*RUN, "--steps", "1")

    # One of its two lanes has done a step of five rows.
    assert buttons(admin) == ["Resume", "Cancel"]
    assert field(admin, "status") == "Paused"
    progress = field(admin, "progress")
    assert progress.endswith("%, 5 rows")
    assert sorted(admin.texts("div.module tbody td:nth-child(3)")) == ["0", "5"]
    still, moved = sorted(float(str(bar.get_attribute("value"))) for bar in admin.find_all("progress"))
    assert still == 0 < moved < 1

    assert press(admin, "resume")[:2] == ("Job 1 is running.", "Running")
    assert buttons(admin) == ["Pause", "Cancel"]
    assert press(admin, "pause") == ("Job 1 is paused.", "Paused", progress)
    assert press(admin, "cancel") == ("Job 1 is cancelled.", "Cancelled", progress)
    assert buttons(admin) == []
    assert "cannot be resumed" in shop.manage("bulk_jobs", "resume", "1")


def test_a_row_that_failed_is_shown_with_its_traceback_and_the_job_goes_on_without_it(
    admin: Admin, shop: Shop
) -> None:
    error = "TooExpensive: Espresso machine would cost 1043.90 EUR"
    assert error in shop.manage(*RUN)

    assert buttons(admin) == ["Resume", "Cancel"]
    assert field(admin, "status") == "Failed"
    assert error in field(admin, "error")
    (failed,) = admin.find_all("details")
    assert words(failed) == f"7: catalogue.receivers.{error}"
    admin.find("details summary").click()
    traceback = admin.find("details pre").text
    assert traceback.startswith("Traceback (most recent call last):")
    assert "refuse_what_is_too_expensive" in traceback

    admin.act(PRODUCTS, "Discontinue", "Espresso machine")
    assert press(admin, "resume")[:2] == ("Job 1 is running.", "Running")
    shop.manage("bulk_jobs", "run", "1")
    assert buttons(admin) == []
    assert (field(admin, "status"), field(admin, "progress")) == ("Done", "100.0%, 19 rows")
    assert admin.history(PRODUCTS, "Mug") == [["Changed", "None", "Price: 10.00 → 11.00"], CREATED]
