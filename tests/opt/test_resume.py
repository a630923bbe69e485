"""A run folder with optimizations, made before each had one type of its own, goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fastgen.config import stamps
from fastgen.config.model_cards import TINY
from fastgen.errors import RunFolderError
from fastgen.resolver import resolve
from fastgen.scheduler.run import Run

OLD = json.loads(Path(__file__).with_name("run-of-0.1.0.json").read_text("utf-8"))
ROWS = [
    {"id": "a", "prompt": "a red circle on a blue background"},
    {"id": "b", "prompt": "two small stars on black"},
]
SETTINGS = OLD["run"]["settings"] | {"model_files": stamps.of_folder(TINY)}
"""From now on the model is known by all of its files."""
FLAGS = {"quantize": "8bit,text:8bit", "quality": "high", "cache": "first-block"}


@pytest.fixture
def old(tmp_path, rows_file):
    """old(**flags) -> the settings of that run, in a folder where it made the first of two rows."""
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(out / "images" / "a_0.png")
    (out / "run.json").write_text(json.dumps(OLD["run"] | {"input": str(tmp_path / "rows.jsonl")}))
    (out / "journal.jsonl").write_text(OLD["journal"] + "\n")
    return lambda **flags: resolve(
        "t2i", rows_file(ROWS), out=out, model="tiny", gpus="cpu", size="64x64", steps=2, **(FLAGS | flags)
    )


def test_run_json_says_the_same(old):
    settings = old()
    assert json.loads(json.dumps(settings.fingerprint())) == SETTINGS
    assert stamps.of_folder(TINY, stamps.ends) == OLD["run"]["settings"]["model_files"], "by which it is known"
    assert settings.optimizations.as_table() == OLD["run"]["speed"]


def test_it_goes_on(old, go):
    settings = old()
    picture = (Path(settings.run.out) / "images" / "a_0.png").read_bytes()
    outcome = go(settings)
    assert (outcome.counts["done"], outcome.counts["new"], list(outcome.results)) == (2, 1, ["b"])
    assert (outcome.out / "images" / "a_0.png").read_bytes() == picture
    now = json.loads((outcome.out / "run.json").read_text())
    assert now["settings"] == SETTINGS
    before, after = OLD["run"]["engines"]["cpu"]["opt"], now["engines"]["cpu"]["opt"]
    del before["quantize"]["transformer"]["seconds"], after["quantize"]["transformer"]["seconds"]
    del before["quantize"]["text"]["seconds"], after["quantize"]["text"]["seconds"]
    assert after == before


@pytest.mark.parametrize("flags", [{"quantize": "8bit"}, {"cache": "first-block:0.1"}, {"cache": ""}], ids=str)
def test_other_choices_are_refused(old, flags):
    (name,) = flags
    with pytest.raises(RunFolderError, match=f"{name}.* before, .* now"):
        list(Run(old(**flags), lambda event, **facts: None).results())
