"""Many workers are kept busy whatever their speed, and change sizes as seldom as possible: on a simulated clock."""

from __future__ import annotations

import pytest

from bench.scaling import PLACE, simulate
from fastgen.workers import registry


@pytest.fixture(autouse=True)
def only_here(monkeypatch):
    """The place that `simulate` adds is gone after each test."""
    monkeypatch.setitem(registry.PLACES, PLACE, "bench.scaling:Simulated")


@pytest.mark.parametrize(("workers", "rows_each", "least"), [(1, 100, 0.99), (16, 100, 0.97), (256, 40, 0.9)])
def test_all_workers_are_kept_busy(tmp_path, workers, rows_each, least):
    assert simulate(tmp_path, workers, workers * rows_each, charge=False)["efficiency"] >= least


def test_one_slow_worker_costs_no_more_than_it_lacks(tmp_path):
    assert simulate(tmp_path, 8, 2000, slow=5.0, charge=False)["efficiency"] >= 0.97


@pytest.mark.parametrize(
    ("workers", "rows", "sizes"), [(4, 2000, 16), (4, 2000, 8), (8, 1600, 8), (3, 2000, 8), (16, 4000, 40)]
)
def test_workers_are_spread_over_the_sizes(tmp_path, workers, rows, sizes):
    found = simulate(tmp_path, workers, rows, sizes=sizes, charge=False)
    assert found["efficiency"] >= 0.97
    assert found["switches"] <= 1.2 * found["least"]


def test_what_is_left_to_a_slow_worker_is_taken_from_it(tmp_path):
    assert simulate(tmp_path, 4, 2002, slow=5.0, sizes=4, charge=False)["efficiency"] >= 0.97
