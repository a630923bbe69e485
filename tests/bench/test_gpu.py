"""bench.gpu from end to end on the CPU: its own mistakes are found here, not on a rented GPU."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from bench.gpu import __main__ as command
from bench.gpu import report, speed
from bench.gpu.state import State
from fastgen.config import hardware, profile


def test_a_cell_is_measured_once_and_a_failing_one_twice(tmp_path):
    state, calls = State(tmp_path), []

    def good():
        calls.append("good")
        return {"seconds": 1.5}

    def bad():
        calls.append("bad")
        raise ValueError("no kernel")

    for _ in range(3):
        state.cell("p", "a b/c", good)
        state.cell("p", "d", bad)
    assert calls == ["good", "bad", "bad"]
    done, failed = State(tmp_path).cells()
    assert (done["status"], done["seconds"]) == ("done", 1.5)
    assert failed["error"] == "ValueError: no kernel"


def test_nothing_begins_after_the_deadline(tmp_path):
    state = State(tmp_path, deadline=time.monotonic() - 1)
    assert state.cell("p", "a", dict) is None
    assert list(state.cells()) == []


def test_a_cell_that_would_take_too_long_waits_for_the_next_call(tmp_path, monkeypatch):
    state = State(tmp_path, deadline=time.monotonic() + 100)
    assert state.cell("p", "a", dict, needs_s=200) is None and state.cell("p", "b", dict, needs_s=50) is not None
    part = "speed flux-dev exact"
    assert speed.needed_s(state, "cuda", part, "1024x1024", 1) == speed.UNKNOWN_S["cuda"]
    state.cell(part, "1024x1024 x1", lambda: {"s_per_image": 3.5})
    # 8 times 3.5 s a batch; to warm up, one round, and three of them with two under way
    assert speed.needed_s(state, "cuda", "batches flux-dev exact", "1024x1024", 8) == pytest.approx(28 * 5)
    assert speed.needed_s(state, "cuda", part, "512x512", 1) == pytest.approx(3.5 / 4 * 8)


def test_a_call_that_ends_is_no_fault_of_the_cell_that_began_late(tmp_path):
    def dies():
        raise KeyboardInterrupt

    state = State(tmp_path)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            state.cell("p", "a", dies)
        state.forgive("p")
    assert not state.is_settled("p", "a")
    for _ in range(2):  # it had its time
        with pytest.raises(KeyboardInterrupt):
            state.cell("p", "a", dies)
        os.utime(next((tmp_path / "cells").iterdir()), (0, 0))
        state.forgive("p")
    assert state.is_settled("p", "a")


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    child = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    started = time.monotonic()
    assert not command.run([sys.executable, "-c", script], tmp_path / "log", 1.0)
    assert command.run([sys.executable, "-c", ""], tmp_path / "log", 60.0)
    assert time.monotonic() - started < 30


def test_results_of_another_machine_are_not_measured_again(tmp_path):
    before, after = State(tmp_path / "before"), State(tmp_path / "after")
    before.cell("environment", "environment", lambda: {"gpu": "NVIDIA H100"})
    before.finish("environment")
    before.cell("parity", "tiny", lambda: {"right": True})
    report.write(before, "cuda")
    after.resume(before.folder / "results.json")
    assert after.is_finished("environment") and not after.is_finished("parity")
    assert after.cell("parity", "tiny", lambda: {"right": False})["right"]
    assert list(after.cells()) == list(before.cells())


def test_what_ended_the_process_counts_as_a_try(tmp_path):
    def dies():
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            State(tmp_path).cell("p", "a", dies)
    found = State(tmp_path).cell("p", "a", dies)
    assert found["error"] == "the process ended while it was measured"


def test_the_same_command_goes_on_until_all_is_measured(tmp_path, monkeypatch, capsys):
    """Each call has time for one part; the second part hangs in its first call."""
    now, hangs = [0.0], ["parity"]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])

    def run(words, _log, seconds):
        part = words[words.index("--part") + 1]
        now[0] += seconds
        if part in hangs:
            hangs.remove(part)
        else:
            State(tmp_path).finish(part)
        return part not in hangs

    monkeypatch.setattr(command, "run", run)
    parts = ("environment", "parity", "trace")
    codes, said = [], []
    for _ in range(5):
        codes.append(command.everything(State(tmp_path), parts, "cpu", now[0] + 540))
        said.append(capsys.readouterr().out.splitlines())
    assert codes == [4, 4, 4, 0, 0]
    assert [lines[0].split(" (")[0] for lines in said[:4]] == ["environment", "parity", "parity", "trace"]
    assert said[0][-1].startswith("not finished: parity, trace; the same command goes on")
    assert len(said[4]) == 1 and said[4][0].startswith("all finished")


def test_a_part_that_ran_out_of_time_measures_only_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "CELLS", {"cpu": (("64x64", 1), ("128x128", 2))})
    measured = []

    def measure(state, _device, part):
        for name in ("64x64 x1", "128x128 x2"):
            state.cell(part, name, lambda name=name: measured.append(name) or {"s_per_image": 1.0})
            state.deadline = min(state.deadline, late)

    monkeypatch.setattr(speed, "measure", measure)
    part, late = "speed flux-dev exact", 0.0
    command.one(State(tmp_path), part, "cpu")
    assert not State(tmp_path).is_finished(part)
    late = float("inf")
    command.one(State(tmp_path), part, "cpu")
    assert State(tmp_path).is_finished(part) and measured == ["64x64 x1", "128x128 x2"]


def test_the_profile_has_the_smallest_batch_that_is_about_as_fast(tmp_path, monkeypatch):
    gpu = hardware.Gpu(index=0, visible_as="0", name="NVIDIA H200", memory_gib=140.0, compute_capability="9.0")
    monkeypatch.setattr(hardware, "find_gpus", lambda: [gpu])
    seconds = {
        "512x512 x1": 1.0,
        "1024x1024 x1": 3.0,
        "768x768 x1": 2.0,
        "512x512 x4": 0.5,
        "512x512 x8": 0.499,
        "1024x1024 x2": 3.2,
    }
    state = State(tmp_path)
    for name, each in seconds.items():
        part = f"{'speed' if name.endswith('x1') else 'batches'} flux-dev exact"
        state.cell(part, name, lambda each=each: {"s_per_image": 9.0, "s_per_image_pipelined": each})
    report.write(state, "cuda")
    match, loaded = profile.load(tmp_path / "profile.toml")
    assert [loaded.batch_for(pixels) for pixels in (512 * 512, 1024 * 1024)] == [4, 1]
    assert "768x768" not in (tmp_path / "profile.toml").read_text(), "only one batch size was measured"
    assert (match.compute_capability, match.least_memory_gib) == ("9.0", 133.0)
    assert loaded.measured.status == "measured" and "weights: synthetic" in str(loaded.measured)


@pytest.mark.slow
def test_the_trace_tells_where_the_time_goes(tmp_path):
    state = State(tmp_path)
    assert command.one(state, "trace", "cpu") == 0 and state.is_finished("trace")
    for cell in state.cells():
        assert cell["status"] == "done", cell
        assert any("mm" in kernel["name"] for kernel in cell["kernels"]), cell["kernels"]  # of the engine's threads
        assert cell["busy_s"] > 0
        assert (tmp_path / cell["file"]).stat().st_size > 1000


@pytest.mark.slow
def test_parts_run_on_the_cpu_and_go_on_where_they_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "CELLS", {"cpu": (("64x64", 1),)})
    monkeypatch.setattr(speed, "ROUNDS", 1)
    state = State(tmp_path)
    for part in ("environment", "parity", "speed flux-dev high", "speed flux-kontext diffusers"):
        assert command.one(state, part, "cpu") == 0
        assert state.is_finished(part)
    cells = {(cell["part"], cell["name"]): cell for cell in state.cells()}
    assert not [cell for cell in cells.values() if cell["status"] != "done"], cells
    assert all(cell["right"] and cell["finite"] for (part, _), cell in cells.items() if part == "parity")
    assert cells["speed flux-dev high", "64x64 x1"]["s_per_image_pipelined"] > 0
    assert cells["speed flux-kontext diffusers", "64x64 x1"]["s_per_image"] > 0
    report.write(state, "cpu")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["facts"]["weights"].startswith("synthetic")
    page = (tmp_path / "results.md").read_text()
    assert "Published by others" in page and "| 64x64 x1 |" in page
    capsys.readouterr()
    assert command.everything(state, ("environment", "parity"), "cpu", time.monotonic() + 100) == 0
    assert "parity:" not in capsys.readouterr().out
