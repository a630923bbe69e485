"""Half-done tables of DataFlow-MM's own operators: what is in them is not made again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas
import pytest
from PIL import Image

from fastgen.dataflow.operators.core_vision import PromptedImageEditGenerator, PromptedImageGenerator
from tests.dataflow.conftest import made_in

TABLE = Path("cache/dataflow_cache_step_step1.jsonl")


def says(text):
    return [{"role": "user", "content": text}]


@pytest.fixture
def rows(here):
    return [{"id": i, "images": "image.png", "conversations": says(f"number {i}")} for i in range(4)]


@pytest.fixture
def theirs(rows):
    """The table as theirs writes it: by pandas, some rows done, one of them without its picture."""
    Path("theirs").mkdir()
    TABLE.parent.mkdir()
    Image.new("RGB", (8, 8)).save("theirs/1.png")
    done = {1: ["theirs/1.png"], 2: ["theirs/lost.png"]}
    table = pandas.DataFrame([{**row, "edited_images": done.get(i, [])} for i, row in enumerate(rows)])
    table.to_json(TABLE, orient="records", lines=True, force_ascii=False)


def edit(storage, drawn, rows, **more):
    store = storage(rows)
    PromptedImageEditGenerator(drawn("imageedit", **more)).run(store, "images", "conversations")
    return [row["edited_images"] for row in store.step().read("dict")]


def test_their_half_done_table_is_gone_on_from(storage, drawn, here, rows, theirs):
    moved = [rows[1], {"images": "image.png", "conversations": says("new")}, *rows[2:]]
    cells = edit(storage, drawn, moved)
    assert cells[0] == ["theirs/1.png"] and all(os.path.exists(cell[0]) for cell in cells) and len(made_in(here)) == 3
    assert edit(storage, drawn, rows)[1] == ["theirs/1.png"], "though the table is ours by now"
    assert len(made_in(here)) == 4


def test_of_our_own_tables_nothing_is_kept_when_the_settings_change(storage, drawn, here, rows):
    edit(storage, drawn, rows)
    edit(storage, drawn, rows, seed=1)
    assert len(made_in(here)) == 8


def test_a_table_that_cannot_be_read_is_said_and_changes_nothing(storage, drawn, rows, caplog):
    TABLE.parent.mkdir()
    TABLE.with_suffix(".json").write_bytes(b"{")
    store = storage(rows, cache_type="json")
    PromptedImageEditGenerator(drawn("imageedit")).run(store, "images", "conversations")
    assert all(row["edited_images"] for row in store.step().read("dict")) and "cannot be read" in caplog.text


def test_pictures_from_prompts_are_kept_too(storage, drawn, here):
    rows = [{"conversations": says(f"number {i}"), "images": [""]} for i in range(2)]
    TABLE.parent.mkdir()
    TABLE.write_text(
        "".join(json.dumps({**row, "images": [["image.png"], []][i]}) + "\n" for i, row in enumerate(rows))
    )
    store = storage(rows)
    PromptedImageGenerator(drawn()).run(store, "conversations")
    cells = [row["images"] for row in store.step().read("dict")]
    assert cells[0] == ["image.png"] and cells[1][0].startswith("./cache/pictures/") and len(made_in(here)) == 1
