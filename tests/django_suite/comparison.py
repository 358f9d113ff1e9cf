"""Which tests end differently with the library on, and whether they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Result = TypeVar("Result")

# Test id -> the ways in which it ended (one, unless several of its subtests went wrong).
Outcomes = dict[str, list[str]]

GOOD = (["passed"], ["skipped"], ["expected failure"])
DID_NOT_RUN = ["did not run"]


@dataclass(frozen=True)
class Difference:
    """A test that ends differently with the library on."""

    test: str
    vanilla: list[str]
    patched: list[str]

    def __str__(self) -> str:
        return f"{self.test}: {' + '.join(self.vanilla)} -> {' + '.join(self.patched)}"


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison: `unlisted` and `stale` must be empty."""

    tests: int
    listed: list[Difference]
    unlisted: list[Difference]
    stale: list[str]
    wrong_anyway: list[str]

    @property
    def failed(self) -> int:
        return len(self.unlisted) + len(self.stale)

    @property
    def passed(self) -> int:
        return self.tests - self.failed


def differences(vanilla: Outcomes, patched: Outcomes) -> list[Difference]:
    """Return the tests that ended differently, or that ran on one side only, by name."""
    pairs = (
        Difference(test, vanilla.get(test, DID_NOT_RUN), patched.get(test, DID_NOT_RUN))
        for test in sorted({*vanilla, *patched})
    )
    return [pair for pair in pairs if pair.vanilla != pair.patched]


def judge(vanilla: Outcomes, patched: Outcomes, allowed: Mapping[str, str]) -> Verdict:
    """Compare two runs: what differs must be listed, and what is listed must differ."""
    found = differences(vanilla, patched)
    differing = {difference.test for difference in found}
    return Verdict(
        tests=len({*vanilla, *patched}),
        listed=[difference for difference in found if difference.test in allowed],
        unlisted=[difference for difference in found if difference.test not in allowed],
        stale=sorted(allowed.keys() - differing),
        wrong_anyway=sorted(
            test for test, ending in vanilla.items() if ending not in GOOD and test not in differing
        ),
    )


def without(results: Mapping[str, Result], tests: Collection[str]) -> dict[str, Result]:
    """Return the results of all tests except these."""
    return {test: result for test, result in results.items() if test not in tests}


def within(tests: Mapping[str, str], labels: Collection[str]) -> dict[str, str]:
    """Return the listed tests that these labels run, if they still exist."""
    return {
        test: reason
        for test, reason in tests.items()
        if any(f"{test}.".startswith(f"{label}.") for label in labels)
    }
