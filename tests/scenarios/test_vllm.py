"""The real vLLM on a CPU, in the environment that `fastgen setup vllm` makes, with the embedded VLM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from msgspec.structs import replace
from PIL import Image

from bench.vllm_fleet import CLOSED, IN_THOUGHTS, MARK, PAIRED, thinking_model
from fastgen.backends.remote import vllm, vllm_health
from fastgen.backends.remote.attempt import Attempt
from fastgen.embedded.scenes import CANVASES, caption, draw, random_scene
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, Request, TextParams
from tests.processes import command_line, ended

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
RUN_S = 400
ROWS = 100


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_as_typed(environment, tmp_path, table):
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgen", "caption", "--backend", "vllm", "--gpus", "cpu"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + RUN_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            seen |= {child.pid: child for child in family(process.pid)}
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    said = process.communicate(timeout=10)[0]
    assert process.returncode == 0, said
    assert len(seen) >= 4 and not [p for p in seen.values() if not ended(p)]
    rows = table(tmp_path / "fastgen-runs/caption/results.jsonl")
    said_of = {row["id"]: row["caption"] for row in rows}
    assert said_of["circle"] == "a large red circle in the center on a blue background"
    assert said_of["question"] == "red" and all(row["fastgen"]["backend"] == "vllm" for row in rows)


def test_killed_at_any_time(environment, tmp_path, table, cli_process):
    """fastgen is killed: vLLM goes with it, and the same command goes on. Then vLLM is killed: it is started once
    more."""
    scenes = []
    with (tmp_path / "rows.jsonl").open("w") as file:
        import random

        rng = random.Random(3)
        for number in range(ROWS):
            scenes.append(random_scene(rng, CANVASES[number % len(CANVASES)]))
            Image.fromarray(draw(scenes[-1])).save(tmp_path / f"{number}.png")
            file.write(json.dumps({"id": str(number), "image": f"{number}.png"}) + "\n")
    command = ("caption", "rows.jsonl", "-o", "out", "--gpus", "cpu", "--max-inflight", "1", "--json")

    def until_done(process, count: int) -> None:
        for line in process.stdout:
            count -= json.loads(line)["event"] == "row_done"
            if not count:
                return
        raise AssertionError(process.stderr.read()[-2000:])

    process = cli_process(*command)
    until_done(process, 3)
    children = family(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    gone, left = psutil.wait_procs(children, timeout=15)
    assert len(gone) >= 3 and not left, "nothing outlives it"
    recorded = {line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")}

    process = cli_process(*command)
    until_done(process, 3)
    children = family(process.pid)
    server = [
        p
        for p in children
        if "vllm_entry" in " ".join(command_line(p)) and "supervisor" not in " ".join(command_line(p))
    ]
    os.killpg(server[0].pid, signal.SIGKILL)
    rest, errors = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, errors + rest[-2000:]
    journal = [line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")]
    assert len(journal) == len(set(journal)) == ROWS and set(journal[: len(recorded)]) == recorded, "nothing twice"
    rows = table(tmp_path / "out/results.jsonl")
    right = sum(row["caption"] == caption(scene) for row, scene in zip(rows, scenes, strict=True))
    assert right >= 0.95 * len(rows), right
    assert not [p for p in children if not ended(p)]


def test_a_server_that_does_not_come_up_says_why(environment, tmp_path, cli):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "cheese"}')
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png"}\n')
    result = cli("caption", "rows.jsonl", "--model", str(tmp_path / "model"), "--gpus", "cpu")
    assert result.returncode == 1 and "vLLM did not come up" in result.stderr and "cheese" in result.stderr


def thoughts_are_told_apart(backend, row) -> None:
    """By the server's parser, by the marks where the server is told that the model does not think, and where the
    template has opened the thought, so that only its end is in the answer."""
    captions = backend.captions
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    for how, answer in ({}, PAIRED), (off, PAIRED), (off, CLOSED):
        captions._more = {**captions._more, **how, "structured_outputs": {"regex": answer}}
        (done,) = backend.run(row)
        assert isinstance(done, Done) and done.text and done.reasoning and not MARK.search(done.text), done
        words = captions._words(Attempt(backend.settings, row.requests[0], backend.gate))
        reply = backend.chat.send(words, 0.0)
        assert bool(reply.reasoning) == (not how) and ("</think>" in reply.content) == bool(how), reply


def test_two_api_servers_end_with_their_main_process_and_when_their_engine_hangs(environment, tmp_path, monkeypatch):
    """Their model thinks, and is asked once."""
    monkeypatch.setattr(vllm_health, "LOOK_EVERY_S", 0.5)
    monkeypatch.setattr(vllm_health, "STILL_S", 5.0)
    monkeypatch.setattr(vllm_health, "TIMES", 0.0)
    monkeypatch.setattr(vllm, "MOST_RESTARTS", 0)
    model = str(thinking_model(tmp_path))
    settings = resolve("caption", None, model=model, thinking="on", gpus="cpu", out=tmp_path)
    serve = settings.placement.profile.serve
    arguments = (*serve.arguments, "--structured-outputs-config", IN_THOUGHTS)
    profile = replace(settings.placement.profile, serve=replace(serve, api_server_count=2, arguments=arguments))
    settings = replace(
        settings,
        placement=replace(settings.placement, profile=profile),
        run=replace(settings.run, pictures_repeat=False),
    )
    (tmp_path / "logs").mkdir()
    backend = vllm.VllmBackend(settings, settings.placement.devices[0])
    server = backend.server
    request = Request("a", "caption", (), TextParams(96, 0.0, 0), dialogue=(("user", "what is this?"),))
    row = Batch(Bucket.of(request), (request,))

    def kill(titles) -> None:
        os.kill(family(server._leash.pid)[0].pid, signal.SIGKILL)

    def hang(titles) -> None:
        """Its engine is stopped; those who take the requests go on, and say that it is healthy."""
        thoughts_are_told_apart(backend, row)
        os.kill(titles["VLLM::EngineCore"], signal.SIGSTOP)
        (failed,) = backend.run(row)
        assert failed.kind == "gone", failed

    try:
        for start, end in ((server.start, kill), (backend.open, hang)):
            start()
            children = family(server._leash.pid)
            titles = {command_line(child)[0].strip(): child.pid for child in children if not ended(child)}
            assert {"VLLM::APIServer_0", "VLLM::APIServer_1", "VLLM::EngineCore"} <= set(titles), titles
            end(titles)
            gone, left = psutil.wait_procs(children, timeout=20)
            assert len(gone) >= 5 and not [p for p in left if not ended(p)]
    finally:
        backend.close()
