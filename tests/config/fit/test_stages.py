"""Blocks are divided so that the slowest stage is as fast as memory allows."""

from __future__ import annotations

import pytest

from fastgen.config.fit.stages import Cut, cut

FLUX = [0.63] * 19 + [0.264] * 38
"""GiB of FLUX.1's blocks in bfloat16."""


@pytest.mark.parametrize(
    ("rooms", "slowest"),
    [
        ([40.0] * 2, 29),
        ([40.0] * 3, 19),
        ([40.0] * 4, 15),
    ],
)
def test_with_room_no_stage_is_slower_than_it_must_be(rooms, slowest):
    found = cut(FLUX, rooms, 0.3, 0.04, 9.1)
    assert found.slowest == slowest
    assert found.stages[0][0] == 0 and found.stages[-1][1] == len(FLUX)
    assert all(one[1] == other[0] for one, other in zip(found.stages, found.stages[1:], strict=False))


def test_the_text_encoders_are_where_there_is_most_room():
    assert cut(FLUX, [40.0, 40.0], 0.3, 0.0, 9.1).text == 1  # the first stage has the larger blocks
    assert cut([1.0] * 4, [10.0, 6.0], 0.0, 0.0, 5.0) == Cut(((0, 2), (2, 4)), 0)


def test_where_memory_is_short_stages_are_not_equal():
    assert cut([1.0] * 6, [2.0, 9.0], 0.0, 0.0, 0.0).stages == ((0, 2), (2, 6))
    assert cut([1.0] * 6, [9.0, 3.5], 1.0, 1.0, 0.0).stages == ((0, 4), (4, 6))


def test_what_does_not_fit():
    assert cut([1.0] * 6, [2.0, 3.0], 0.0, 0.0, 0.0) is None
    assert cut([1.0] * 6, [4.0, 4.0], 0.0, 0.0, 4.5) is None
    assert cut([1.0], [4.0, 4.0], 0.0, 0.0, 0.0) is None  # more devices than blocks
