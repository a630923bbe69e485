"""Workers that are stopped, requests that are not answered, runs that are told to end: named, repaired or ended in a
stated time, and nothing is paid twice."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fastgen.resolver import resolve
from fastgen.scheduler import watchdog, wind_down
from fastgen.scheduler.run import Run
from fastgen.types import Done
from tests.backends.remote.conftest import chat_answer, serving
from tests.simulator import Simulator

KEY = "test-key"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "DF_API_KEY", "DF_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_stopped_worker_is_named_and_replaced_and_its_rows_are_done_once(settings, rows_file, monkeypatch, table):
    monkeypatch.setattr(watchdog, "BEAT_WARN_S", 2.0)
    monkeypatch.setattr(watchdog, "BEAT_END_S", 5.0)
    pids, warned, died = {}, [], []

    def emit(event, **facts):
        if event == "lane_ready":
            pids.setdefault(facts["lane"], []).append(facts["pid"])
        elif event == "warning":
            warned.append(facts["message"])
        elif event == "lane_died":
            died.append((facts["lane"], facts["reason"]))

    rows = rows_file([{"id": f"{i}", "prompt": "slow:0.05"} for i in range(100)])
    run = Run(settings("t2i", rows, gpus="cpu:2", batch_size=1), emit)
    done, stopped = [], 0
    for result in run.results():
        done.append(result)
        answered = any(s.worker.name == "cpu:1" and (s.answers or s.watch.learned) for s in run._pool.states)
        if answered and not stopped:
            os.kill(stopped := pids["cpu:1"][0], signal.SIGSTOP)  # from its first answer on, it must not be silent
    assert len(done) == 100 and all(isinstance(result, Done) for result in done)
    made = [line["rec"]["id"] for line in table(run.folder.path / "journal.jsonl")]
    assert len(set(made)) == len(made) == 100
    assert warned and all("cpu:1: silent for" in message for message in warned)
    assert [lane for lane, _ in died] == ["cpu:1"] and "so it was ended" in died[0][1]
    assert stopped and len(pids["cpu:0"]) == 1


@pytest.fixture
def service():
    with Simulator(keys={KEY}, hang_s=120) as simulator:
        yield simulator


def pictures(path: Path, out: Path, service: Simulator, **flags):
    at = {"backend": "openai", "model": "gpt-image-2", "base_url": service.openai_url, "quality": "low"}
    return resolve("t2i", path, out=out, size="1024x1024", **at, **flags)


def asked(service: Simulator) -> list[str]:
    return sorted(request.prompt for request in service.requests if request.operation != "models")


def wait_until(what) -> None:
    limit = time.monotonic() + 60
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_an_interrupted_run_gives_up_an_unanswered_request_and_counts_it(
    service, rows_file, tmp_path, monkeypatch, table
):
    pytest.importorskip("openai")
    monkeypatch.setattr(wind_down, "GRACE_S", 1.0)
    path = rows_file([{"id": name, "prompt": text} for name, text in (("a", "a fox"), ("b", "fault:hang b"))])
    warned = []
    run = Run(pictures(path, tmp_path / "out", service), lambda event, **facts: warned.append(facts.get("message")))
    stop = threading.Thread(target=lambda: (wait_until(lambda: run.counts["new"] == 1), run.interrupt()))
    stop.start()
    assert [result.id for result in run.results()] == ["a"] and run.state == "interrupted"
    stop.join()
    assert asked(service) == ["a fox", "fault:hang b"]
    lines = [line["rec"] for line in table(tmp_path / "out/spending.jsonl")]
    most = next(line["reserved"] for line in lines if line["id"] == "b" and "reserved" in line)
    last = next(line for line in lines if line["id"] == "b" and "spent" in line)
    assert last["spent"] == most and "may have been billed" in last["why"]
    assert any(
        f"1 rows were still in progress and are left for the next run; their requests may have been billed and "
        f"count for {most:.4f} USD" in str(message)
        for message in warned
    )
    assert json.loads((tmp_path / "out/run.json").read_text())["cost_usd"] >= most


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_is_under_way_when_a_run_is_told_to_end_is_not_paid_twice(
    service, rows_file, tmp_path, cli_process, cli, table, name
):
    pytest.importorskip("openai")
    service.latency_s = 1.0
    path = rows_file([{"id": f"r{i}", "prompt": f"picture {i}"} for i in range(12)])
    command = ["t2i", path, "-o", "out", "--backend", "openai", "--model", "gpt-image-2", "--quality", "low"]
    command += ["--size", "1024x1024", "--base-url", service.openai_url, "--max-inflight", "4"]
    process = cli_process(*command)
    wait_until(lambda: len(asked(service)) >= 6)
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == 130
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "interrupted"
    under_way = len(asked(service))
    assert len(table(tmp_path / "out/journal.jsonl")) == under_way < 12, "all that was asked for is kept"
    assert cli(*command).returncode == 0
    assert asked(service) == sorted(f"picture {i}" for i in range(12)), "each once"


def test_a_crash_counts_what_had_gone_out_once_and_nothing_else(service, rows_file, tmp_path, table):
    """One request is out, and three wait in the worker for their turn, when it is killed."""
    pytest.importorskip("openai")
    path = rows_file([{"id": f"r{i}", "prompt": f"fault:hang:once {i}"} for i in range(4)])
    pids = []

    def emit(event, **facts):
        if event == "lane_ready":
            pids.append(facts["pid"])

    run = Run(pictures(path, tmp_path / "out", service, max_inflight=4, rpm=1), emit)

    def kill_when_one_is_out() -> None:
        wait_until(lambda: len(asked(service)) == 1 and sum(len(s.in_flight) for s in run._pool.states) == 4)
        service.faults = lambda record: ""
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_when_one_is_out)
    killer.start()
    results = run.results()
    done = next(results)
    run.interrupt()
    assert isinstance(done, Done) and not list(results)
    killer.join()
    lines = [line["rec"] for line in table(tmp_path / "out/spending.jsonl")]
    [lost] = [line for line in lines if "may have been billed" in line.get("why", "")]
    assert len(asked(service)) == 2
    # Whichever row went out first; if it is the one that was answered later, it is known what the lost request cost.
    counted = done.cost if lost["id"] == done.id else lost["spent"]
    assert lost["spent"] > done.cost and lines[-1]["total"] == pytest.approx(done.cost + counted)


def test_a_connection_that_falls_silent_costs_one_timeout_and_its_rows_are_done_once(tmp_path, go, table, rows_file):
    """One server accepts a request and says nothing, or stops in the middle of an answer, as long as the run goes on;
    the others of its connections are answered."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    names = ["silent", "half", *(f"sound {i}" for i in range(6))]
    path = rows_file([{"id": name, "image": "a.png", "prompt": f"say {name}"} for name in names])
    over, lock, asked = threading.Event(), threading.Lock(), Counter()

    def answer(handler, body):
        name = next(name for name in names if f"say {name}".encode() in body)
        with lock:
            asked[name] += 1
            hangs = name in ("silent", "half") and asked[name] == 1
        if hangs and name == "half":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(chat_answer()[:40])
            handler.wfile.flush()
        if hangs:
            over.wait(120)
        else:
            handler.reply(200, chat_answer(f"an answer to {name}"))

    with serving(answer) as server:
        base = f"{server.url}/v1"
        run = go(resolve("caption", path, out=tmp_path / "out", base_url=base, model="m", max_inflight=4, timeout=1))
        assert run.counts["done"] == len(names) and not run.failures
        over.set()
    assert [row["caption"] for row in run.table] == [f"an answer to {name}" for name in names]
    assert asked == Counter({name: 2 if name in ("silent", "half") else 1 for name in names})
    made = [line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")]
    assert sorted(made) == sorted(names)
