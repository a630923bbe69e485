"""The prompt-following score of a run folder, on pictures whose content is known because they are drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from fastgen.embedded.scenes import Scene, Shape, draw
from fastgen.embedded.score import score
from fastgen.errors import FastgenError

RED = Scene("blue", (Shape("circle", "red", "large", "center"),))
STAR = Scene("white", (Shape("star", "black", "small", "top left"), Shape("cross", "pink", "large", "right")), 160, 112)


@pytest.fixture
def folder(tmp_path):
    """folder(task, rows, pictures): a finished run folder; pictures are {name: Scene}."""

    def make(task, rows, pictures):
        out = tmp_path / "run"
        (out / "images").mkdir(parents=True)
        for name, scene in pictures.items():
            Image.fromarray(draw(scene)).save(out / "images" / name)
        key = "images" if task == "t2i" else "edited_images"
        settings = {"task": task, "output_key": key, "image_root": str(tmp_path)}
        (out / "run.json").write_text(json.dumps({"settings": settings}))
        (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return out

    return make


def test_right_and_wrong_pictures(folder):
    out = folder(
        "t2i",
        [
            {"prompt": "a red circle on a blue background", "images": ["images/0.png", "images/1.png"]},
            {
                "conversations": [
                    {"role": "user", "content": "a large red disc in the middle"},
                    {"role": "user", "content": "on white, a small black star at the top left and a pink plus"},
                ],
                "images": ["images/0.png", "images/1.png"],
            },
            {"prompt": "a house by the sea", "images": ["images/0.png"]},
            {"prompt": "a red circle", "fastgen": {"status": "failed"}},
        ],
        {"0.png": RED, "1.png": STAR},
    )
    found = score(out)
    assert (found.right, found.pictures, found.unjudged) == (3, 4, 2)
    assert found.share == 0.75 and found.parts["background"] == 3 and found.parts["count"] == 3


def test_edits_are_judged_against_the_edited_input(folder, tmp_path):
    Image.fromarray(draw(RED)).save(tmp_path / "red.png")
    green = Scene("blue", (Shape("circle", "green", "large", "center"),))
    moved = Scene("gray", (replace(RED.shapes[0], place="top left"),))
    turns = [
        {"role": "user", "content": "move the circle to the top left"},
        {"role": "user", "content": "change the background to grey"},
    ]
    out = folder(
        "edit",
        [
            {"image": "red.png", "prompt": "make the circle green", "edited_images": ["images/g.png"]},
            {"image": "red.png", "prompt": "make the circle yellow", "edited_images": ["images/g.png"]},
            {"image": "red.png", "conversations": turns, "edited_images": ["images/m.png", "images/g.png"]},
            {"image": "red.png", "mask": "m.png", "prompt": "make the circle green", "edited_images": ["images/g.png"]},
            {"images": ["red.png", "red.png"], "prompt": "remove the circle", "edited_images": ["images/g.png"]},
            {"image": "red.png", "prompt": "remove the star", "edited_images": ["images/g.png"]},
            {"image": "gone.png", "prompt": "remove the circle", "edited_images": ["images/g.png"]},
        ],
        {"g.png": green, "m.png": moved},
    )
    found = score(out)
    assert (found.right, found.pictures, found.unjudged) == (2, 4, 4)


def test_the_command(folder, tmp_path):
    out = folder("t2i", [{"prompt": "a red circle", "images": ["images/0.png"]}], {"0.png": RED})

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fastgen.embedded.score", *arguments], capture_output=True, text=True, timeout=120
        )

    plain = command(str(out))
    assert plain.returncode == 0 and "1 of 1 images show everything that was asked for (100.0%)" in plain.stdout
    found = json.loads(command(str(out), "--json").stdout)
    assert found == {
        "share": 1.0,
        "right": 1,
        "pictures": 1,
        "unjudged": 0,
        "parts": dict.fromkeys(("count", "background", "kinds", "colors", "places", "sizes"), 1.0),
    }
    for wrong in (command(str(tmp_path / "nothing")), command()):
        assert (wrong.returncode == 1 and "error" in wrong.stderr) or "RUN" in wrong.stderr
    (out / "results.jsonl").unlink()
    with pytest.raises(FastgenError, match="has not finished"):
        score(out)
