"""Columns of other names are read as the fields that they are, and said; the user's row stays as it is."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from fastgen.config.prompts import PROMPT
from fastgen.config.settings import Rows
from fastgen.errors import InputError
from fastgen.input.columns import TEXT_IS_ASKED, Columns, asks_text
from fastgen.input.images import Places


def read(task, row, **flags):
    """(the view of the row, what was said)."""
    said: list[str] = []
    before = dict(row)
    view, columns = Columns(Rows("out", "", 0, **flags), task, said.append).read(row)
    assert row == before, "the user's row was changed"
    return view, columns, said


@pytest.mark.parametrize(
    ("task", "row", "field", "column"),
    [
        ("t2i", {"text": "a fox"}, "prompt", "text"),
        ("t2i", {"caption": "a fox", "instruction": ""}, "prompt", "caption"),
        ("edit", {"edit_prompt": "e", "text": "t", "images": ["a"]}, "prompt", "edit_prompt"),
        ("edit", {"prompt": "p", "input_image": "a.png"}, "images", "input_image"),
        ("edit", {"prompt": "p", "original_image": "a.png"}, "images", "original_image"),
        ("edit", {"prompt": "p", "source_img": "a.png"}, "images", "source_img"),
        ("caption", {"file_name": "a.png"}, "images", "file_name"),
        ("caption", {"image": "a.png", "question": "what?"}, "prompt", "question"),
        ("t2i", {"prompt": "p", "num_inference_steps": 4}, "steps", "num_inference_steps"),
        ("t2i", {"prompt": "p", "guidance_scale": 2.5}, "guidance", "guidance_scale"),
        ("edit", {"prompt": "p", "image": "a", "num_images_per_prompt": 2}, "n", "num_images_per_prompt"),
    ],
)
def test_common_names_are_read_and_said_once(task, row, field, column):
    view, columns, said = read(task, row)
    assert view[field] == row[column] and columns == {field: column}
    assert said == [f"`{field}` is read from the column `{column}`"]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("t2i", {"prompt": "p", "text": "t", "caption": "c"}),
        ("t2i", {"conversations": [{"role": "user", "content": "p"}], "text": "t"}),
        ("edit", {"prompt": "p", "image": "a.png", "input_image": "b.png"}),
        ("caption", {"image": "a.png", "text": "alt text, where a flag says what to ask"}),
        ("t2i", {"prompt": "p", "steps": 3, "num_inference_steps": 4}),
        ("t2i", {"prompt": "p", "text": 5}),
    ],
)
def test_a_field_of_its_own_name_counts(task, row):
    view, columns, said = read(task, row)
    assert view == row and not columns and not said


def test_flags_name_any_column():
    row = {"prompt": "no", "conversations": ["no"], "p": "yes", "pic": ["a"], "images": ["no"], "m": "m.png", "key": 7}
    flags = {"prompt_key": "p", "image_key": "pic", "mask_key": "m", "id_key": "key"}
    view, columns, _ = read("edit", row, **flags)
    assert (view["prompt"], view["images"], view["mask"], view["id"]) == ("yes", ["a"], "m.png", 7)
    assert "conversations" not in view and columns == {"prompt": "p", "images": "pic", "mask": "m", "id": "key"}
    turns = [{"role": "user", "content": "p"}]
    assert read("t2i", {"chat": turns}, prompt_key="chat")[0]["conversations"] == turns
    assert "prompt" not in read("t2i", {"prompt": "no"}, prompt_key="p")[0], "the column is missing in this row"


def test_rows_without_a_prompt_take_that_of_the_flag():
    assert read("edit", {"image": "a"}, prompt="make it night")[0]["prompt"] == "make it night"
    assert read("edit", {"image": "a", "prompt": "own"}, prompt="make it night")[0]["prompt"] == "own"


PICTURE = {"id": "a", "status": "done", "width": 64, "steps": 4}
TEXT = {"id": "a", "status": "done", "max_tokens": 64}


def test_what_an_earlier_command_was_asked_is_not_asked_again():
    """t2i -> caption, t2i -> edit, caption -> t2i: the prompt of the first is no prompt of the second."""
    made = {"prompt": "a red circle", "images": ["images/a_0.png"], "fastgen": PICTURE}
    view, _, said = read("caption", made)
    assert "prompt" not in view and "not asked again" in said[0]
    assert read("edit", made, prompt="make it blue")[0]["prompt"] == "make it blue"
    assert read("edit", made)[0]["prompt"] == "a red circle", "nothing else says what to do"
    captioned = {"image": "a.png", "prompt": "What is this?", "caption": "a red circle", "fastgen": TEXT}
    assert read("t2i", captioned)[0]["prompt"] == "a red circle"
    assert read("caption", {**captioned, "fastgen": {"status": "failed"}})[0]["prompt"] == "What is this?"


@pytest.mark.parametrize(
    ("task", "row", "flags", "prompt"),
    [
        ("edit", {"text": "a cat", "images": ["a"], "fastgen": PICTURE}, {"prompt": "night"}, "night"),
        ("edit", {"instruction": "a cat", "images": ["a"], "fastgen": PICTURE}, {"prompt": "night"}, "night"),
        ("edit", {"image": "a", "caption": "a cat", "fastgen": TEXT}, {"prompt": "night"}, "night"),
        ("edit", {"image": "a", "caption": "a cat", "fastgen": TEXT}, {}, "a cat"),
        ("edit", {"image": "a", "caption": "a cat"}, {"prompt": "night"}, "night"),
        ("edit", {"image": "a", "instruction": "blue"}, {"prompt": "night"}, "blue"),
        ("edit", {"image": "a", "text": "blue"}, {}, "blue"),
        ("t2i", {"text": "a cat"}, {"prompt": "night"}, "a cat"),
        ("caption", {"question": "a cat?", "images": ["a"], "fastgen": PICTURE}, {}, None),
        ("caption", {"text": "a cat", "question": "What?", "images": ["a"], "fastgen": PICTURE}, {}, "What?"),
    ],
)
def test_a_description_is_no_instruction_where_there_is_one(task, row, flags, prompt):
    assert read(task, row, **flags)[0].get("prompt") == prompt


def asked(row, **flags):
    """(the question that a caption row is asked, what is said) with these flags of `fastgen caption`."""
    asks = asks_text("caption", flags.pop("prompt", PROMPT), flags.get("prompt_key", ""))
    view, _, said = read("caption", row, asks_text=asks, **flags)
    return view.get("prompt"), said


QUESTION = {"image": "a.png", "text": "What colour is the circle?"}


def test_text_beside_a_picture_is_asked_and_said():
    assert asked(QUESTION) == ("What colour is the circle?", [TEXT_IS_ASKED])
    assert asked(QUESTION | {"query": "How many?"})[0] == "How many?"
    assert asked(QUESTION | {"prompt": "How many?"}) == ("How many?", [])
    assert asked(QUESTION | {"text": ["a", "b"]}) == (None, [])


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        (QUESTION, {"prompt": "Is there a dog?"}),
        (QUESTION, {"prompt_key": "prompt"}),
        ({"__key__": "000001", "image": "a.png", "text": "a red circle"}, {}),
        ({"file_name": "a.png", "text": "a red circle"}, {}),
        (QUESTION | {"promt": "Is there a dog?"}, {}),
        (QUESTION | {"fastgen": PICTURE}, {}),
    ],
)
def test_text_that_is_no_question_is_not_asked(row, flags):
    """--prompt is asked of such a row, or it fails by the name of the other field."""
    question, said = asked(row, **flags)
    assert question is None and TEXT_IS_ASKED not in said
    assert asked(row, **{**flags, "prompt_key": "text"})[0] == row["text"]


def test_what_a_row_is_made_from_is_not_its_result():
    """Edits of edits, and pictures from captions of pictures."""
    edited = {"prompt": "blue", "edited_images": ["b.png"], "images": ["a.png"], "fastgen": PICTURE}
    view, columns = Columns(Rows("edited_images", "", 0, image_key="edited_images", prompt="x"), "edit").read(edited)
    assert view["images"] == ["b.png"] and "edited_images" not in view and columns == {"images": "edited_images"}
    captioned = {"images": ["a.png"], "caption": "a cat", "fastgen": TEXT}
    view, _ = Columns(Rows("images", "", 0), "t2i").read(captioned)
    assert view["prompt"] == "a cat" and "images" not in view
    assert "images" in Columns(Rows("images", "", 0), "t2i").read({"prompt": "p", "images": ["a"]})[0]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((16, 16), 50).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_may_be_inside_the_row(tmp_path):
    data = png()
    text = base64.b64encode(data).decode()
    places = Places(str(tmp_path), out=str(tmp_path / "out"))
    wrapped = "\n".join(text[i : i + 60] for i in range(0, len(text), 60))
    values = [text, wrapped, f"data:image/png;base64,{text}", {"bytes": text, "path": None}]
    found = {places.locate(value, "image") for value in values}
    assert len(found) == 1, "one content, one file"
    (path,) = found
    assert Path(path).read_bytes() == data and path.startswith(str(tmp_path / "out/inputs/"))
    assert places.locate(path[len(str(tmp_path / "out")) + 1 :], "image") == path, "as a table of this run names it"
    assert places.locate({"bytes": None, "path": "a.png"}, "image") == str(tmp_path / "a.png")
    assert not (tmp_path / "inputs").exists() and Places(str(tmp_path)).locate(text, "image")
    assert not (tmp_path / "inputs").exists(), "without a run folder nothing is written"


def test_a_path_from_the_home_folder_and_of_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    first, second = tmp_path / "run", tmp_path / "pictures"
    for folder in (first, second):
        folder.mkdir()
    (second / "a.png").touch()
    places = Places(str(first), other=str(second))
    assert places.locate("~/b.png", "image") == str(tmp_path / "home/b.png")
    assert places.locate("a.png", "image") == str(second / "a.png")
    (first / "a.png").touch()
    assert places.locate("a.png", "image") == str(first / "a.png"), "its own folder comes first"
    assert places.locate("none.png", "image") == str(first / "none.png")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("data:image/png,%89PNG", "not in base64"),
        ("data:image/png;base64,!!!", "not valid base64"),
        ({"bytes": None}, "a path as a string"),
        (7, "a path as a string"),
    ],
)
def test_a_picture_that_cannot_be_one(tmp_path, value, words):
    with pytest.raises(InputError, match=words):
        Places(str(tmp_path)).locate(value, "image")


def test_a_long_path_is_no_picture(tmp_path):
    path = "/9j/" + "x" * 80 + "/a.png"
    assert Places(str(tmp_path)).locate(path, "image") == path
