"""The event "progress" of real runs on fake engines."""

from __future__ import annotations

import pytest

from fastgen.scheduler import run as run_module


@pytest.fixture(autouse=True)
def told_always(monkeypatch):
    monkeypatch.setattr(run_module, "TICK_S", 0.0)


def progress(outcome) -> list[dict]:
    return [event for event in outcome.events if event["event"] == "progress"]


def test_it_says_how_far_the_run_is_and_what_workers_do(settings, go, rows_file):
    rows = [{"id": f"r{k}", "prompt": "a fox"} for k in range(40)] + [{"id": "bad", "prompt": "x", "size": "1x1"}]
    told = progress(go(settings("t2i", rows_file(rows), size="64x64", batch_size=4)))
    assert {"event", "rows", "total", "done", "failed", "kept", "images", "images_per_second", "eta_seconds"} < set(
        told[0]
    )
    assert [event["rows"] for event in told] == sorted(event["rows"] for event in told)
    (worker,) = told[-1]["workers"]
    assert set(worker) == {
        *("lane", "backend", "state", "bucket", "batches", "images_per_second", "memory_mib", "restarts"),
    }
    assert {event["workers"][0]["state"] for event in told if event["workers"]} >= {"loading", "working"}
    working = next(event for event in told if event["workers"] and event["workers"][0]["state"] == "working")
    assert working["workers"][0]["bucket"] == "t2i 64x64" and working["workers"][0]["lane"] == "cpu"
    last = told[-1]
    assert last["total"] == 41 and last["failed"] == 1 and last["images"] > 0 and last["images_per_second"] > 0
    assert any(event["eta_seconds"] is not None for event in told)


def test_rows_of_an_earlier_run_count_from_the_start(settings, go, rows_file):
    rows = [{"id": f"r{k}", "prompt": "a fox"} for k in range(30)]
    go(settings("t2i", rows_file(rows[:20]), size="64x64"))
    told = progress(go(settings("t2i", rows_file(rows), size="64x64")))
    assert told[0]["rows"] == 20 and told[-1]["rows"] >= 20 and told[-1]["total"] == 30


def test_a_worker_that_died_has_a_restart(settings, go, rows_file):
    rows = [{"id": f"r{k}", "prompt": "crash:once" if k == 3 else "a fox"} for k in range(8)]
    outcome = go(settings("t2i", rows_file(rows), size="64x64", batch_size=1))
    assert "lane_died" in {event["event"] for event in outcome.events}
    restarts = [event["workers"][0]["restarts"] for event in progress(outcome) if event["workers"]]
    assert restarts[0] == 0 and restarts == sorted(restarts) and restarts[-1] >= 1
