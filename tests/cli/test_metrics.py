"""--metrics-port: the figures of a run, as Prometheus reads them, on the loopback unless told otherwise."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from fastgen.cli import metrics
from fastgen.errors import SettingsError
from fastgen.scheduler.run import Run

parser = pytest.importorskip("prometheus_client.parser")


def scrape(url: str) -> dict[tuple, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.items())] = sample.value
    return found


def test_the_figures_of_a_run(settings, rows_file):
    rows = [{"id": f"{i}", "prompt": "a"} for i in range(5)] + [{"id": "no", "prompt": "refuse"}]
    run = Run(settings("t2i", rows_file(rows), batch_size=1))
    runs: list[Run] = []
    url = metrics.serve("0", lambda: runs[0].overview() if runs else None)
    assert url.startswith("http://127.0.0.1:")
    assert not [name for name, *_ in scrape(url) if name.startswith("fastgen")], "there is no run yet"
    runs.append(run)
    seen = [scrape(url) for _ in run.results()]
    status = {name: ("fastgen_rows", ("status", name)) for name in ("done", "failed")}
    assert [found[status["done"]] + found[status["failed"]] for found in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1][status["failed"]] == 1 and seen[-1]["fastgen_images_total",] == 5
    assert seen[0]["fastgen_rows_expected",] == 6
    who = (("backend", "fake"), ("worker", "cpu"))
    assert seen[-1]["fastgen_worker_rows_total", *who] == 6
    assert seen[-1]["fastgen_worker_restarts_total", *who] == 0
    for found in seen:
        assert sum(value for (name, *_), value in found.items() if name == "fastgen_worker_state") == 1
    about = run.summary()["workers"]["cpu"]
    assert about["rows"] == 6 and 0 < about["busy"] <= 1 and about["loading_seconds"] > 0


@pytest.mark.parametrize(
    ("given", "there"),
    [("9100", ("127.0.0.1", 9100)), ("0.0.0.0:9100", ("0.0.0.0", 9100)), ("[::1]:80", ("::1", 80))],
)
def test_an_address(given, there):
    assert metrics.address(given) == there


@pytest.mark.parametrize("given", ["", "abc", "70000", "host:", "-1"])
def test_what_is_no_address(given):
    with pytest.raises(SettingsError, match=r"--metrics-port .*such as 9100"):
        metrics.address(given)


def test_a_port_that_is_taken_is_said_before_the_run():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--metrics-port {port}: cannot listen there"):
            metrics.serve(str(port), lambda: None)
