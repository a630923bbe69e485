"""Rows from Python: what JSON does not have is written so that it does, and what cannot be fails as its row."""

from __future__ import annotations

import datetime
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from fastgen.config.settings import OUTPUT_KEYS
from fastgen.input import images
from fastgen.input.readers.python_rows import problem, write_jsonl
from fastgen.input.readers.rows import read

NOISE = Image.effect_noise((24, 16), 60).convert("RGB")


def spooled(tmp_path, *rows) -> list[dict]:
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, iter(rows), tmp_path / "inputs") == len(rows)
    return [row.fields() for row in read(path)]


def test_numbers_of_numpy_are_numbers(tmp_path):
    row = {
        "seed": np.int64(3),
        "guidance": np.float32(3.5),
        "size": np.array([64, 48]),
        "yes": np.bool_(True),
        "none": np.float64("nan"),
        "text": np.str_("é"),
        "n": np.uint8(2),
        "far": np.datetime64("2026-01-02"),
    }
    [fields] = spooled(tmp_path, row)
    assert fields == {
        "seed": 3,
        "guidance": 3.5,
        "size": [64, 48],
        "yes": True,
        "none": None,
        "text": "é",
        "n": 2,
        "far": "2026-01-02",
    }
    assert problem(fields) is None


def test_other_things_that_people_have_in_their_tables(tmp_path):
    class Missing:
        def __repr__(self) -> str:
            return "<NA>"

    row = {
        "image": pathlib.PurePosixPath("a/b.png"),
        "images": (pathlib.Path("c.png"), "d.png"),
        "when": datetime.date(2026, 1, 2),
        "tags": {"b", "a"},
        "deep": {"a": [{"b": np.int8(1)}], 5: "five"},
        "missing": Missing(),
        "raw": b"\x00\xff",
    }
    [fields] = spooled(tmp_path, row)
    assert fields == {
        "image": "a/b.png",
        "images": ["c.png", "d.png"],
        "when": "2026-01-02",
        "tags": ["a", "b"],
        "deep": {"a": [{"b": 1}], "5": "five"},
        "missing": None,
        "raw": "AP8=",
    }


def test_pictures_become_files_that_look_the_same(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    NOISE.save(tmp_path / "turned.jpg", exif=exif, icc_profile=profile)
    turned = Image.open(tmp_path / "turned.jpg")
    clear = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    fields, again = spooled(
        tmp_path,
        {"images": [NOISE, turned, clear, NOISE.rotate(180).convert("CMYK")]},
        {"image": NOISE.copy(), "id": "mine"},
    )
    first, second, third, fourth = fields["images"]
    assert pathlib.Path(first).parent == tmp_path / "inputs"
    assert images.load(first, "images").tobytes() == NOISE.tobytes()
    assert images.load(second, "images").tobytes() == images.load(str(tmp_path / "turned.jpg"), "images").tobytes()
    assert images.look(second, "images").profile == profile
    assert images.load(third, "images").getpixel((0, 0)) == (255, 255, 255)
    assert images.probe(fourth, "images") == NOISE.size
    assert again["image"] == first and "fastgen" not in again, "one content is one file; a row's own id stays"
    assert len(list((tmp_path / "inputs").iterdir())) == 4


def test_a_row_with_a_picture_is_the_same_row_in_another_folder(tmp_path):
    """Or its seed would depend on where the run keeps its files."""
    rows = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rows += spooled(tmp_path / name, {"image": NOISE, "prompt": "a"}, {"image": NOISE, "prompt": "b"})
    ids = [row["fastgen"]["id"] for row in rows]
    assert ids[:2] == ids[2:] and ids[0] != ids[1] and rows[0]["image"] != rows[2]["image"]
    [other] = spooled(tmp_path / "one", {"image": NOISE.rotate(180), "prompt": "a"})
    assert other["fastgen"]["id"] not in ids


def circle() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "a value of type object"),
        (np.zeros((200, 300, 3), np.uint8), "an array of 200x300x3 numbers; give an image as a path"),
        (circle(), "nested too deep"),
        ((x for x in ()), "a value of type generator"),
        (Image.new("F", (4, 4)), ""),
        (Image.new("RGB", (0, 4)), "it has no pixels"),
    ],
    ids=["object", "array", "circle", "generator", "float picture", "no pixels"],
)
def test_what_cannot_be_kept_is_the_fault_of_its_row(tmp_path, value, words):
    before, bad, after = spooled(tmp_path, {"prompt": "a"}, {"id": "x", "image": value, "prompt": "b"}, {"prompt": "c"})
    assert (before, after) == ({"prompt": "a"}, {"prompt": "c"}) and bad["id"] == "x" and bad["prompt"] == "b"
    found = problem(bad)
    if words:
        assert found is not None and found.field == "image" and words in str(found)


def test_a_picture_that_png_cannot_hold_is_the_fault_of_its_row(tmp_path, monkeypatch):
    def save(*arguments, **options):
        raise ValueError("no room for this profile")

    monkeypatch.setattr(Image.Image, "save", save)
    bad, good = spooled(tmp_path, {"image": Image.new("RGB", (8, 8))}, {"prompt": "b"})
    assert "no room for this profile" in str(problem(bad)) and good == {"prompt": "b"}
    assert not list((tmp_path / "inputs").iterdir())


def test_a_picture_whose_file_is_broken_is_the_fault_of_its_row(tmp_path):
    NOISE.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    _, bad = spooled(tmp_path, {"prompt": "a"}, {"image": Image.open(tmp_path / "cut.png")})
    found = problem(bad)
    assert found is not None and "cannot be read" in str(found) and found.field == "image"


def test_halves_of_characters_stay_in_their_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"prompt": "a", "x": "\ud83d"}, {"prompt": "b"}], tmp_path)
    assert path.read_bytes().decode("utf-8").count("\n") == 2
    first, second = [row.fields() for row in read(path)]
    assert json.dumps(first) == '{"prompt": "a", "x": "\\ud83d"}' and second == {"prompt": "b"}


def test_bad_rows_from_python_fail_alone(settings, table):
    """In a run: numbers and paths work, what cannot be kept is named with row and field, and the table has them all."""
    from fastgen.api import generate

    rows = [
        {"prompt": "a", "seed": np.int64(3)},
        {"prompt": "b", "seed": object(), "id": "mine"},
        {"prompt": "half \ud83d"},
        {"prompt": "c", "x": "\udcff"},
    ]
    results = {result.id: result for result in generate(settings("t2i"), rows)}
    out = pathlib.Path(settings("t2i").run.out)
    lines = table(out / "results.jsonl")
    assert [line["fastgen"]["status"] for line in lines] == ["done", "failed", "failed", "done"]
    assert lines[0]["seed"] == 3 and lines[3]["x"] == "\udcff" and OUTPUT_KEYS["t2i"] in lines[3]
    assert results["mine"].message == (
        "row 2, field seed: a value of type object, which JSON does not have; give text, numbers, lists or dicts"
    )
    assert lines[2]["fastgen"]["error"]["field"] == "prompt"


def test_bytes_are_no_prompt_but_may_stand_in_a_column_of_the_users_own(settings, table):
    from fastgen.api import generate

    rows = [{"prompt": b"a fox"}, {"prompt": "a fox", "thumbnail": b"abc"}]
    list(generate(settings("t2i"), rows))
    first, second = table(pathlib.Path(settings("t2i").run.out) / "results.jsonl")
    assert first["fastgen"]["error"]["message"].startswith("row 1, field prompt: bytes; give text")
    assert second["fastgen"]["status"] == "done" and second["thumbnail"] == "YWJj"
