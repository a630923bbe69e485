"""A vLLM server of our own that is stopped is found, ended and started again. A program of the test stands in for vLLM;
tests/scenarios/test_vllm.py does the same with the real one."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from fastgen.backends.remote import vllm_health, vllm_server
from fastgen.backends.remote.ports import sessions_of
from fastgen.backends.remote.vllm import VllmBackend
from fastgen.backends.remote.vllm_health import FIRST_STILL_S, STILL_S, TIMES, Pulse, counters_of
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, Request, TextParams

METRICS = b"# HELP x\nvllm:generation_tokens_total 5.0\nprocess_cpu_seconds_total 1.0\n"


def test_only_the_counters_of_vllm_count():
    assert counters_of(METRICS) == counters_of(METRICS.replace(b"1.0", b"2.0")) is not None
    assert counters_of(METRICS) != counters_of(METRICS.replace(b"5.0", b"6.0"))
    assert counters_of(b"process_cpu_seconds_total 1.0\n") is None and counters_of(b"") is None


def looks(pulse: Pulse, *, most: int = 10_000, asked=True, answers=1, counters=7, talks=True) -> int | None:
    """How many looks, one per second, until it counts as hung."""
    for number in range(most):
        if pulse.look(1.0, asked, answers, counters, talks):
            return number
    return None


def test_a_server_hangs_if_nothing_comes_from_it_while_it_has_requests():
    assert looks(Pulse(120.0)) == STILL_S, "its engine was stopped: its counters stand still"
    assert looks(Pulse(120.0), talks=False, counters=None) == STILL_S, "all of it was stopped"
    assert looks(Pulse(120.0), answers=0) == FIRST_STILL_S, "before its first answer it may compile"
    assert looks(Pulse(120.0), asked=False) is None, "without requests it has nothing to do"
    assert looks(Pulse(120.0), counters=None) is None, "a program without counters is not judged by them"


def test_a_step_or_an_answer_is_a_sign_of_work():
    pulse = Pulse(120.0)
    assert not any(pulse.look(STILL_S - 1, True, 1, number, True) for number in range(20)), "the steps of a long answer"
    pulse = Pulse(120.0)
    assert not any(pulse.look(STILL_S - 1, True, number, None, False) for number in range(20)), "answers"


def test_the_limit_is_learned_from_its_pauses_and_is_at_most_the_timeout():
    pulse = Pulse(3600.0)
    pulse.look(1.0, True, 1, 0, True)
    pulse.look(50.0, True, 1, 0, True)
    pulse.look(1.0, True, 2, 1, True)
    assert pulse.limit_s == TIMES * 50
    pulse.timeout_s = 120.0
    assert pulse.limit_s == 120 and Pulse(5.0, _answers=1).limit_s == STILL_S


PROGRAM = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Server(BaseHTTPRequestHandler):
    answered = 0
    def do_GET(self):
        body = b"vllm:generation_tokens_total %d" % Server.answered
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Server.answered += 1
        said = f"a picture from {os.getpid()}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *about): ...
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Server).serve_forever()
"""


@pytest.mark.parametrize("whom", ["server", "server and supervisor"])
def test_a_stopped_server_is_ended_and_started_again(tmp_path, monkeypatch, capfd, whom):
    for name, value in {"LOOK_EVERY_S": 0.05, "ANSWER_S": 0.2, "STILL_S": 0.5}.items():
        monkeypatch.setattr(vllm_health, name, value)
    monkeypatch.setattr(vllm_server, "STOP_IN_S", 1.0 if whom != "server" else vllm_server.STOP_IN_S)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"{sys.executable} {tmp_path / 'program.py'}"
    settings = resolve("caption", None, model="tiny", gpus="cpu", vllm_command=command, out=tmp_path / "out")
    (tmp_path / "out/logs").mkdir(parents=True)
    request = Request("a", "caption", (), TextParams(300, 0.0, 0), dialogue=(("user", "what is this?"),))
    backend = VllmBackend(settings, settings.placement.devices[0])
    try:
        backend.open()
        leash = backend.server._leash.pid
        (first,) = backend.run(Batch(Bucket.of(request), (request,)))
        (pid,) = sessions_of(leash)
        assert isinstance(first, Done) and first.text == f"a picture from {pid}", first
        if whom != "server":
            os.kill(leash, signal.SIGSTOP)
        os.killpg(pid, signal.SIGSTOP)
        (failed,) = backend.run(Batch(Bucket.of(request), (request,)))
        assert failed.kind == "unavailable" and failed.attempts == 1, failed
        (second,) = backend.run(Batch(Bucket.of(request), (request,)))
        assert isinstance(second, Done) and second.text != first.text
        assert "vLLM's server hangs (no sign of work for" in capfd.readouterr().err
        limit = time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < limit:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{pid}/exe"), "it is gone, with all that it had"
    finally:
        backend.close()
