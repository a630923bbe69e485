"""Engines that stay open between runs: which run finds which engine, and that none is left behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

import fastgen
from fastgen.workers import process
from tests.processes import ended

PATIENCE_S = 30


@pytest.fixture
def session():
    with fastgen.Session() as session:
        yield session


@pytest.fixture
def ask(settings, session, tmp_path):
    """ask("part", prompt, ..., **flags): a run in a folder of its own -> (pids of its engines, results, warnings)."""

    def run(out, *prompts, session=session, **flags):
        events = []
        resolved = settings("t2i", out=tmp_path / out, **flags)
        rows = [{"id": f"r{i}", "prompt": prompt} for i, prompt in enumerate(prompts)]
        results = list(session.generate(resolved, rows, lambda event, **facts: events.append((event, facts))))
        pids = [facts["pid"] for event, facts in events if event == "lane_ready"]
        return pids, results, [facts["message"] for event, facts in events if event == "warning"]

    return run


def test_the_next_run_goes_on_with_the_engine_in_its_own_folder_at_its_own_settings(ask, tmp_path, table):
    first, _, _ = ask("a", "a fox", seed=1)
    second, results, warnings = ask("b", "a boat", "broken", seed=2, size="96x64", n=2, batch_size=1)
    assert first == second and len(first) == 1 and not warnings
    done = results[0] if results[0].id == "r0" else results[1]
    assert (done.params.width, len(done.paths)) == (96, 2) and all(
        (tmp_path / "b" / path).exists() for path in done.paths
    )
    assert len(list((tmp_path / "a/images").iterdir())) == 1
    [engine] = report(tmp_path / "b")["engines"].values()
    assert engine["kept"] and "kept" not in report(tmp_path / "a")["engines"]["cpu"]
    assert table(tmp_path / "b/results.jsonl")[0]["fastgen"]["id"] == "r0"


def report(out) -> dict:
    return json.loads((out / "run.json").read_text())


def test_what_an_engine_says_goes_into_the_log_of_its_run(ask, tmp_path):
    ask("a", "a fox")
    ask("b", *["broken"] * 8, batch_size=4)
    assert "told to break" in (tmp_path / "b/logs/cpu.log").read_text()
    assert "told to break" not in (tmp_path / "a/logs/cpu.log").read_text()
    ask("b", *["broken"] * 8, batch_size=4, fresh=True)
    assert "told to break" in (tmp_path / "b/logs/cpu.log").read_text(), "also where the folder was cleared meanwhile"


def test_an_engine_that_was_killed_in_between_is_replaced(ask):
    [first], _, _ = ask("a", "a fox")
    os.kill(first, signal.SIGKILL)
    while not ended(first):
        time.sleep(0.01)
    [second], results, _ = ask("b", "a boat")
    assert second != first and isinstance(results[0], fastgen.Done)
    [kept, third], results, _ = ask("c", "crash:once")
    assert kept == second != third and isinstance(results[0], fastgen.Done)
    assert ask("d", "a fox")[0] == [third], "and the one that took its place in a run is kept as well"


def test_another_engine_ends_the_first_and_says_so(ask):
    [first], _, _ = ask("a", "a fox")
    [second], _, [warning] = ask("b", "a fox", max_sequence_length=32)
    assert second != first and ended(first) and "was stopped to make room for one with fake" in warning
    with fastgen.Session() as other:
        [third], _, [warning] = ask("c", "a fox", session=other, max_sequence_length=48)
        assert ended(second) and "cpu" in warning, "also one that another session keeps"
        [fourth], _, _ = ask("d", "a fox", max_sequence_length=48)
        assert fourth == third, "and the same engine serves both"
    assert not ended(fourth)


def test_a_run_without_a_session_has_the_devices_to_itself(ask, settings, tmp_path):
    [first], _, _ = ask("a", "a fox")
    said = []
    list(
        fastgen.generate(
            settings("t2i", out=tmp_path / "b"), [{"prompt": "b"}], lambda event, **facts: said.append((event, facts))
        )
    )
    [second] = [facts["pid"] for event, facts in said if event == "lane_ready"]
    assert (
        ended(first)
        and ended(second)
        and any("was stopped to make room for" in facts.get("message", "") for _, facts in said)
    )


def test_several_engines_are_kept_each_for_its_device(ask):
    first, _, _ = ask("a", *"abcdefgh", gpus="cpu:2", batch_size=1)
    slow = [f"{word} slow:0.5" for word in "abcdefgh"]  # long enough for both to be ready
    second, _, _ = ask("b", *slow, gpus="cpu:2", batch_size=1)
    assert len(set(first + second)) == 2, "one that was still starting when its run ended is not lost"
    third, _, warnings = ask("c", "a")
    assert all(map(ended, first + second)) and len(third) == 1 and len(warnings) == 2


def test_a_run_that_was_broken_off_leaves_no_engine(session, settings, tmp_path):
    pids = []
    run = session.generate(
        settings("t2i", batch_size=1),
        [{"prompt": "a"}, {"prompt": "slow:600"}],
        lambda event, **facts: pids.append(facts["pid"]) if event == "lane_ready" else None,
    )
    next(run)
    run.close()
    assert pids and ended(pids[0]) and not session._idle_pool.workers


def test_they_end_with_the_session(ask, settings, tmp_path):
    session = fastgen.Session()
    [pid], _, _ = ask("a", "a fox", session=session)
    session.close()
    session.close()
    assert ended(pid)
    with pytest.raises(fastgen.SettingsError, match="closed"):
        ask("b", "a fox", session=session)
    session = fastgen.Session()
    [pid], _, _ = ask("c", "a fox", session=session)
    del session
    gc.collect()
    assert ended(pid)
    with fastgen.Session() as session:
        pids = []
        run = session.generate(
            settings("t2i", out=tmp_path / "d"),
            [{"prompt": "a"}],
            lambda event, **facts: pids.append(facts["pid"]) if event == "lane_ready" else None,
        )
        next(run)
    assert list(run) == [] and ended(pids[0]), "a run that outlasts its session leaves nothing to it"


def test_a_lora_that_was_exchanged_at_its_path_is_loaded_anew(settings, tmp_path):
    from msgspec.structs import replace

    (tmp_path / "lora").write_bytes(b"one")
    resolved = settings("t2i")
    resolved = replace(resolved, engine=replace(resolved.engine, loras=((str(tmp_path / "lora"), 1.0),)))
    before = resolved.engine_key()
    steps, out = replace(resolved.image, steps=7), replace(resolved.run, out="elsewhere")
    assert resolved.engine_key() == before == replace(resolved, image=steps, run=out).engine_key()
    (tmp_path / "lora").write_bytes(b"two")
    assert resolved.engine_key() != before
    half = replace(resolved, engine=replace(resolved.engine, dtype="float16"))
    assert half.engine_key() != resolved.engine_key()


def test_another_key_is_another_engine(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "one")
    resolved = settings("t2i", backend="openai", model="gpt-image-2")
    worker = process.ProcessWorker(resolved, resolved.placement.devices[0], 2)
    assert worker.fits(resolved, resolved.placement.devices[0], 2)
    monkeypatch.setenv("OPENAI_API_KEY", "two")
    assert not worker.fits(resolved, resolved.placement.devices[0], 2)


OWNER = """
import os, sys, fastgen
session = fastgen.Session()
def say(event, **facts):
    if event == "lane_ready":
        print(facts["pid"], flush=True)
settings = fastgen.resolve("t2i", backend="fake", gpus="cpu", out=sys.argv[1])
list(session.generate(settings, [{"prompt": "a fox"}], say))
sys.stdin.readline()
if sys.argv[2] == "fork":
    child = os.fork()
    if not child:
        assert not session._idle_pool.workers
        sys.exit()  # ends nothing that is its parent's
    os.waitpid(child, 0)
    second = fastgen.resolve("t2i", backend="fake", gpus="cpu", out=sys.argv[1] + "-2")
    list(session.generate(second, [{"prompt": "a"}], say))
elif sys.argv[2] == "raise":
    raise RuntimeError
elif sys.argv[2] == "wait":
    if not os.fork():
        import time
        time.sleep(600)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["exit", "raise", "fork", "wait"])
def test_they_end_with_the_process_however_it_ends(way, tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "out", way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    forked = []
    try:
        engine = psutil.Process(int(owner.stdout.readline()))
        owner.stdin.write("\n")
        owner.stdin.flush()
        if way == "wait":
            assert owner.stdout.readline() == "ready\n"
            forked = [p for p in psutil.Process(owner.pid).children() if p != engine]
            owner.kill()
        elif way == "fork":
            assert int(owner.stdout.readline()) == engine.pid
        owner.wait(PATIENCE_S)
        _, alive = psutil.wait_procs([engine], timeout=PATIENCE_S)
        assert not alive or ended(engine)
        assert len(forked) == (way == "wait")
    finally:
        owner.kill()
        for process in forked:
            process.kill()
        owner.communicate()
