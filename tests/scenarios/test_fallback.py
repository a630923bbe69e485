"""Rows that go to the next backend, and money that is not spent twice or beyond its limit."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from fastgen.errors import BudgetError, EngineError
from fastgen.resolver import resolve
from fastgen.scheduler.worker_pool import WorkerPool
from tests.simulator import Simulator

pytest.importorskip("openai")
KEY = "test-key-that-must-not-be-seen-anywhere"
VLM, GPT = "a-vlm", "gpt-6-luna"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, KEY)
    for name in ("OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "DF_API_KEY", "DF_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def simulator():
    """simulator(**options) -> a running Simulator that takes KEY; all are ended with the test."""
    running = []

    def start(**options) -> Simulator:
        running.append(Simulator(keys={KEY}, models={VLM}, **options))
        return running[-1].__enter__()

    yield start
    for one in running:
        one.__exit__(None, None, None)


@pytest.fixture
def rows(tmp_path):
    """rows(prompts) -> a file of rows with a picture each."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")

    def write(prompts) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"image": "red.png", "prompt": text}) + "\n" for text in prompts))
        return path

    return write


def captions(path, first: Simulator, second: Simulator | None, tmp_path, **flags):
    fallback = f"openai:{GPT}@{second.openai_url}" if second else ""
    flags = {"base_url": first.openai_url, "model": VLM, "fallback": fallback, "out": tmp_path / "out", **flags}
    return resolve("caption", path, **flags)


def asked(simulator: Simulator) -> list[str]:
    return [r.prompt for r in simulator.requests if r.operation == "chat"]


def test_what_the_first_cannot_do_goes_to_the_next(simulator, rows, tmp_path, go):
    first, second = simulator(), simulator()
    prompts = ["plain", "fault:error_500 a", "fault:empty_choices b", "fault:refusal_field c", "fault:length d"]
    run = go(captions(rows(prompts), first, second, tmp_path, max_inflight=1))
    served = [row["fastgen"]["backend"] for row in run.table]
    assert [row["fastgen"]["status"] for row in run.table][3:] == ["failed", "failed"], (
        "a refusal or a limit goes nowhere"
    )
    assert served[0] == "vllm" and asked(second).count(prompts[3]) == 0 == asked(second).count(prompts[4])
    assert served[1:3] == ["openai", "openai"], (
        "the same word makes the next backend fail too, so it is the last to speak"
    )
    assert run.table[1]["fastgen"]["attempts"] == 6 and asked(first).count(prompts[1]) == 3


def test_a_refusal_goes_on_where_the_user_says_so(simulator, rows, tmp_path, go):
    first, second = simulator(faults=lambda record: "refusal_field"), simulator()
    run = go(captions(rows(["a", "b"]), first, second, tmp_path, fallback_on_refusal=True))
    assert {row["fastgen"]["backend"] for row in run.table} == {"openai"} and all(row["caption"] for row in run.table)
    assert len(asked(first)) == len(asked(second)) == 2


@pytest.mark.parametrize("fault", ["insufficient_quota", "unauthorized"])
def test_a_backend_that_is_out_gets_no_more_rows(simulator, rows, tmp_path, go, fault):
    first, second = simulator(faults=lambda record: fault), simulator()
    run = go(captions(rows([f"row {i}" for i in range(30)]), first, second, tmp_path, max_inflight=4))
    assert all(row["fastgen"]["backend"] == "openai" and row["caption"] for row in run.table)
    assert len(asked(first)) <= 12 and len(asked(second)) == 30, "only what was under way was tried"
    assert any("gets no more rows" in e["message"] for e in run.events if e["event"] == "warning")


def test_without_another_backend_the_run_stops_and_the_rows_wait(simulator, rows, tmp_path, go):
    broke = simulator(faults=lambda record: "insufficient_quota")
    path = rows([f"row {i}" for i in range(30)])
    with pytest.raises(EngineError, match="quota"):
        go(captions(path, broke, None, tmp_path, max_inflight=2))
    assert len(asked(broke)) <= 12, "what was under way"
    broke.faults = lambda record: ""
    run = go(captions(path, broke, None, tmp_path))
    assert all(row["caption"] for row in run.table) and len(run.table) == 30, (
        "with the account filled the same command goes on"
    )


@pytest.mark.slow
def test_the_first_is_killed_half_way(simulator, rows, tmp_path, go):
    first, second = simulator(latency_s=0.05), simulator()
    path = rows([f"row {i}" for i in range(60)])

    def kill_half_way():
        while len(first.requests) < 30:
            time.sleep(0.01)
        first.kill()

    threading.Thread(target=kill_half_way, daemon=True).start()
    run = go(captions(path, first, second, tmp_path, max_inflight=4))
    served = {name: [r for r in run.table if r["fastgen"]["backend"] == name] for name in ("vllm", "openai")}
    assert len(served["vllm"]) + len(served["openai"]) == 60 and len(served["vllm"]) > 10 < len(served["openai"])
    assert sorted(asked(second)) == sorted(row["prompt"] for row in served["openai"]), "each once"
    answered = {r.prompt for r in first.requests if r.status == 200}
    assert {row["prompt"] for row in served["vllm"]} <= answered


def test_killed_and_run_again_no_recorded_request_is_sent_again(simulator, rows, cli_process, cli, tmp_path, table):
    server = simulator(latency_s=0.1)
    path = rows([f"row {i}" for i in range(40)])
    command = ("caption", path, "--base-url", server.openai_url, "--model", VLM, "--max-inflight", "2", "-o", "out")
    process = cli_process(*command, "--json")
    while len(server.requests) < 12:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl") if line["rec"]["status"] == "done"}
    before = len(server.requests)
    assert 0 < len(done) < 40 and cli(*command).returncode == 0
    rows_now = table(tmp_path / "out/results.jsonl")
    again = {r.prompt for r in server.requests[before:]}
    assert not again & {row["prompt"] for row in rows_now if row["fastgen"]["id"] in done}
    assert len(rows_now) == 40 and all(row["caption"] for row in rows_now)


def test_the_limit_on_cost_is_never_passed(simulator, rows, tmp_path, go, monkeypatch):
    server = simulator()
    path = rows([f"row {i}" for i in range(40)])
    flags = {
        "backend": "openai",
        "model": "gpt-image-2",
        "base_url": server.openai_url,
        "quality": "low",
        "size": "1024x1024",
    }

    def t2i(limit: float):
        return resolve(
            "t2i", path, out=tmp_path / "t2i", max_cost=limit, max_inflight=4, output_key="pictures", **flags
        )

    with pytest.raises(BudgetError, match="--max-cost"):
        go(t2i(0.05))
    first = server.ledger_usd
    assert 0.02 < first <= 0.05
    with pytest.raises(BudgetError):
        go(t2i(0.05))
    assert server.ledger_usd == first, "what was spent before counts"
    with pytest.raises(BudgetError):
        go(t2i(0.1))
    assert first < server.ledger_usd <= 0.1
    about = json.loads((tmp_path / "t2i/run.json").read_text())
    assert about["cost_usd"] == pytest.approx(server.ledger_usd, rel=1e-6)


def test_rows_that_cost_nothing_go_on_at_full_speed_when_the_limit_is_reached(
    simulator, rows, tmp_path, go, table, monkeypatch
):
    first, second, beside = simulator(latency_s=0.12), simulator(), []
    submit = WorkerPool.submit

    def submit_and_note(pool, state, batch):
        beside.append(len(state.in_flight))
        submit(pool, state, batch)

    monkeypatch.setattr(WorkerPool, "submit", submit_and_note)
    path = rows(["fault:refusal_field a", *(f"row {i}" for i in range(60))])
    with pytest.raises(BudgetError):
        go(captions(path, first, second, tmp_path, max_inflight=1, max_cost=1e-7, fallback_on_refusal=True))
    done = [line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")]
    assert len(done) == 60 and not asked(second)
    assert min(beside[10:]) > 0, "more than one at a time"


def test_the_key_is_nowhere(simulator, rows, cli, tmp_path):
    server = simulator()
    path = rows(["a", "fault:unauthorized b", "fault:error_500 c", "fault:html_200 d"])
    said = ""
    for backend, model in (("vllm", VLM), ("openai", GPT), ("gemini", "gemini-3-flash")):
        url = server.gemini_url if backend == "gemini" else server.openai_url
        for key in (KEY, "wrong-key-that-must-not-be-seen"):
            keys = {f"{name}_API_KEY": key for name in ("VLLM", "OPENAI", "GEMINI")}
            result = cli(
                "caption", path, "--backend", backend, "--base-url", url, "--model", model, "--json", "--fresh", **keys
            )
            said += result.stdout + result.stderr
        broken = {f"{name}_API_KEY": KEY + "\n" for name in ("VLLM", "OPENAI", "GEMINI")}
        result = cli(
            "caption",
            path,
            "--backend",
            backend,
            "--base-url",
            url,
            "--model",
            model,
            "--limit",
            "1",
            "--fresh",
            **broken,
        )
        assert result.returncode == 0, "a line break after a key is no part of it"
        said += result.stdout + result.stderr
    assert "must-not-be-seen" not in said and "fastgen" in said
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"must-not-be-seen" not in file.read_bytes(), file
