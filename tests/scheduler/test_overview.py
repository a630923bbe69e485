"""The figures of a run while it goes on."""

from __future__ import annotations

from fastgen.scheduler.run import Run


def test_what_each_worker_does_and_how_many_rows_wait(settings, rows_file):
    rows = [{"id": f"{i}", "prompt": "a"} for i in range(8)]
    run = Run(settings("t2i", rows_file(rows), batch_size=2))
    before = run.overview()
    assert before["workers"] == [] and before["waiting"] == 0 and before["per_second"] == 0.0
    seen = [run.overview() for _ in run.results()]
    for number, found in enumerate(seen, 1):
        [worker] = found["workers"]
        assert (worker["name"], worker["backend"]) == ("cpu", "fake") and worker["state"] in ("ready", "busy")
        assert found["counts"]["done"] == number and found["expected"] == 8
        assert worker["rows"] + worker["in_flight"] + found["waiting"] <= 8
    assert seen[-1]["per_second"] > 0 and run.overview()["state"] == "finished"
    assert run.overview()["workers"] == [], "they have ended"
