"""The vLLM backend without vLLM: how its own server is reached, and what a server that runs says before the first
row."""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from PIL import Image

from fastgen.backends.remote.vllm import VllmBackend
from fastgen.backends.remote.vllm_server import Server
from fastgen.config.hardware import Device
from fastgen.errors import FastgenError
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
    rows = rows_file([{"id": str(i), "image": "red.png"} for i in range(40)])
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
    for _ in range(9):
        if (done := cli(*command)).returncode == 0:
            break
        assert done.returncode in (1, 3), done.stderr
    assert done.returncode == 0, done.stderr
    assert [row["caption"] for row in table(tmp_path / "out/results.jsonl")] == ["a picture"] * 40
