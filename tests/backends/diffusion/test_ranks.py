"""Several processes make each image together (--parallel context): the images are those of one device, and the death of
one process ends all of them and costs no row."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import fastgen
from fastgen.opt import ulysses
from tests.backends.diffusion.conftest import open_backend, picture
from tests.backends.diffusion.test_engine import pixels, run

PATIENCE_S = 60
MOST = 2
"""Levels of 255 that a pixel may differ: rounding."""
T2I = [
    {"prompt": f"{word} stars on a blue background", "steps": steps, "guidance": guidance, "size": "64x64"}
    for word, steps, guidance in (
        ("two", 3, 3.5),
        ("three", 6, 1.0),
        ("four", 4, 5.0),
        ("five", 2, 3.5),
        ("six", 5, 2.0),
    )
]
T2I += [
    {"prompt": "a green square", "steps": 3, "size": "48x80", "n": 2},  # 15 tokens
    {"prompt": "a red circle", "steps": 2, "size": "16x16"},  # 1 token
]


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    """Rows of edits; one has a mask."""
    folder = tmp_path_factory.mktemp("inputs")
    for number, size in enumerate([(64, 64), (80, 48)]):
        picture(number, *size).save(folder / f"{number}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    names = [str(folder / f"{number}.png") for number in range(2)]
    return [
        {"image": names[0], "prompt": "make it red", "steps": 3, "size": "64x64"},
        {"image": names[0], "prompt": "add a star", "steps": 5, "size": "64x64", "n": 2},
        {"image": names[0], "mask": str(folder / "mask.png"), "prompt": "make it blue", "steps": 3, "size": "64x64"},
        {"image": names[1], "prompt": "make it green", "steps": 4, "size": "80x48"},
    ]


class Runs:
    """Args: flags: of all its runs, which share an engine."""

    def __init__(self, folder, **flags):
        self.folder = folder
        self.flags = flags
        self.session = fastgen.Session()
        self.events: list[tuple[str, dict]] = []

    def make(self, task: str, rows: list[dict], first=lambda runs: None, **flags) -> list[np.ndarray]:
        """The images of all rows, in order. `first` is called after the first row."""
        out = self.folder / task
        rows = [{"id": f"r{number}", "seed": number, **row} for number, row in enumerate(rows)]
        settings = fastgen.resolve(task, out=out, model="tiny", **self.flags, **flags)
        emit = lambda event, **facts: self.events.append((event, facts))  # noqa: E731
        for number, result in enumerate(self.session.generate(settings, rows, emit)):
            assert isinstance(result, fastgen.Done), result
            if number == 0:
                first(self)
        table = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
        assert [row["fastgen"]["id"] for row in table] == [row["id"] for row in rows]
        names = [f"{row['id']}_{copy}.png" for row in rows for copy in range(row.get("n", 1))]
        return [np.asarray(Image.open(out / "images" / name)).astype(int) for name in names]

    @property
    def engines(self) -> list[dict]:
        return [facts for event, facts in self.events if event == "lane_ready"]

    def happened(self, name: str) -> list[dict]:
        return [facts for event, facts in self.events if event == name]


@pytest.fixture(scope="module")
def alone(t2i, edit, edits):
    """Each image by itself, in one process."""
    return {"t2i": made_alone(t2i, T2I), "edit": made_alone(edit, edits)}


def made_alone(backend, rows: list[dict]) -> list[np.ndarray]:
    made = []
    for number, row in enumerate(rows):
        [done] = run(backend, [{"id": f"alone-{number}", "seed": number, **row}])
        made += [pixels(backend, path) for path in done.paths]
    return made


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other).max() <= MOST


FULL = """
import torch
from fastgen.opt import ulysses

before = ulysses._to_tokens

def to_tokens(x):
    if x.shape[0] > {most}:
        raise torch.OutOfMemoryError("out of memory: injected")
    return before(x)

ulysses._to_tokens = to_tokens
"""
"""For the site of Python: the memory is full between two exchanges of a layer, if the group has more samples."""


@pytest.mark.slow
def test_memory_that_is_full_in_one_process_makes_groups_smaller_in_all(tmp_path, alone, monkeypatch, caplog):
    """Four samples are too many for the second process, and two for the first one. Nothing is started anew."""
    (tmp_path / "sitecustomize.py").write_text(FULL.format(most=2))
    root = str(Path(fastgen.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    backend = open_backend("t2i", tmp_path / "run", gpus="cpu:2", gpus_per_replica=2, parallel="context", batch_size=4)
    try:
        monkeypatch.setattr(ulysses, "_to_tokens", ulysses._to_tokens)
        exec(FULL.format(most=1), {})
        pids = backend.lead.pids
        rows = T2I[:4]
        results = run(backend, [{"id": f"r{number}", "seed": number, **row} for number, row in enumerate(rows)])
        assert_same([pixels(backend, one.paths[0]) for one in results], alone["t2i"][:4])
        assert [line.partition(": ")[2] for line in caplog.messages if "out of memory while" in line] == [
            "2 at a time from now on",
            "1 at a time from now on",
        ]
        assert backend.lead.pids == pids and all(other.process.poll() is None for other in backend.lead._others)
    finally:
        backend.close()
    assert not torch.distributed.is_initialized(), "nothing of it is left in this process"


@pytest.mark.slow
def test_two_processes_and_the_death_of_one_in_mid_run(tmp_path, alone, edits):
    runs = Runs(tmp_path, gpus="cpu:2", gpus_per_replica=2, parallel="context", batch_size=2)
    with runs.session:
        assert_same(runs.make("edit", edits), alone["edit"])
        kill = lambda runs: os.kill(runs.engines[-1]["other_processes"][0], signal.SIGKILL)  # noqa: E731
        assert_same(runs.make("t2i", T2I, first=kill), alone["t2i"])
        before, kept, after = runs.engines
        assert before["opt"]["shard"] == {"ranks": 2} and before["streams"] == 1 and kept["kept"]
        assert {before["pid"], *before["other_processes"]}.isdisjoint({after["pid"], *after["other_processes"]})
        [other] = map(psutil.Process, after["other_processes"])
        os.kill(after["pid"], signal.SIGKILL)
        assert psutil.wait_procs([other], PATIENCE_S)[1] == [], "it ends with the first one"
    [died] = runs.happened("lane_died")
    assert "process 1 of cpu:0+1 was ended by SIGKILL, so all of them end" in died["reason"]
