"""--metrics-port: the figures of a run for Prometheus, over HTTP. Knows Prometheus; the figures come from
`scheduler/overview`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastgen.errors import SettingsError

LOOPBACK = "127.0.0.1"
STATES = ("loading", "ready", "busy", "ending")


def address(given: str) -> tuple[str, int]:
    """PORT, or HOST:PORT. Raises SettingsError."""
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise SettingsError(f"--metrics-port {given}: write a port such as 9100, or with an address 0.0.0.0:9100")
    return host.strip("[]") or LOOPBACK, int(port)


def serve(given: str, overview: Callable[[], dict[str, Any] | None]) -> str:
    """Answer on that port as long as this process lives. Returns the address.

    Args:
        overview: the figures now; None while there are none.

    Raises:
        SettingsError: the port cannot be used, or prometheus_client is not installed.
    """
    host, port = address(given)
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise SettingsError("--metrics-port: prometheus_client is missing: pip install prometheus-client") from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(overview))
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(f"--metrics-port {given}: cannot listen there: {error.strerror or error}") from None
    return f"http://{host}:{server.server_port}/metrics"


class _Collector:
    def __init__(self, overview: Callable[[], dict[str, Any] | None]):
        self._overview = overview

    def collect(self) -> Iterator[Any]:
        if (found := self._overview()) is not None:
            yield from _of_run(found)
            yield from _of_workers(found["workers"])


def _of_run(found: dict[str, Any]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counts = found["counts"]
    rows = GaugeMetricFamily("fastgen_rows", "Rows by status, those of earlier runs included.", labels=["status"])
    for status in ("done", "failed", "kept"):
        rows.add_metric([status], counts.get(status, 0))
    rows.add_metric(["waiting"], found["waiting"])
    rows.add_metric(["in_flight"], sum(worker["in_flight"] for worker in found["workers"]))
    yield rows
    yield GaugeMetricFamily("fastgen_rows_expected", "Rows of INPUT, estimated; 0 if unknown.", found["expected"])
    yield GaugeMetricFamily("fastgen_rows_per_second", "Rows of this run since it was ready.", found["per_second"])
    for name in ("images", "captions"):
        yield CounterMetricFamily(f"fastgen_{name}", f"{name.capitalize()} made in this run.", counts.get(name, 0))
    yield CounterMetricFamily("fastgen_cost_usd", "USD that the run folder has cost.", found["cost_usd"])


def _of_workers(workers: list[dict[str, Any]]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ["worker", "backend"]
    state = GaugeMetricFamily("fastgen_worker_state", "1 for the state that it is in.", labels=[*labels, "state"])
    in_flight = GaugeMetricFamily("fastgen_worker_in_flight", "Rows that it has.", labels=labels)
    counters = {
        "rows": CounterMetricFamily("fastgen_worker_rows", "Rows that it answered for.", labels=labels),
        "restarts": CounterMetricFamily("fastgen_worker_restarts", "How often it was started again.", labels=labels),
        "busy_seconds": CounterMetricFamily("fastgen_worker_busy_seconds", "Time with work.", labels=labels),
        "idle_seconds": CounterMetricFamily("fastgen_worker_idle_seconds", "Time without work.", labels=labels),
        "loading_seconds": CounterMetricFamily("fastgen_worker_loading_seconds", "Time of loading.", labels=labels),
        "lost_seconds": CounterMetricFamily("fastgen_worker_lost_seconds", "Time of lost work.", labels=labels),
    }
    lost = CounterMetricFamily(
        "fastgen_worker_lost_rows", "Rows that it held when it ended.", labels=[*labels, "reason"]
    )
    for worker in workers:
        who = [worker["name"], worker["backend"]]
        for name in STATES:
            state.add_metric([*who, name], float(worker["state"] == name))
        in_flight.add_metric(who, worker["in_flight"])
        for name, family in counters.items():
            family.add_metric(who, worker[name])
        for reason, rows in worker.get("lost_rows", {}).items():
            lost.add_metric([*who, reason], rows)
    yield from (state, in_flight, *counters.values(), lost)
