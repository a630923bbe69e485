"""An image depends on its row alone: not on batch size, workers, order or company."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest
from PIL import Image

from fastgen.api import Session, generate
from fastgen.resolver import resolve
from tests.backends.diffusion.conftest import picture
from tests.backends.diffusion.families import tiny

SIZES = ("128x128", "192x128", "64x64")


def t2i_rows() -> list[dict]:
    dice = random.Random(3)
    return [
        {
            "prompt": f"a {dice.choice(['red', 'blue'])} thing {i % 9}",
            "size": dice.choice(SIZES),
            "n": dice.randint(1, 3),
            "steps": dice.choice([3, 5]),
            "guidance": dice.choice([1.5, 3.5]),
        }
        for i in range(16)
    ]


def edit_rows(folder) -> list[dict]:
    shapes = [(128, 128), (192, 128), (300, 200), (100, 250)]
    for number, shape in enumerate(shapes):
        picture(number, *shape).save(folder / f"{number}.png")
    turns = [{"role": "user", "content": "make it night"}, {"role": "user", "content": "add a star"}]
    rows = [
        {"image": str(folder / f"{i % 4}.png"), "prompt": f"edit {i}", "steps": 3, "n": 1 + i % 2} for i in range(8)
    ]
    rows += [{"images": [str(folder / "0.png"), str(folder / "1.png")], "conversations": turns, "steps": 3}] * 2
    return rows


def made(session: Session, task: str, rows: list[dict], out, model="tiny", **flags) -> dict[str, np.ndarray]:
    """Every picture of a run: "row id_number" -> pixels."""
    settings = resolve(task, out=out, model=str(model), **flags)
    for result in session.generate(settings, rows):
        assert result.__class__.__name__ == "Done", result
    pictures = {}
    for line in (out / "results.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        for number, path in enumerate(row[settings.rows.output_key]):
            with Image.open(out / path) as image:
                pictures[f"{row['fastgen']['id']}_{number}"] = np.asarray(image).astype(int)
    return pictures


@pytest.mark.slow
@pytest.mark.parametrize("task", ["t2i", "edit"])
def test_the_same_images_whatever_the_batch_the_workers_and_the_order(task, tmp_path):
    rows = t2i_rows() if task == "t2i" else edit_rows(tmp_path)
    shuffled = random.Random(1).sample(rows, len(rows))
    with Session() as session:  # one engine for all but the two

        def run(name: str, rows: list[dict], **flags) -> dict[str, np.ndarray]:
            return made(session, task, rows, tmp_path / name, **flags)

        want = run("b1", rows, gpus="cpu", batch_size=1)
        others = {
            "batch 3": run("b3", rows, gpus="cpu", batch_size=3),
            "batch 8": run("b8", rows, gpus="cpu", batch_size=8),
            "shuffled": run("sh", shuffled, gpus="cpu", batch_size=8),
            "two lanes": run("l2", rows, gpus="cpu:2", batch_size=3),
        }
    assert len(want) > len(rows)
    summaries = {name: json.loads((tmp_path / name / "run.json").read_text("utf-8")) for name in ("b1", "b8")}
    assert summaries["b1"]["mean_group"] == 1 < summaries["b8"]["mean_group"] <= 8
    assert summaries["b1"]["work"]["joins"] == 0
    assert summaries["b1"]["work"]["pass_samples"] == summaries["b8"]["work"]["pass_samples"], "each image, each step"
    for name, got in others.items():
        assert got.keys() == want.keys(), name
        for key, pixels in want.items():
            difference = np.abs(got[key] - pixels)
            assert difference.max() <= 2, f"{name}: {key}"
            psnr = 10 * np.log10(255**2 / max((difference**2).mean(), 1e-9))
            assert psnr > 45, f"{name}: {key}"


@pytest.mark.slow
def test_edits_that_true_guidance_masks_and_references_tell_apart_are_the_same_after_a_restart(tmp_path):
    """Qwen-Image-Edit, whose prompts have lengths of their own. The folder that begins with some rows gets the others
    in another order."""
    tiny.qwen_edit(tmp_path / "model", 64 * 64, zero_cond_t=True)
    for name, number in (("a", 1), ("b", 2)):
        picture(number, 64, 64).save(tmp_path / f"{name}.png")
    half = Image.new("L", (64, 64))
    half.paste(255, (32, 0, 64, 64))
    half.save(tmp_path / "mask.png")
    own: list[dict] = [
        {},
        {"negative_prompt": "blurry", "true_cfg_scale": 3.0, "steps": 4},
        {"guidance": 1.0, "prompt": "make it 一杯茶 " * 6},
        {"mask": "mask.png", "steps": 2},
        {"image": ["a.png", "b.png"]},
        {"image": ["b.png", "a.png"], "guidance": 2.0},
        {"image": "b.png", "true_cfg_scale": 1.0, "steps": 5},
    ]
    row = {"prompt": "make it blue", "image": "a.png", "steps": 3, "size": "64x64", "n": 3}
    rows = [row | {"id": f"row {number}"} | one for number, one in enumerate(own)]
    with Session() as session:

        def run(name: str, rows: list[dict], batch: int) -> dict[str, np.ndarray]:
            flags = {"gpus": "cpu", "batch_size": batch, "image_root": tmp_path}
            return made(session, "edit", rows, tmp_path / name, tmp_path / "model", **flags)

        alone = run("alone", rows, 1)
        first = run("resumed", rows[1:4], 8)
        resumed = run("resumed", random.Random(2).sample(rows, len(rows)), 8)
    summary = json.loads((tmp_path / "resumed" / "run.json").read_text("utf-8"))
    assert summary["mean_group"] > 1
    assert len(first) == 9 and resumed.keys() == alone.keys() and len(alone) == 3 * len(rows)
    for key, pixels in alone.items():
        assert np.abs(resumed[key] - pixels).max() <= 2, key
    assert all(np.array_equal(resumed[key], pixels) for key, pixels in first.items())
    pictures = list(alone.values())
    assert all(np.abs(one - other).max() > 2 for number, one in enumerate(pictures) for other in pictures[:number])


@pytest.mark.slow
def test_two_workers_are_two_processes(tmp_path):
    rows = [{"prompt": f"thing {i}", "steps": 4} for i in range(24)]
    settings = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu:2", batch_size=2)
    assert sum(1 for _ in generate(settings, rows)) == len(rows)
    engines = json.loads((tmp_path / "run.json").read_text())["engines"]
    assert set(engines) == {"cpu:0", "cpu:1"}
    assert len({facts["pid"] for facts in engines.values()} | {os.getpid()}) == 3
