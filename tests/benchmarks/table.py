"""The arithmetic of the table, and the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a median must keep: from above, or with `at_least` from below."""

    bound: float
    at_least: bool = False

    def reached(self, value: float) -> bool:
        # As the table shows both, to two decimals.
        shown = round(value, 2)
        return shown >= self.bound if self.at_least else shown <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:.2f}"


@dataclass(frozen=True, slots=True)
class Line:
    """One measure: its samples, and what their median should be."""

    measure: str
    samples: Sequence[float]
    target: Target | None = None
    unit: str = ""

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.samples)

    def cells(self) -> list[str]:
        low, high = self.quartiles
        spread = f"{low:.2f} to {high:.2f}" if len(self.samples) > 1 else "one run"
        target = self.target
        reached = "" if target is None else ("yes" if target.reached(self.median) else "no")
        bound = "" if target is None else f"{target}{self.unit}"
        return [self.measure, f"{self.median:.2f}{self.unit}", spread, bound, reached]


def paired(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratios of two contenders, round by round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return low, high


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(map(row, [heads, ["---"] * len(heads), *rows]))


def row(cells: Iterable[str]) -> str:
    """Return a line of such a table."""
    return f"| {' | '.join(cells)} |"


HEADS = ("measure", "median", "quartiles", "target", "reached")
