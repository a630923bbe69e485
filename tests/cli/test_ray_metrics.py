"""The figures that Ray gets are those of --metrics-port."""

from __future__ import annotations

import pytest

from fastgen.cli import ray_metrics
from fastgen.scheduler.run import Run


def test_the_figures_of_a_run_reach_rays_gauges(settings, rows_file, monkeypatch):
    metrics = pytest.importorskip("ray.util.metrics")
    told = {}

    class Gauge:
        def __init__(self, name, tag_keys):
            self.name, self.tag_keys = name, tag_keys

        def set(self, value, tags):
            assert tuple(tags) == self.tag_keys
            told[self.name, *tags.values()] = value

    monkeypatch.setattr(metrics, "Gauge", Gauge)
    rows = [{"id": f"{i}", "prompt": "a"} for i in range(5)] + [{"id": "no", "prompt": "refuse"}]
    run = Run(settings("t2i", rows_file(rows), batch_size=1))
    gauges = {}
    ray_metrics.tell(gauges, None)
    assert not gauges, "there is no run yet"
    for _ in run.results():
        ray_metrics.tell(gauges, run.overview())
    assert told["fastgen_rows", "done"] == 5 and told["fastgen_rows", "failed"] == 1
    assert told["fastgen_rows_expected",] == 6
    assert told["fastgen_worker_rows", "cpu", "fake"] == 6 and told["fastgen_worker_restarts", "cpu", "fake"] == 0
