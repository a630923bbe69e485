"""The vLLM backend without vLLM: how its own server is reached, and what a server that runs says before the first
row."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image

from fastgen.backends.remote.vllm import VllmBackend
from fastgen.backends.remote.vllm_server import Server
from fastgen.config.hardware import Device, Gpu, child_environment
from fastgen.errors import EngineError, FastgenError, SettingsError
from fastgen.resolver import resolve
from tests.simulator import Simulator

CPU = Device("cpu", "cpu", 1)


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *about): ...


@pytest.fixture
def settings(tmp_path):
    return resolve("caption", None, base_url="http://127.0.0.1:9/v1", model="a-vlm", out=tmp_path)


def test_its_own_server_is_not_looked_for_behind_a_proxy(settings, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("fastgen.backends.remote.vllm_server.READY_IN_S", 3.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as healthy:
        threading.Thread(target=healthy.serve_forever, daemon=True).start()
        server = Server(settings, CPU)
        server.url = f"http://127.0.0.1:{healthy.server_port}/v1"
        server._leash = SimpleNamespace(
            poll=lambda: None, stdin=SimpleNamespace(close=lambda: None), wait=lambda seconds: 0
        )
        server._wait()
        backend = VllmBackend(settings, CPU)
        backend.open()
        assert backend.http.proxy == "http://127.0.0.1:9", "a server of the user's may be behind it"
        backend.server = server
        monkeypatch.setattr(server, "start", lambda: None)
        backend.open()
        assert not backend.http.proxy
        assert backend.http.send("GET", f"{server.url}/models", {}).status == 200
        healthy.shutdown()


def test_a_wrong_key_is_called_that_before_the_first_row(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "not-the-key")
    with Simulator() as simulator:
        backend = VllmBackend(resolve("caption", None, base_url=simulator.openai_url, out=tmp_path), CPU)
        with pytest.raises(FastgenError, match="401") as caught:
            backend.open()
    assert "not-the-key" not in str(caught.value)


RECORDING = """
import json, os, socket, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *about): ...
folder = os.path.dirname(__file__)
with open(os.path.join(folder, "starts.jsonl"), "a") as file:
    file.write(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}) + chr(10))
port = int(sys.argv[sys.argv.index("--port") + 1])
first = len(open(os.path.join(folder, "starts.jsonl")).readlines()) == 1
if first and os.path.exists(os.path.join(folder, "dies")):
    sys.exit(open(os.path.join(folder, "dies")).read())
if first and os.path.exists(os.path.join(folder, "stranger")):  # in a session of its own, so it is not of this server
    if os.fork() == 0:
        os.setsid()
        ThreadingHTTPServer(("127.0.0.1", port), Server).serve_forever()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.01)
    time.sleep(600)
ThreadingHTTPServer(("127.0.0.1", port), Server).serve_forever()
"""
GPUS = [Gpu(i, f"GPU-{i}", "NVIDIA Test", 79.6, "9.0") for i in range(4)]


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """recording(**flags) -> the server of each replica. A program in place of vLLM writes down how it was started."""
    monkeypatch.setattr("fastgen.config.hardware.find_gpus", lambda *about: GPUS)
    (tmp_path / "recording.py").write_text(RECORDING)
    made = []

    def make(**flags):
        settings = resolve(
            "caption",
            flags.pop("input", None),
            vllm_command=f"{sys.executable} {tmp_path / 'recording.py'} serve",
            out=tmp_path / "out",
            **{"model": "a/vlm", **flags},
        )
        (tmp_path / "out" / "logs").mkdir(parents=True, exist_ok=True)
        made.extend(Server(settings, device) for device in settings.placement.devices)
        return made

    yield make
    for server in made:
        server.stop()


def after(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


@pytest.mark.parametrize(
    ("flags", "visible"),
    [
        ({"gpus": "0,1,2,3", "gpus_per_replica": 2}, ["GPU-0,GPU-1", "GPU-2,GPU-3"]),
        ({"gpus": "0+1,2+3"}, ["GPU-0,GPU-1", "GPU-2,GPU-3"]),
        ({"gpus": "3,1"}, ["GPU-3", "GPU-1"]),
    ],
)
def test_a_replica_gets_its_gpus(recording, tmp_path, table, monkeypatch, flags, visible):
    for server in recording(**flags):
        for name, value in child_environment(server.device).items():  # as its worker has it
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        server.start()
    starts = table(tmp_path / "starts.jsonl")
    assert [start["environment"]["CUDA_VISIBLE_DEVICES"] for start in starts] == visible
    size = None if "gpus_per_replica" not in flags and "+" not in flags["gpus"] else "2"
    assert [after(start["arguments"], "--tensor-parallel-size") for start in starts] == [size] * 2
    assert all(start["arguments"][:2] == ["serve", "a/vlm"] for start in starts)
    assert not {"OMP_NUM_THREADS", "PYTHONPATH"} & set(starts[0]["environment"]), "they are for the worker"
    assert all(start["environment"]["VLLM_API_KEY"] for start in starts)
    logs = sorted(path.name for path in (tmp_path / "out" / "logs").iterdir())
    names = ["0+1", "2+3"] if size else ["1", "3"]
    assert logs == [f"vllm-cuda-{name}.log" for name in names]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"gpus": "0,1,2", "gpus_per_replica": 2}, "3 GPUs cannot be divided into groups of 2"),
        ({"gpus": "cpu", "gpus_per_replica": 2, "model": "tiny"}, "no GPUs in this run"),
        ({"base_url": "http://127.0.0.1:9", "gpus_per_replica": 2}, "only a vLLM server that this command starts"),
        ({"backend": "openai", "gpus_per_replica": 2}, "only a vLLM server that this command starts"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, monkeypatch, flags, words):
    monkeypatch.setattr("fastgen.config.hardware.find_gpus", lambda *about: GPUS)
    command = {} if "base_url" in flags or "backend" in flags else {"vllm_command": sys.executable}
    with pytest.raises(SettingsError, match=words):
        resolve("caption", None, out=tmp_path, **{"model": "a/vlm", **command, **flags})


def test_a_fallback_to_an_api_takes_no_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen.config.hardware.find_gpus", lambda *about: GPUS)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    flags = {"gpus_per_replica": 4, "fallback": "openai:some-model", "vllm_command": sys.executable}
    settings = resolve("caption", None, model="a/vlm", out=tmp_path, **flags)
    assert [device.name for device in settings.placement.devices] == ["cuda:0+1+2+3"]


@pytest.mark.parametrize(("names", "repeat"), [(["a.png", "b.png"], False), (["a.png", "a.png"], True), (None, None)])
def test_caches_are_chosen_by_the_rows(recording, tmp_path, table, names, repeat):
    rows = None
    if names:
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps({"image": name, "prompt": str(i)}) + "\n" for i, name in enumerate(names)))
    [server] = recording(gpus="0", input=rows)
    server.start()
    words = table(tmp_path / "starts.jsonl")[0]["arguments"]
    assert ("--enable-prefix-caching" in words) == (repeat is True)
    assert ("--no-enable-prefix-caching" in words) == (repeat is False)
    assert (float(after(words, "--mm-processor-cache-gb")) > 0) == (repeat is True)
    said = [note for note in server.settings.run.notes if "vLLM" in note]
    assert said == (["vLLM keeps pictures and prefixes: the first 2 rows name 1 pictures 2 times"] if repeat else [])


def test_a_stranger_at_its_port_is_not_talked_to(recording, tmp_path, table):
    """Another program answers there, in time and well: another port is taken."""
    (tmp_path / "stranger").touch()
    [server] = recording(gpus="0")
    try:
        server.start()
        starts = table(tmp_path / "starts.jsonl")
        ports = [after(start["arguments"], "--port") for start in starts]
        assert len(set(ports)) == 2 and server.url == f"http://127.0.0.1:{ports[1]}/v1" and server.alive
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if str(tmp_path / "recording.py") in (process.info["cmdline"] or ()):
                process.kill()


def test_a_port_that_is_taken_is_not_the_end(recording, tmp_path, table):
    (tmp_path / "dies").write_text("OSError: [Errno 98] Address already in use")
    [server] = recording(gpus="0")
    server.start()
    assert len(table(tmp_path / "starts.jsonl")) == 2 and server.alive


def test_why_it_does_not_start_is_said_first(recording, tmp_path, table):
    (tmp_path / "dies").write_text("ValueError: No available memory for the cache blocks. Try this\n" + "more\n" * 40)
    [server] = recording(gpus="0")
    with pytest.raises(EngineError) as caught:
        server.start()
    first, _, rest = str(caught.value).partition("; the end of ")
    assert first.startswith(
        "vLLM did not come up: ValueError: No available memory for the cache blocks. Try this. To fix"
    )
    assert "--gpus-per-replica" in first and rest.count("more") > 5
    assert len(table(tmp_path / "starts.jsonl")) == 1, "it is not started again"


DYING = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Server(BaseHTTPRequestHandler):
    answered = 0
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Server.answered += 1
        if Server.answered > 3:
            print("out of everything", flush=True)
            os._exit(1)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a picture"}}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *about): ...
port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Server).serve_forever()
"""


def test_a_server_that_dies_again_ends_the_run(tmp_path, cli, rows_file, table):
    """It is started once more; after that nobody waits for it, and the rows that it left wait for the next run."""
    (tmp_path / "dying.py").write_text(DYING)
    program = tmp_path / "dying"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "dying.py"} "$@"\n')
    program.chmod(0o755)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    rows = rows_file([{"id": str(i), "image": "red.png"} for i in range(16)])
    command = (
        "caption",
        rows,
        "-o",
        "out",
        "--gpus",
        "cpu",
        "--vllm-command",
        program,
        "--max-inflight",
        "1",
        "--model",
        "tiny",
    )
    started = time.monotonic()
    done = cli(*command)
    assert done.returncode == 1 and "ended again" in done.stderr and "out of everything" in done.stderr, done.stderr
    assert time.monotonic() - started < 100
    for _ in range(4):
        if (done := cli(*command)).returncode == 0:
            break
        assert done.returncode in (1, 3), done.stderr
    assert done.returncode == 0, done.stderr
    assert [row["caption"] for row in table(tmp_path / "out/results.jsonl")] == ["a picture"] * 16
