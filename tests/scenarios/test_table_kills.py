"""A table in Parquet into Parquet and a WebDataset, killed at random moments: the small edition of bench/formats.py."""

from __future__ import annotations

import pytest

from bench.formats import run


@pytest.mark.slow
def test_killed_at_random_every_row_is_there_once(tmp_path):
    found = run(tmp_path, count=1500, kills=4, late=1, longest_s=3.0, seed=3)
    assert found["kills"] == 4 and found["main_peak_mb"] < 400
