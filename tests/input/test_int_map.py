"""A dict of integers that is small."""

from __future__ import annotations

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from fastgen.input.int_map import SMALLEST, IntMap

INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.integers(0, 40).map(lambda n: n * SMALLEST)
"""Also small ones, and ones that want the same place."""


@given(st.lists(st.tuples(INT64, st.integers(0, 2**63 - 1))), st.lists(INT64))
def test_it_is_a_dict(pairs, others):
    found, expected = IntMap(), {}
    for key, value in pairs:
        found[key], expected[key] = value, value
        assert len(found) == len(expected)
    for key in (*expected, *others):
        assert found.get(key) == expected.get(key) and (key in found) == (key in expected)
    assert sorted(found.values()) == sorted(expected.values())


def test_it_grows_and_stays_small():
    rng = random.Random(1)
    pairs = {hash(f"row {rng.random()}"): number for number in range(50_000)}
    found = IntMap()
    for key, value in pairs.items():
        found[key] = value
    for key, value in pairs.items():
        found[key] = value + 1  # as a row that is made again
    assert len(found) == len(pairs) and all(found.get(key) == value + 1 for key, value in pairs.items())
    assert sorted(found.values()) == list(range(1, 50_001))
    taken = sum(map(sys.getsizeof, (found._keys, found._values)))
    assert taken < 16 * len(pairs) / 0.3
