"""The test runner inside Django's `runtests.py`: it writes down how every test ended."""

# ruff: noqa: N802  # unittest spells its methods so
from __future__ import annotations

import faulthandler
import json
import os
import re
import time
import traceback
import unittest
from pathlib import Path
from types import TracebackType
from typing import Any

from django.test.runner import DiscoverRunner

SECONDS_PER_TEST = 600
LONGEST_DETAIL = 6000

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class RecordingResult(unittest.TextTestResult):
    """Collects for each test id the set of ways in which it ended, the tracebacks, the time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[str, list[str]] = {}
        self.details: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.started = time.monotonic()

    def startTest(self, test: unittest.TestCase) -> None:
        # A deadlock then ends the run with a stack trace in the log, instead of waiting for ever.
        faulthandler.dump_traceback_later(SECONDS_PER_TEST, exit=True)
        self.started = time.monotonic()
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()
        label = test.id().partition(".")[0]
        spent = time.monotonic() - self.started
        self.seconds[label] = round(self.seconds.get(label, 0) + spent, 3)
        super().stopTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.note(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.note(test, "skipped")

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addFailure(test, err)
        self.note(test, "failed", err)

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addError(test, err)
        self.note(test, "error", err)

    def addExpectedFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        super().addExpectedFailure(test, err)
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.note(test, "unexpected success")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: ExcInfo | None) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            name = subtest.id().removeprefix(test.id())
            self.note(test, f"failed in{without_addresses(name)}", err)

    def note(self, test: unittest.TestCase, ending: str, err: ExcInfo | None = None) -> None:
        """Add a result: a test with subtests has one for each subtest that failed."""
        name = getattr(test, "test_case", test).id()
        self.outcomes[name] = sorted({*self.outcomes.get(name, ()), ending})
        if err is not None:
            text = "".join(traceback.format_exception(err[1]))[-LONGEST_DETAIL:]
            self.details[name] = self.details.get(name, "") + text


class RecordingRunner(DiscoverRunner):
    """Django's runner, writing its result to the file that the environment names."""

    def get_resultclass(self) -> type[RecordingResult]:
        return RecordingResult

    def suite_result(self, suite: unittest.TestSuite, result: Any, **kwargs: Any) -> int:
        record = {name: getattr(result, name) for name in ("outcomes", "details", "seconds")}
        Path(os.environ["DJANGO_SUITE_RECORD"]).write_text(json.dumps(record))
        return super().suite_result(suite, result, **kwargs)


def without_addresses(text: str) -> str:
    """Return `text` without object addresses, which change from run to run."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)
