"""Fixtures that every test may use. Real files, real processes; no model is downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FASTGEN_KEEP_QUANTIZED"] = "0"
# A machine with GPUs must give the same results; what needs a GPU is marked so.
CLI_TIMEOUT_S = 120
SETUP_S = 1200


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from fastgen.config.hardware import find_gpus

    if not find_gpus():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU is visible here"))


def read_lines(path: Path) -> list[dict]:
    """The rows of a .jsonl file, which must be whole UTF-8 lines."""
    text = Path(path).read_bytes().decode("utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture
def table():
    """table(path) -> list of dicts."""
    return read_lines


@pytest.fixture
def rows_file(tmp_path):
    """rows_file([{...}, b"a broken line", ...]) -> path of a .jsonl file."""

    def write(rows, name="rows.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def settings(tmp_path):
    """settings(task, input, **flags): resolved for the fake backend on one CPU process, run folder tmp_path/out."""
    from fastgen.resolver import resolve

    def make(task, input=None, **flags):
        return resolve(task, input, **{"backend": "fake", "gpus": "cpu", "out": tmp_path / "out", **flags})

    return make


@pytest.fixture
def go():
    """go(settings): a whole run in this process on real engine processes -> results by id, events, table, journal."""
    from fastgen.scheduler.run import Run

    def go(settings):
        events = []
        run = Run(settings, lambda event, **facts: events.append({"event": event, **facts}))
        results = {result.id: result for result in run.results()}
        out = Path(settings.run.out)
        return SimpleNamespace(
            results=results,
            events=events,
            counts=run.counts,
            state=run.state,
            out=out,
            table=read_lines(out / "results.jsonl"),
            failures=read_lines(out / "failures.jsonl"),
            made=[line["rec"]["id"] for line in read_lines(out / "journal.jsonl")],
        )

    return go


def _command(arguments) -> list[str]:
    return [sys.executable, "-m", "fastgen", *map(str, arguments)]


@pytest.fixture
def cli(tmp_path):
    """cli("t2i", path, "-o", out, ...) -> CompletedProcess of the command, run in tmp_path."""

    def run(*arguments, **environment) -> subprocess.CompletedProcess:
        return subprocess.run(
            _command(arguments),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=CLI_TIMEOUT_S,
            env={**os.environ, **environment},
        )

    return run


@pytest.fixture
def cli_process(tmp_path):
    """cli_process("t2i", ...) -> a running command whose stdout is read line by line; ended with the test."""
    started = []

    def start(*arguments) -> subprocess.Popen:
        process = subprocess.Popen(
            _command(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of one megabyte; small_disk.grow() makes it sixteen."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    except OSError as error:
        pytest.skip(f"cannot mount a small disk: {error}")
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")

    def grow():
        subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)

    yield SimpleNamespace(path=folder, grow=grow)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def vllm_home(tmp_path_factory):
    """FASTGEN_HOME with a vLLM in it: one that is there already (FASTGEN_TEST_HOME), else made as a user makes it."""
    ready = os.environ.get("FASTGEN_TEST_HOME")
    home = ready or str(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        [sys.executable, "-m", "fastgen", "setup", "vllm", "--cpu"],
        env={**os.environ, "FASTGEN_HOME": home},
        capture_output=True,
        text=True,
        timeout=SETUP_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return home


@pytest.fixture
def environment(vllm_home, monkeypatch):
    """In it `fastgen caption` finds vLLM."""
    monkeypatch.setenv("FASTGEN_HOME", vllm_home)
