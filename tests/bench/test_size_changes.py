"""Workers change the size of their images hardly more often than they must to end together."""

from __future__ import annotations

import pytest

from bench.size_changes import ENOUGH, amounts, least, measure


@pytest.mark.parametrize(
    ("workers", "rows", "sizes", "equal", "window"),
    [
        (8, 4000, 3, True, 4096),
        (16, 4000, 5, True, 4096),
        (16, 4000, 5, False, 4096),
        (64, 4000, 24, True, 4096),
        (64, 4000, 12, False, 4096),
        (64, 4000, 3, False, 4096),
        (16, 20000, 12, False, 2048),
        (64, 20000, 60, True, 2048),
    ],
)
def test_workers_change_sizes_hardly_more_often_than_they_must(workers, rows, sizes, equal, window):
    found = measure(workers, amounts(rows, sizes, equal), window)
    assert found["changes"] <= ENOUGH * found["least"]
    assert found["efficiency"] >= 0.97


def test_the_least_with_all_rows_in_the_window():
    assert least([10] * 8, 4) == 4, "two sizes for each worker"
    assert least([10] * 24, 64) == 16, "three sizes for eight workers, eight times"
    assert least([10, 20, 30], 2) == 2, "one of the sizes is divided"
    assert least([10], 5) == 0


def test_the_least_if_more_rows_follow():
    """One worker goes round over four sizes of 1/4 each: a visit is from when a size has 3/4 of what is done in a
    visit until it is empty, and four halves of that are the window: so a visit is 2/3 of the window."""
    assert least([1500] * 4, 1, 6000) == 3
    assert least([1500] * 4, 1, 3000) == 3 + 2, "1.5 visits of 2000 rows for the 3000 that follow"
