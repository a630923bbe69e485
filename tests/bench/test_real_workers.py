"""The part of the time in which the places of workers have rows at work."""

from __future__ import annotations

import pytest

from bench.real_workers import control, measure, used


@pytest.mark.parametrize(
    ("times", "places", "part"),
    [
        ([1, 2, 3, 4], 1, 1.0),
        ([0.5, 1.5, 2.5, 3.5, 4.5, 1, 2, 3, 4], 2, 1.0),  # rows that began before, and that end after
        ([1, 2.25, 3.5, 4.75], 1, 3.25 / 4),  # a quarter of a second is lost after each row
        ([1, 2, 3, 4], 2, 0.5),
    ],
)
def test_what_is_used_is_not_rounded_to_whole_rows(times, places, part):
    assert used(times, 1.0, places, 0.0, 4.0) == pytest.approx(part)


def test_a_real_worker_beside_the_control(tmp_path):
    found = measure(tmp_path, 1, 0.02)
    assert found["places"] > 1 and 0 < found["efficiency"] < 1.1  # moments are noted a little late
    assert 0 < control(1, 2, 0.02, 0.1) < 1.1
