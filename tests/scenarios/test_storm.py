"""A bad day at a service, in small: `python -m bench.storm` is the same in large."""

from __future__ import annotations

import pytest

from bench.storm import run

pytest.importorskip("openai")
pytest.importorskip("google.genai")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "task", "in_200"),
    [("vllm", "caption", True), ("openai", "t2i", False), ("gemini", "caption", False)],
)
def test_every_row_ends_with_its_true_reason(tmp_path, backend, task, in_200):
    found = run(tmp_path, 150, 0.25, turned_away_s=4.0, backend=backend, task=task, inflight=16, in_200=in_200)
    assert found["exit_code"] == 3 and found["lines"] == 150, found
    assert not found["other_reason_than_true"] and not found["terminal_kinds_retried"], found
    assert not found["no_caption_in_its_place"], found
    # Of few rows a larger part is under way when the storm begins.
    assert found["requests_per_finished_row"] < 1.7, found
