"""The figures of a run on a Ray cluster, for Ray's dashboard and Prometheus: gauges with the names of --metrics-port
(metrics.py), which Ray prefixes with `ray_`. The figures come from `scheduler/overview`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

EVERY_S = 5.0
OF_WORKER = ("in_flight", "rows", "restarts", "busy_seconds", "idle_seconds", "loading_seconds", "lost_seconds")
Sample = tuple[str, dict[str, str], float]


def report(overview: Callable[[], dict[str, Any] | None]) -> None:
    """Tell Ray the figures now and then, as long as this process lives. Needs a process that has joined a cluster.

    Args:
        overview: the figures now; None while there are none.
    """
    gauges: dict[str, Any] = {}

    def go_on() -> None:
        while True:
            tell(gauges, overview())
            ends.wait(EVERY_S)

    ends = threading.Event()
    threading.Thread(target=go_on, name="ray metrics", daemon=True).start()


def tell(gauges: dict[str, Any], found: dict[str, Any] | None) -> None:
    """Set the gauges; those that are missing are made."""
    from ray.util.metrics import Gauge

    for name, tags, value in samples(found) if found else ():
        if name not in gauges:
            gauges[name] = Gauge(name, tag_keys=tuple(tags))
        gauges[name].set(value, tags=tags)


def samples(found: dict[str, Any]) -> Iterator[Sample]:
    """Name, tags and value of each figure."""
    counts, workers = found["counts"], found["workers"]
    rows = {name: counts.get(name, 0) for name in ("done", "failed", "kept")}
    rows |= {"waiting": found["waiting"], "in_flight": sum(worker["in_flight"] for worker in workers)}
    for status, count in rows.items():
        yield "fastgen_rows", {"status": status}, float(count)
    yield "fastgen_rows_expected", {}, float(found["expected"])
    yield "fastgen_rows_per_second", {}, float(found["per_second"])
    yield "fastgen_cost_usd", {}, float(found["cost_usd"])
    for worker in workers:
        who = {"worker": worker["name"], "backend": worker["backend"]}
        for name in OF_WORKER:
            yield f"fastgen_worker_{name}", who, float(worker[name])
