"""What the page knows of a row, from its line of the table. Rows are hostile: their paths lead nowhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastgen.output.writers.tables import Shape
from fastgen.view.listed import MOST_CHARACTERS, Reading
from tests.view.folders import done, failed, folder, image


def reading(out: Path, task: str = "t2i", **settings) -> Reading:
    key = {"t2i": "images", "edit": "edited_images", "caption": "caption"}[task]
    said = {"task": task, "output_key": key, "image_root": str(out.parent), **settings}
    return Reading(Shape.of_run(out, said), {"settings": said})


def line(fields: dict) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def test_a_row_of_t2i(tmp_path):
    row = reading(tmp_path).listed(line({"id": "a", "prompt": "a fox"} | done("a", ["x.png", "y.png"], cost_usd=0.25)))
    assert (row.id, row.status, row.prompt, row.size, row.outputs, row.inputs) == ("a", "done", "a fox", "48x48", 2, 0)
    assert (row.model, row.cost_usd, row.seconds, row.seed, row.kind, row.answer) == ("m", 0.25, 0.5, 7, "", "")


def test_a_failed_row_has_its_reason_and_no_image(tmp_path):
    row = reading(tmp_path).listed(line({"prompt": "x"} | failed("a", "refused", "no <b>foxes</b>")))
    assert (row.status, row.kind, row.answer, row.outputs) == ("failed", "refused", "no <b>foxes</b>", 0)


def test_turns_and_long_prompts(tmp_path):
    turns = [
        {"role": "user", "content": "noon"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "night"},
    ]
    both = line({"conversations": turns} | done("a", ["x.png"]))
    assert reading(tmp_path).listed(both).prompt == "noon\nnight"
    assert reading(tmp_path).details(both).prompts == ("noon", "night")
    long = reading(tmp_path).listed(line({"prompt": "x" * 9000} | done("a", ["x.png"])))
    assert len(long.prompt) == MOST_CHARACTERS


def test_the_prompt_of_a_flag_counts(tmp_path):
    fields = {"image": "a.png"} | done("a", ["x.png"], prompt="make it night")
    assert reading(tmp_path, "edit", prompt="other").listed(line(fields)).prompt == "make it night"


@pytest.mark.parametrize(("prompt", "asked"), [("Describe the image.", "How many?"), ("Is it red?", "Is it red?")])
def test_the_text_of_a_row_is_its_question_unless_a_flag_asked(tmp_path, prompt, asked):
    about = {"id": "a", "status": "done", "max_tokens": 8}
    row = line({"image": "a.png", "text": "How many?", "caption": "Two.", "fastgen": about})
    assert reading(tmp_path, "caption", prompt=prompt).listed(row).prompt == asked


@pytest.mark.parametrize("caption", ["a red fox", {"animal": "fox"}])
def test_a_caption_is_the_answer(tmp_path, caption):
    about = {"id": "a", "status": "done", "model": "v", "max_tokens": 9, "seconds": 1.5}
    row = line({"image": "a.png", "caption": caption, "fastgen": about})
    image(tmp_path.parent / "a.png")
    read = reading(tmp_path, "caption", prompt="Describe it.")
    listed = read.listed(row)
    assert "fox" in listed.answer and (listed.prompt, listed.outputs, listed.inputs) == ("Describe it.", 0, 1)
    assert read.inputs(row) == [str(tmp_path.parent / "a.png")] and read.outputs(row) == []


def test_pictures_that_fastgen_made_were_asked_the_question_of_the_run(tmp_path):
    made = folder(tmp_path / "made", [])
    about = {"id": "a", "status": "done", "max_tokens": 9}
    row = line({"prompt": "a fox", "images": ["images/a.png"], "caption": "a red fox", "fastgen": about})
    said = {"task": "caption", "output_key": "caption", "image_root": str(made), "prompt": "Describe it."}
    for name, prompt in (("results.jsonl", "Describe it."), ("rows.jsonl", "a fox")):
        read = Reading(Shape.of_run(tmp_path, said), {"settings": said, "input": str(made / name)})
        assert read.listed(row).prompt == prompt, name


def test_images_of_a_done_row_are_only_those_of_its_folder(tmp_path):
    out, secret = tmp_path / "run", image(tmp_path / "secret.png")
    image(out / "images/a.png")
    os.symlink(secret, out / "images/link.png")
    names = ["images/a.png", "../secret.png", str(secret), "images/../../secret.png", "images/link.png"]
    assert reading(out).outputs(line(done("a", names))) == [str(out / "images/a.png"), "", "", "", ""]


def test_the_images_may_be_on_another_disk(tmp_path):
    out, disk = tmp_path / "run", tmp_path / "disk"
    image(disk / "a.png")
    out.mkdir()
    os.symlink(disk, out / "images")
    assert reading(out).outputs(line(done("a", ["images/a.png"]))) == [str(out / "images/a.png")]


def test_an_edit_has_its_input_images(tmp_path):
    image(tmp_path / "a.png"), image(tmp_path / "b.png")
    row = line(
        {"images": ["a.png", "b.png"], "prompt": "join", "edited_images": ["images/c.png"]}
        | {"fastgen": {"id": "e", "status": "done"}}
    )
    read = reading(tmp_path / "run", "edit")
    assert read.inputs(row) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert (read.listed(row).outputs, read.listed(row).inputs) == (1, 2)


def test_an_image_inside_a_row_is_found_where_the_run_kept_it(tmp_path):
    import base64

    from fastgen.input.embedded_pictures import Store

    data = image(tmp_path / "a.png").read_bytes()
    kept = Store(str(tmp_path / "run")).keep(data)
    row = line({"image": base64.b64encode(data).decode(), "prompt": "x"})
    assert reading(tmp_path / "run", "edit").inputs(row) == [str(tmp_path / "run" / kept)]


@pytest.mark.parametrize(
    "raw",
    [
        b"{broken\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"fastgen": 3, "images": {"a": 1}, "prompt": [1]}\n',
        b'{"fastgen": {"status": "done", "width": "x", "cost_usd": "a", "seed": []}, "images": [1, null, ""]}\n',
    ],
)
def test_a_damaged_line_is_a_row_all_the_same(tmp_path, raw):
    for task in ("t2i", "edit", "caption"):
        read = reading(tmp_path, task)
        assert read.listed(raw).cost_usd == 0.0 and read.outputs(raw) == [] and read.inputs(raw) == []
        assert isinstance(read.details(raw).line, str)
