"""Ctrl-C in a program that uses fastgen from Python, or is a pipeline of DataFlow-MM: a real process, a real signal,
and a service that counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.simulator import Simulator

pytest.importorskip("openai")
KEY = "test-key"
ROWS, AT_ONCE = 12, 4
PATIENCE_S = 120

GENERATE = """
import sys, time, fastgen
settings = fastgen.resolve("t2i", out="out", backend="openai", model="gpt-image-2", quality="low", size="1024x1024",
                           base_url=sys.argv[1], max_inflight=4)
rows = [{"id": f"r{i}", "prompt": f"picture {i}"} for i in range(12)]
got = []
try:
    for result in fastgen.generate(settings, rows):
        got.append(result.id)
        print("got", flush=True)
        if "busy" in sys.argv:
            time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""
SUSPENDED = GENERATE.replace(
    "for result in fastgen.generate(settings, rows):",
    "results = fastgen.generate(settings, rows); result = next(results); sys.exit(7)\n    if result:",
)
PIPELINE = """
import json, sys
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageGenerator
from fastgen.dataflow.serving import APIImageGenServing
from fastgen.dataflow.utils.storage import FileStorage
with open("rows.jsonl", "w") as file:
    for i in range(12):
        file.write(json.dumps({"conversations": [{"role": "user", "content": f"picture {i}"}]}) + "\\n")
serving = APIImageGenServing(sys.argv[1], ImageIO("pictures"), api_key="test-key", model_name="gpt-image-2",
                             batch_size=4, quality="low", size="1024x1024")
try:
    PromptedImageGenerator(serving).run(FileStorage("rows.jsonl", "./cache", "step").step(), "conversations")
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.fixture
def service():
    with Simulator(keys={KEY}, latency_s=0.5) as simulator:
        yield simulator


@pytest.fixture
def start(service, tmp_path):
    """start(program, *arguments) -> a process with its stdout and stderr, ended with the test."""
    started = []

    def start(program, *arguments):
        (tmp_path / "program.py").write_text(program)
        process = subprocess.Popen(
            [sys.executable, "program.py", service.openai_url, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OPENAI_API_KEY": KEY, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def asked(service: Simulator) -> list[str]:
    return sorted(request.prompt for request in service.requests if request.operation == "generate")


def wait_until(what) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.01)


def finish(process) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, errors


def once_each(service) -> bool:
    return asked(service) == sorted(f"picture {i}" for i in range(ROWS))


def test_what_is_under_way_is_awaited_and_kept_and_then_the_program_is_told(service, start, tmp_path, table):
    process = start(GENERATE)
    wait_until(lambda: len(asked(service)) >= AT_ONCE + 2)
    process.send_signal(signal.SIGINT)
    code, out, errors = finish(process)
    under_way = len(asked(service))
    assert code == 130 and out.endswith("interrupted\n") and "press Ctrl-C again" in errors, errors
    assert len(table(tmp_path / "out/journal.jsonl")) == under_way == out.count("got") < ROWS
    assert finish(start(GENERATE))[0] == 0 and once_each(service)
    assert table(tmp_path / "out/spending.jsonl")[-1]["rec"]["total"] == pytest.approx(service.ledger_usd)


def test_also_while_the_program_does_something_else(service, start, tmp_path, table):
    """KeyboardInterrupt comes at once there; what is under way is awaited as the loop is left."""
    process = start(GENERATE, "busy")
    assert process.stdout.readline() == "got\n"
    wait_until(lambda: len(asked(service)) >= AT_ONCE)
    process.send_signal(signal.SIGINT)
    code, out, errors = finish(process)
    assert code == 130 and out == "interrupted\n" and "press Ctrl-C again" in errors, errors
    assert len(table(tmp_path / "out/journal.jsonl")) == len(asked(service)) < ROWS
    assert finish(start(GENERATE))[0] == 0 and once_each(service)


def test_also_if_the_program_ends_with_results_not_taken(service, start, tmp_path, table):
    assert finish(start(SUSPENDED))[0] == 7
    assert len(table(tmp_path / "out/journal.jsonl")) == len(asked(service)) < ROWS
    assert finish(start(GENERATE))[0] == 0 and once_each(service)


def test_the_second_one_is_immediate_and_what_was_under_way_counts_as_possibly_paid(service, start, tmp_path, table):
    service.latency_s = 600
    process = start(GENERATE)
    wait_until(lambda: len(asked(service)) == AT_ONCE)
    process.send_signal(signal.SIGINT)
    assert "press Ctrl-C again" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert code == 130 and out == "interrupted\n" and not table(tmp_path / "out/journal.jsonl")
    service.latency_s = 0
    assert finish(start(GENERATE))[0] == 0
    assert len(asked(service)) == ROWS + AT_ONCE
    assert table(tmp_path / "out/spending.jsonl")[-1]["rec"]["total"] == pytest.approx(service.ledger_usd)


def test_a_pipeline_of_dataflow_too(service, start, tmp_path, table):
    process = start(PIPELINE)
    wait_until(lambda: len(asked(service)) >= AT_ONCE + 2)
    process.send_signal(signal.SIGINT)
    code, out, errors = finish(process)
    assert (code, out) == (130, "interrupted\n") and "press Ctrl-C again" in errors, errors
    [journal] = tmp_path.glob("**/journal.jsonl")
    assert len(table(journal)) == len(asked(service)) < ROWS
    code, _, errors = finish(start(PIPELINE))
    assert code == 0 and once_each(service), errors
