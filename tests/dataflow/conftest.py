"""Pipelines in a folder of their own, on the fake backend (no model), or against the simulator."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.dataflow.serving.texts import TextServing
from fastgen.dataflow.utils.storage import FileStorage
from tests.simulator import Simulator

KEY = "test-key"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder, with two pictures in it; no keys but that of the simulator."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "OPENAI_BASE_URL",
        "GOOGLE_GEMINI_BASE_URL",
        "DF_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DF_API_KEY", KEY)
    Image.new("RGB", (96, 64), (200, 60, 60)).save("image.png")
    Image.new("RGB", (64, 64), (60, 200, 60)).save("human_inpaint.jpg")
    return tmp_path


@pytest.fixture
def server():
    with Simulator(models={"a-vlm"}) as simulator:
        yield simulator


@pytest.fixture
def storage(here):
    """storage(rows) -> a FileStorage at its first step; rows may be a lines of bytes. again=True: the same file as
    before."""

    def make(rows, name="rows.jsonl", cache_path="./cache", **more):
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        (here / name).write_bytes(b"".join(line + b"\n" for line in lines))
        return FileStorage(name, cache_path, "dataflow_cache_step", **more).step()

    return make


@pytest.fixture
def drawn():
    """drawn(task, **more) -> a serving of pictures without a model."""

    def make(task="text2image", save_path="./cache/pictures", **more):
        more = {"diffuser_image_height": 64, "diffuser_image_width": 64, "backend": "fake", "gpus": "cpu", **more}
        return LocalImageGenServing(ImageIO(save_path), "fake", None, Image_gen_task=task, **more)

    return make


@pytest.fixture
def told():
    """told(**more) -> a serving of texts without a model: it says how many pictures it saw."""
    return lambda **more: TextServing(backend="fake", gpus="cpu", **more)


@pytest.fixture
def written():
    """written(storage) -> the table that was written last, as a list of rows."""
    return lambda storage: storage.step().read("dict")


def made_in(folder) -> list[str]:
    """The ids of the rows that were made under a folder, in all its runs."""
    lines = [line for path in folder.rglob("journal.jsonl") for line in path.read_text().splitlines()]
    return [record["id"] for line in lines if (record := json.loads(line)["rec"])["status"] == "done"]
