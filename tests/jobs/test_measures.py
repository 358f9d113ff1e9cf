"""Keys on a scale, the pace of steps, and where lanes are divided."""

from __future__ import annotations

from uuid import UUID

import pytest

from signal_patch.contrib.jobs import pace
from signal_patch.contrib.jobs.keys import Scale


def test_whole_numbers_lie_where_they_should() -> None:
    scale = Scale(100, 200)
    assert [scale.share(key) for key in (100, 125, 200)] == [0.0, 0.25, 1.0]
    assert [scale.share(key) for key in (1, 500)] == [0.0, 1.0]
    assert scale.middle() == 150


def test_uuids_lie_where_they_should() -> None:
    scale = Scale(UUID(int=0), UUID(int=2**128 - 1))
    assert scale.share(UUID(int=2**126)) == pytest.approx(0.25)
    assert scale.middle() == UUID(int=2**127 - 1)


def test_text_is_measured_beyond_what_both_ends_share() -> None:
    scale = Scale("order-a", "order-e")
    assert scale.share("order-b") == pytest.approx(0.25)
    assert scale.middle() == "order-c"
    assert Scale("", "b").middle() == "1"


def test_the_middle_of_text_is_text_that_databases_take() -> None:
    # The middle is a surrogate, which cannot be encoded.
    middle = Scale("\ud7ff", "\ue000").middle()
    assert middle.encode() <= "\ue000".encode()


def test_other_keys_are_not_measured() -> None:
    scale = Scale(1.5, 2.5)
    assert scale.share(2.0) == 0.0
    assert scale.middle() is None


def test_one_key_is_no_range() -> None:
    assert Scale(7, 7).share(7) == 0.0


def test_a_step_grows_by_a_fifth_at_most() -> None:
    assert pace.next_size(100, 0.001, 1.0) == 120
    assert pace.next_size(1, 0.001, 1.0) == 2


def test_a_step_shrinks_to_what_fits_the_target_time() -> None:
    assert pace.next_size(100, 0.05, 1.0) == 20
    assert pace.next_size(100, 9.0, 1.0) == 1


def test_a_lane_without_rows_has_no_pace() -> None:
    assert pace.average(None, 0, 3.0) is None
    assert pace.next_size(100, None, 1.0) == 120


def test_the_average_moves_towards_the_newest_step() -> None:
    assert pace.average(None, 10, 1.0) == pytest.approx(0.1)
    assert pace.average(0.1, 10, 2.0) == pytest.approx(0.13)


def test_half_of_one_row_is_one_row() -> None:
    assert [pace.halved(size) for size in (9, 2, 1)] == [4, 1, 1]
