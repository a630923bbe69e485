"""Captions from a server of OpenAI's chat format, through the whole run: what may be asked, and what fails how."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from fastgen.api import explain
from fastgen.errors import EngineError, SettingsError
from fastgen.input.columns import TEXT_IS_ASKED
from fastgen.resolver import resolve
from tests.simulator import Simulator

MODEL = "a-vlm"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "test-key")
    with Simulator(models={MODEL}) as simulator:
        yield simulator


@pytest.fixture
def caption(server, tmp_path, go):
    """caption(rows or path, **flags) -> the run against the server, in tmp_path/out."""

    def run(rows, **flags):
        path = rows
        if isinstance(rows, list):
            path = tmp_path / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = {"base_url": server.openai_url, "model": MODEL, "gpus": "cpu", "out": tmp_path / "out", **flags}
        return go(resolve("caption", path, **flags))

    return run


@pytest.fixture
def pictures(tmp_path):
    for name, color in (("red", (220, 30, 35)), ("blue", (40, 80, 220)), ("gray", (130, 130, 130))):
        Image.new("RGB", (64, 48), color).save(tmp_path / f"{name}.png")
    return tmp_path


def test_every_shape_of_row(caption, server, pictures):
    rows = [
        {"image": "red.png"},
        {"images": ["red.png", "blue.png"], "prompt": "compare"},
        {
            "image": ["red.png"],
            "conversation": [{"from": "human", "value": "Generate detailed captions based on image content."}],
        },
        {
            "image": "blue.png",
            "conversations": [
                {"role": "system", "content": "be short"},
                {"role": "user", "content": "what is <image>?"},
                {"role": "assistant", "content": "blue"},
                {"role": "user", "content": "are you sure?"},
            ],
        },
        {"images": ["red.png", "gray.png"], "prompt": "<image> is red, and <image>?"},
    ]
    run = caption(rows, system="look closely")
    assert [row["fastgen"]["status"] for row in run.table] == ["done"] * 5
    assert all(isinstance(row["caption"], str) and row["caption"] for row in run.table)
    assert all(
        {k: v for k, v in row.items() if k not in ("caption", "fastgen")} == rows[i] for i, row in enumerate(run.table)
    )
    asked = {tuple(seen.size for seen in r.images): r for r in server.requests}
    assert len(server.requests) == 5 and ((64, 48), (64, 48)) in asked
    texts = " | ".join(text for r in server.requests for text in r.texts)
    for words in ("look closely", "compare", "be short", "are you sure?", "Describe the image."):
        assert words in texts
    assert "<image>" not in texts


def test_text_is_asked_and_the_run_says_so_when_it_starts(caption, server, pictures, tmp_path):
    rows = [{"image": f"{name}.png", "text": "What colour is the circle?"} for name in ("red", "blue", "gray")]
    told = [event["message"] for event in caption(rows).events if event["event"] == "warning"]
    assert told == [TEXT_IS_ASKED]
    assert all("What colour is the circle?" in request.texts for request in server.requests)
    plan = explain(resolve("caption", tmp_path / "rows.jsonl", base_url=server.openai_url, gpus="cpu"))
    assert plan["unread"] == [TEXT_IS_ASKED]
    asked = len(server.requests)
    left_out = caption(rows, prompt_key="prompt", out=tmp_path / "other")
    assert TEXT_IS_ASKED not in str(left_out.events)
    assert all("Describe the image." in request.texts for request in server.requests[asked:])


def test_a_folder_of_pictures(caption, pictures):
    (pictures / "album" / "deep").mkdir(parents=True)
    (pictures / "red.png").rename(pictures / "album" / "b.png")
    (pictures / "blue.png").rename(pictures / "album" / "deep" / "a.png")
    run = caption(pictures / "album")
    assert [row["image"] for row in run.table] == ["b.png", "deep/a.png"] and all(row["caption"] for row in run.table)


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({}, "images", "no image to caption"),
        ({"image": "none.png"}, "image", "no such file"),
        ({"image": "text.png"}, "image", "Pillow"),
        ({"image": "cut.jpg"}, "image", "cut short"),
        ({"image": "red.png", "prompt": "<image> and <image>"}, "prompt", "2 <image> marks for 1 images"),
        ({"image": "red.png", "conversation": [{"from": "nobody", "value": "x"}]}, "conversation", "role is one of"),
        ({"image": "red.png", "conversation": "hello"}, "conversation", "list of turns"),
        ({"image": "red.png", "max_tokens": 0}, "max_tokens", "out of range"),
        ({"image": "red.png", "temperature": "hot"}, "temperature", "must be a number"),
        ({"image": "red.png", "promt": "Which colour?"}, "promt", "call it `prompt`"),
        ({"image": "red.png", "Question": "Which colour?"}, "Question", "call it `prompt`"),
        ({"image": "red.png", "contents": [{"role": "user", "parts": [{"text": "?"}]}]}, "contents", "--prompt-key"),
    ],
)
def test_bad_rows_name_the_field_and_harm_no_other(caption, server, pictures, row, field, words):
    (pictures / "text.png").write_text("no picture")
    Image.effect_noise((300, 300), 60).convert("RGB").save(pictures / "whole.jpg")
    (pictures / "cut.jpg").write_bytes((pictures / "whole.jpg").read_bytes()[:4000])
    run = caption([row, {"image": "red.png"}])
    [failed] = run.failures
    error = failed["fastgen"]["error"]
    assert error["kind"] == "input" and error["field"] == field and words in error["message"], error
    assert error["message"].startswith("row 1") and "caption" not in failed
    assert run.table[1]["fastgen"]["status"] == "done" and len(server.requests) == 1


SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["color", "count"],
    "properties": {"color": {"type": "string"}, "count": {"type": "integer"}},
}


def test_a_schema_gives_objects_and_checks_them(caption, server, pictures):
    (pictures / "schema.json").write_text(json.dumps(SCHEMA))
    run = caption(
        [{"image": "red.png"}, {"image": "blue.png", "prompt": "fault:cut_json"}], schema=pictures / "schema.json"
    )
    first, second = run.table
    assert set(first["caption"]) == {"color", "count"} and isinstance(first["caption"]["count"], int)
    assert second["fastgen"]["error"]["kind"] == "malformed" and "caption" not in second


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "cannot be read as JSON"), ('{"type": "nonsense"}', "not a JSON schema"), ("[]", "JSON object")],
)
def test_a_schema_that_is_none_is_refused_before_any_work(pictures, content, words):
    (pictures / "schema.json").write_text(content)
    with pytest.raises(SettingsError, match=words):
        resolve("caption", pictures, base_url="http://127.0.0.1:9/v1", schema=pictures / "schema.json")


@pytest.mark.parametrize(
    ("fault", "kind", "tries"),
    [
        ("refusal_field", "refused", 1),
        ("refusal_text", "refused", 1),
        ("content_filter", "refused", 1),
        ("length", "truncated", 1),
        ("empty_text", "empty", 2),
        ("empty_choices", "malformed", 3),
        ("cut_json", "malformed", 3),
        ("html_200", "unavailable", 3),
        ("data_null", "malformed", 3),
        ("error_500", "unavailable", 3),
        ("insufficient_quota", "quota", 1),
    ],
)
def test_what_goes_wrong_is_told_as_it_is_and_terminal_kinds_are_not_retried(
    caption, server, pictures, fault, kind, tries
):
    run = caption([{"image": "blue.png"}, {"image": "red.png", "prompt": f"fault:{fault}"}], max_inflight=1)
    row = run.table[1]
    assert "caption" not in row and row["fastgen"]["error"]["kind"] == kind, row
    assert row["fastgen"]["attempts"] == tries == len([r for r in server.requests if r.fault == fault])


@pytest.mark.parametrize("fault", ["rate_limit", "rate_limit_after", "error_500", "disconnect", "overloaded"])
def test_what_passes_is_tried_again(caption, server, pictures, fault):
    run = caption([{"image": "red.png", "prompt": f"fault:{fault}:once"}, {"image": "blue.png"}])
    assert [row["fastgen"]["status"] for row in run.table] == ["done", "done"]
    assert run.table[0]["fastgen"]["attempts"] == 2


def test_large_pictures_are_scaled_down_and_small_ones_travel_as_they_are(caption, server, pictures):
    from hashlib import sha256

    Image.effect_noise((1600, 1200), 60).convert("RGB").save(pictures / "large.jpg")
    caption([{"image": "large.jpg"}, {"image": "red.png"}], max_pixels=1024 * 1024)
    seen = {i.size: i for r in server.requests for i in r.images}
    [large] = [size for size in seen if size != (64, 48)]
    assert 0.97 * 1024 * 1024 < large[0] * large[1] <= 1024 * 1024 and abs(large[0] / large[1] - 4 / 3) < 0.01
    assert seen[64, 48].sha256 == sha256((pictures / "red.png").read_bytes()).hexdigest()


def test_the_same_command_goes_on_and_asks_nothing_twice(caption, server, pictures, tmp_path):
    rows = [{"image": "red.png", "prompt": f"number {i}"} for i in range(5)]
    caption(rows, limit=3)
    assert len(server.requests) == 3
    run = caption(rows)
    assert len(server.requests) == 5 and len({r.prompt for r in server.requests}) == 5
    assert len(run.table) == 5 and all(row["caption"] for row in run.table)


def test_the_model_is_the_servers_first_where_none_is_named(caption, server, pictures):
    with pytest.raises(EngineError, match="404 model_not_found"):  # the simulator's first one makes pictures
        caption([{"image": "red.png", "prompt": f"{i}"} for i in range(9)], model="auto")
    assert {r.model for r in server.requests if r.operation == "chat"} == {first_model(server)}


def first_model(server) -> str:
    import urllib.request

    asked = urllib.request.Request(f"{server.openai_url}/models", headers={"Authorization": "Bearer test-key"})
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return json.load(reply)["data"][0]["id"]


def test_a_server_that_is_not_there(pictures, go, tmp_path):
    from fastgen.errors import FastgenError

    settings = resolve("caption", pictures, base_url="http://127.0.0.1:9/v1", out=tmp_path / "out")
    with pytest.raises(FastgenError, match="does not answer"):
        go(settings)


def test_where_relative_paths_start(server, pictures, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere"
    other.mkdir()
    rows = other / "rows.json"
    rows.write_text(json.dumps([{"image": ["./red.png"]}]))
    monkeypatch.chdir(pictures)
    settings = resolve("caption", rows, base_url=server.openai_url)
    assert settings.rows.image_root == str(pictures) and any(
        "relative paths start in" in note for note in settings.run.notes
    )
    (other / "red.png").write_bytes((pictures / "red.png").read_bytes())
    assert resolve("caption", rows, base_url=server.openai_url).rows.image_root == str(other)
