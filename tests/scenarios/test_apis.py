"""Pictures from APIs through the whole run: the record shapes that DataFlow-MM documents, masks, and one run on two
backends."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastgen.errors import SettingsError
from fastgen.resolver import resolve
from tests.simulator import Simulator

pytest.importorskip("openai")
pytest.importorskip("google.genai")
MODELS = {"openai": "gpt-image-2", "gemini": "gemini-nano-banana-2.1"}
USER = [{"role": "user", "content": "Change the guitar to a piano."}]
TWO = [{"role": "user", "content": "Complete the shadowed part."}, {"role": "user", "content": "Make it English."}]
T2I = [
    {"conversations": [{"content": "a fox darting between snow-covered pines at dusk", "role": "user"}]},
    {"conversations": [{"content": "a kite surfer riding emerald waves", "role": "user"}], "images": [""]},
]
EDIT = [
    {"images": "image.png", "conversations": USER},
    {"images": ["image.png", "human_inpaint.jpg"], "conversations": USER},
    {"images": "human_inpaint.jpg", "conversations": TWO},
    {"conversations": USER, "images": ["./image.png"], "edited_images": [""]},
]
CAPTION = [
    {
        "image": ["./image.png"],
        "conversation": [{"from": "human", "value": "Generate detailed captions based on image content."}],
    }
]


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("GEMINI_API_KEY", "test-key")
    for name in ("OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "DF_API_KEY", "DF_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (96, 64), (200, 60, 60)).save(tmp_path / "image.png")
    Image.new("RGB", (64, 64), (60, 200, 60)).save(tmp_path / "human_inpaint.jpg")
    return tmp_path


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    if name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def at(server, backend: str) -> dict:
    url = server.gemini_url if backend == "gemini" else server.openai_url
    return {"backend": backend, "base_url": url, "model": MODELS[backend]}


@pytest.mark.parametrize("backend", ["openai", "gemini", "local"])
@pytest.mark.parametrize(("task", "rows"), [("t2i", T2I), ("edit", EDIT)], ids=["t2i", "edit"])
def test_the_documented_record_shapes(server, folder, go, backend, task, rows):
    if backend == "local":
        where = {"model": "tiny", "gpus": "cpu", "steps": 1, "size": "64x64"}
    else:
        where = at(server, backend)
    run = go(resolve(task, write(folder, rows), out=folder / "out", **where))
    key = {"t2i": "images", "edit": "edited_images"}[task]
    for row, given in zip(run.table, rows, strict=True):
        assert row["fastgen"]["status"] == "done", row
        assert {k: v for k, v in row.items() if k not in (key, "fastgen")} == {
            k: v for k, v in given.items() if k != key
        }
        assert len(row[key]) == 1 and Image.open(folder / "out" / row[key][0]).size > (0, 0)
    if backend != "local" and task == "edit":
        turns = [r for r in server.requests if r.status == 200]
        assert len(turns) == 5, "a request for each turn"
        assert max(len(r.images) for r in turns) >= 2


@pytest.mark.parametrize(("backend", "model"), [("openai", "gpt-6-luna"), ("gemini", "gemini-3-flash")])
def test_the_documented_shape_of_captions(server, folder, go, backend, model):
    run = go(
        resolve(
            "caption",
            write(folder, CAPTION, "rows.json"),
            out=folder / "out",
            **{**at(server, backend), "model": model},
        )
    )
    assert run.table[0]["caption"] and run.table[0]["image"] == CAPTION[0]["image"]
    assert run.table[0]["fastgen"]["usage"]


def test_wishes_and_copies(server, folder, go):
    rows = [
        {"prompt": "a", "size": "1536x1024", "quality": "low", "background": "opaque", "n": 3},
        {"prompt": "b", "quality": "ultra"},
        {"prompt": "c", "size": "100x100"},
    ]
    run = go(resolve("t2i", write(folder, rows), out=folder / "out", **at(server, "openai")))
    first, second, third = run.table
    assert len(first["images"]) == 3 and {Image.open(folder / "out" / p).size for p in first["images"]} == {
        (1536, 1024)
    }
    assert first["fastgen"]["quality"] == "low" and first["fastgen"]["cost_usd"] > 0
    for row in (second, third):
        assert row["fastgen"]["error"]["kind"] == "unsupported" and "images" not in row
    assert len([r for r in server.requests if r.prompt in ("b", "c")]) == 0, "said before anything is sent"


def test_a_flag_that_cannot_be_honoured_is_refused_before_any_work(folder):
    path = write(folder, T2I)
    for flags, words in (
        ({"backend": "openai", "model": "gpt-image-2", "aspect_ratio": "16:9"}, "aspect"),
        ({"backend": "gemini", "model": "gemini-nano-banana-2.1", "quality": "high"}, "quality"),
        ({"backend": "local", "model": "tiny", "gpus": "cpu", "resolution": "4K"}, "resolution"),
    ):
        with pytest.raises(SettingsError, match=words):
            resolve("t2i", path, **flags)


def test_a_retired_model_is_named_with_its_successor_and_goes_on(folder):
    settings = resolve("t2i", write(folder, T2I), backend="gemini", model="gemini-3-pro-image-preview")
    assert settings.model.name == "gemini-3-pro-image-preview"
    assert any("gemini-3-pro-image" in note and "2026-06-25" in note for note in settings.run.notes)


def test_the_engine_first_and_an_api_for_what_it_cannot_do(server, folder, go):
    rows = [{"id": "here", "prompt": "a red circle"}, {"id": "there", "prompt": "a wide one", "aspect_ratio": "16:9"}]
    fallback = f"gemini:{MODELS['gemini']}@{server.gemini_url}"
    run = go(
        resolve("t2i", write(folder, rows), out=folder / "out", model="tiny", gpus="cpu", steps=1, fallback=fallback)
    )
    served = {row["id"]: row["fastgen"] for row in run.table}
    assert served["here"]["backend"] == "local" and served["there"]["backend"] == "gemini"
    assert served["there"]["aspect_ratio"] == "16:9" and [r.prompt for r in server.requests] == ["a wide one"]
    wide = Image.open(folder / "out" / run.table[1]["images"][0])
    assert abs(wide.width / wide.height - 16 / 9) < 0.05


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_a_mask_arrives_as_each_api_has_it(server, folder, go, backend):
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 24:72] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    rows = [{"image": "image.png", "mask": "mask.png", "prompt": "a blue window"}]
    run = go(resolve("edit", write(folder, rows), out=folder / "out", **at(server, backend)))
    [request] = [r for r in server.requests if r.status == 200]
    if backend == "openai":  # transparent where it is to be repainted, of the picture's size
        assert request.mask.mode == "RGBA" and request.mask.size == request.images[0].size == (96, 64)
        alpha = np.asarray(request.mask.getchannel("A"))
        assert (alpha == 255 - mask).all()
        return
    assert len(request.images) == 2 and request.images[1].size == (96, 64), "as a further picture"
    made = np.asarray(Image.open(folder / "out" / run.table[0]["edited_images"][0]).convert("RGB"))
    before = np.asarray(Image.open(folder / "image.png"))
    assert made.shape == before.shape and (made[mask == 0] == before[mask == 0]).all()
    assert (made[mask == 255] != before[mask == 255]).any()
