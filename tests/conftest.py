"""Fixtures that every test may use. Real files, real processes; no model is downloaded."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup all that tests start would ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)  # and this one in the background of a shell
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FASTGEN_KEEP_QUANTIZED"] = "0"
# Ray Data would ask for figures in the background until the process ends. What it logs has tracebacks, and Python 3.11
# cannot parse in two threads at once: "AST constructor recursion depth mismatch".
os.environ["RAY_DATA_USAGE_DISABLED"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Many processes share the cores here, and threads that spin while they wait take them from each other: with two threads
# a process the embedded models took twice the processor time. Workers under test choose their own number.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
CLI_TIMEOUT_S = 300
"""Generous, since other tests run at the same time."""
SETUP_S = 1200
hypothesis.settings.register_profile("busy", deadline=None)  # an example that a busy machine delays is no fault
hypothesis.settings.load_profile("busy")
MOST_PROCESSES = 8
SPREAD = {
    "tests/bench/test_bench.py",
    "tests/dataflow/test_engine.py",
    "tests/dataflow/test_pipelines.py",
    "tests/dataflow/test_programs.py",
    "tests/embedded/test_models.py",
    "tests/embedded/test_reader.py",
    "tests/opt/test_engine_opt.py",
    "tests/scenarios/test_fallback.py",
    "tests/scenarios/test_invariance.py",
    "tests/scenarios/test_kill.py",
    "tests/scenarios/test_storm.py",
}
"""Files of long tests that share little: each test goes to whichever process is free. Other files stay whole."""


def pytest_xdist_auto_num_workers(config) -> int | None:
    """-n auto: one process more than there are cores, since many tests wait; only this one for a part of the tests."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    narrow = config.option.keyword or config.option.capture == "no" or config.getoption("lf", False)
    if narrow or not any(Path(argument).resolve() == Path(__file__).parent for argument in config.args):
        return 0
    return min(len(os.sched_getaffinity(0)) + 1, MOST_PROCESSES)


class ByFile(LoadScopeScheduling):
    """Hands out files, in the order of `pytest_collection_modifyitems`; of SPREAD ones single tests."""

    def __init__(self, config, log=None):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in SPREAD else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        from fastgen.config.hardware import find_gpus

        if not find_gpus():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU is visible here"))
    if hasattr(config, "workerinput"):  # long ones first; at the very front those that may have to make vLLM's place
        items.sort(key=lambda item: ("scenarios/test_vllm.py" not in item.nodeid, not item.get_closest_marker("slow")))


def pytest_collection_finish(session):
    """Thousands of tests and all libraries stay until the end: not looked through again each time for garbage."""
    gc.collect()
    gc.freeze()


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
def memory(monkeypatch, tmp_path):
    """An empty storage in memory; copies go to a cache folder of their own."""
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path / "home"))
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


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


def _kept_home() -> Path:
    """Under the user's cache, another one for each set of requirements; what a run made serves the next ones."""
    from fastgen.providers import vllm

    wanted = (sys.version_info[:2], vllm.ON_CPU, vllm.BROKEN_ON_CPU)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fastgen-tests" / hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]


@pytest.fixture(scope="session")
def vllm_home():
    """FASTGEN_HOME with a vLLM in it: where FASTGEN_TEST_HOME says, else in the cache. If it is not there it is made as
    a user makes it, once for all processes of a run and for all later runs."""
    home = Path(os.environ.get("FASTGEN_TEST_HOME") or _kept_home())
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "making.lock"):
        done = subprocess.run(
            [sys.executable, "-m", "fastgen", "setup", "vllm", "--cpu"],
            env={**os.environ, "FASTGEN_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=SETUP_S,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return str(home)


@pytest.fixture
def environment(vllm_home, monkeypatch):
    """In it `fastgen caption` finds vLLM."""
    monkeypatch.setenv("FASTGEN_HOME", vllm_home)
