"""The callable for Ray Data, called as Ray Data calls it; tests/workers/test_ray.py has it on a cluster."""

from __future__ import annotations

import os

import numpy
import pandas
import pyarrow
import pytest

import fastgen

FAKE = {"backend": "fake", "gpus": "cpu"}
PROMPTS = ["a fox", "refuse", "a boat", ""]


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """One engine for all."""
    return fastgen.ray.Worker("t2i", str(tmp_path_factory.mktemp("made")), **FAKE)


FORMS = {
    "numpy": (
        lambda columns: {n: numpy.array(v) for n, v in columns.items()},
        lambda made: {n: list(v) for n, v in made.items()},
    ),
    "pandas": (lambda columns: pandas.DataFrame(columns, index=[7, 8, 9, 10]), lambda made: made.to_dict("list")),
    "pyarrow": (pyarrow.table, lambda made: made.to_pydict()),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_row_in_one_row_out_in_order(worker, form):
    """Rows that fail are marked; columns stay as they are, and so does the form."""
    give, take = FORMS[form]
    batch = give({"prompt": PROMPTS, "mine": [1, 2, 3, 4]})
    made = worker(batch)
    assert type(made) is type(batch)
    columns = take(made)
    assert list(columns) == ["prompt", "mine", "images", "fastgen_status", "fastgen_error"]
    assert columns["prompt"] == PROMPTS and columns["mine"] == [1, 2, 3, 4]
    assert columns["fastgen_status"] == ["done", "failed", "done", "failed"]
    assert [len(paths) for paths in columns["images"]] == [1, 0, 1, 0]
    assert columns["fastgen_error"][0] is None and "refused" in columns["fastgen_error"][1]
    assert columns["fastgen_error"][3].startswith("row 4, field prompt:")
    again = take(worker(made))
    assert list(again) == list(columns) and list(again["images"]) == list(columns["images"]), "filled rows are kept"


def test_a_batch_that_comes_again_is_not_made_again(worker):
    batch = {"prompt": numpy.array(["one", "two"]), "image": numpy.zeros((2, 3), numpy.uint8)}
    first = worker(batch)
    images = {path: os.stat(path).st_mtime_ns for [path] in first["images"]}
    again = worker({name: values.copy() for name, values in batch.items()})
    assert {path: os.stat(path).st_mtime_ns for [path] in again["images"]} == images
    other = worker({**batch, "prompt": numpy.array(["one", "three"])})
    assert not images.keys() & {path for [path] in other["images"]}, "another batch has a folder of its own"


def test_an_empty_batch_stays_one(worker):
    assert worker({"prompt": numpy.array([])})["prompt"].size == 0


def test_what_is_wrong_is_said_before_the_first_batch(tmp_path):
    with pytest.raises(fastgen.SettingsError, match="task: must be t2i, edit or caption, not t3i"):
        fastgen.ray.Worker("t3i", str(tmp_path))
    with pytest.raises(fastgen.SettingsError, match="--steps"):
        fastgen.ray.Worker("t2i", str(tmp_path), steps=-1, **FAKE)
    with pytest.raises(fastgen.SettingsError, match="out s3://bucket/run: must be a folder on a disk"):
        fastgen.ray.Worker("t2i", "s3://bucket/run", **FAKE)
    assert not any(tmp_path.iterdir())


def test_captions_are_texts(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    worker = fastgen.ray.Worker("caption", str(tmp_path / "made"), image_root=tmp_path, **FAKE)
    made = worker({"image": numpy.array(["a.png", "none.png"])})
    assert list(made["caption"]) == ["1 pictures", None] and list(made["fastgen_status"]) == ["done", "failed"]
