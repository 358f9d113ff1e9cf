"""The arithmetic of the benchmarks' table; nothing is timed here."""

from __future__ import annotations

import pytest

from tests.benchmarks.racing import Contender, race, rotated
from tests.benchmarks.table import HEADS, Line, Target, markdown, paired, quartiles


def nothing(given: object = None) -> None:
    pass


def test_ratios_are_taken_round_by_round() -> None:
    assert paired([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_contenders_with_different_numbers_of_rounds_have_no_ratios() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_the_spread_of_samples_is_their_quartiles() -> None:
    assert quartiles([4.0, 0.0, 2.0, 3.0, 1.0]) == (1.0, 3.0)


def test_one_sample_is_its_own_spread() -> None:
    assert quartiles([1.5]) == (1.5, 1.5)


@pytest.mark.parametrize(
    ("target", "value", "reached"),
    [
        (Target(1.1), 1.1, True),
        (Target(1.1), 1.104, True),
        (Target(1.1), 1.11, False),
        (Target(6.5, at_least=True), 6.5, True),
        (Target(6.5, at_least=True), 6.49, False),
    ],
)
def test_a_target_is_reached_by_the_number_that_the_table_shows(
    target: Target, value: float, reached: bool
) -> None:
    assert target.reached(value) is reached


def test_a_line_of_the_table_has_median_quartiles_target_and_verdict() -> None:
    late = Line("update / floor", [1.0, 1.2, 1.4], Target(1.1))
    quick = Line("loop / update", [8.0, 7.0, 9.0], Target(6.5, at_least=True))
    measured_once = Line("memory", [90.0], Target(120), " MiB")
    without_target = Line("memory of few", [9.0], unit=" MiB")

    cells = [line.cells() for line in (late, quick, measured_once, without_target)]
    lines = markdown(HEADS, cells).splitlines()

    assert lines == [
        "| measure | median | quartiles | target | reached |",
        "| --- | --- | --- | --- | --- |",
        "| update / floor | 1.20 | 1.10 to 1.30 | ≤ 1.10 | no |",
        "| loop / update | 8.00 | 7.50 to 8.50 | ≥ 6.50 | yes |",
        "| memory | 90.00 MiB | one run | ≤ 120.00 MiB | yes |",
        "| memory of few | 9.00 MiB | one run |  |  |",
    ]


def test_contenders_take_turns_in_being_first() -> None:
    first, second, third = (Contender(name, nothing, nothing) for name in "abc")

    orders = [rotated([first, second, third], number) for number in range(4)]

    assert [order[0].name for order in orders] == ["a", "b", "c", "a"]
    assert orders[1] == [second, third, first]


def test_only_the_run_is_timed_and_it_gets_what_was_prepared() -> None:
    now = [0.0]

    def prepare() -> float:
        now[0] += 100
        return 2.0

    def run(seconds: float) -> None:
        now[0] += seconds

    times = race([Contender("a", prepare, run), Contender("b", prepare, nothing)], 2, lambda: now[0])

    assert times == {"a": [2.0, 2.0], "b": [0.0, 0.0]}
