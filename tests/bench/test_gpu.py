"""bench.gpu from end to end on the CPU: its own mistakes are found here, not on a rented GPU."""

from __future__ import annotations

import json
import time

import pytest

from bench.gpu import __main__ as command
from bench.gpu import report, speed
from bench.gpu.state import State


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


def test_what_ended_the_process_counts_as_a_try(tmp_path):
    def dies():
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            State(tmp_path).cell("p", "a", dies)
    found = State(tmp_path).cell("p", "a", dies)
    assert found["error"] == "the process ended while it was measured"


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
