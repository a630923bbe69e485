"""What an image server is told of a row, and what is recorded of it. The server is one that speaks OpenAI's format."""

from __future__ import annotations

import json

import pytest
from openai.types.image_generate_params import ImageGenerateParamsNonStreaming
from pydantic import ConfigDict, TypeAdapter, with_config

from fastgen.backends.remote import image_words
from fastgen.types import ImageParams, Request
from tests.backends.remote.conftest import image_answer

OURS = set(image_words.WORDS.values())
CHECK = TypeAdapter(
    with_config(ConfigDict(extra="forbid", arbitrary_types_allowed=True))(ImageGenerateParamsNonStreaming)
)
ROWS = [
    {"id": "a", "prompt": "a cat", "seed": 7, "steps": 9, "guidance": 2.5, "negative_prompt": "blur", "size": "64x64"},
    {"id": "b", "prompt": "a dog"},
]


@pytest.fixture
def run(tmp_path, server, go, monkeypatch):
    """run(rows, refused=(), **flags) -> (run, bodies that were answered, number of refused requests)."""
    from fastgen.resolver import resolve

    monkeypatch.setenv("OPENAI_API_KEY", "x")

    def run(rows, refused=(), **flags):
        good, bad = [], []

        def answer(handler, body):
            said = json.loads(body)
            CHECK.validate_python({k: v for k, v in said.items() if k not in OURS | {"top_k"}})
            wrong = next((word for word in refused if word in said), "")
            if wrong:
                bad.append(wrong)
                told = {"detail": [{"type": "extra_forbidden", "loc": ["body", wrong]}]}
                handler.reply(422, json.dumps(told).encode())
            else:
                good.append(said)
                pictures = [json.loads(image_answer())["data"][0]] * said.get("n", 1)
                handler.reply(200, image_answer(*pictures))

        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = {"backend": "openai", "model": "some-model", "base_url": server(answer).url, **flags}
        done = go(resolve("t2i", path, out=tmp_path / "out", **flags))
        return done, {said["prompt"]: said for said in good}, bad

    return run


def test_what_the_row_says_is_sent_and_recorded(run):
    done, said, bad = run(ROWS, extra_body='{"top_k": 3}')
    assert not bad and said["a cat"] == {
        "model": "some-model",
        "prompt": "a cat",
        "size": "64x64",
        "seed": 7,
        "num_inference_steps": 9,
        "guidance_scale": 2.5,
        "negative_prompt": "blur",
        "response_format": "b64_json",
        "top_k": 3,
    }
    dog = said["a dog"]
    assert dog.keys() == {"model", "prompt", "seed", "response_format", "top_k"} and 0 <= dog["seed"] < 2**31
    first, second = (row["fastgen"] for row in done.table)
    assert (first["seed"], first["steps"], first["guidance"]) == (7, 9, 2.5) and "not_sent" not in first
    assert second["seed"] == dog["seed"] and "steps" not in second


def test_flags_count_as_the_rows_own(run):
    _, said, _ = run([{"id": "b", "prompt": "a dog"}], steps=5, guidance=1.0)
    assert (said["a dog"]["num_inference_steps"], said["a dog"]["guidance_scale"]) == (5, 1.0)


def test_what_a_server_refuses_is_left_out_named_and_said_once(run):
    rows = [{**ROWS[0], "id": str(i), "prompt": f"a cat {i}"} for i in range(30)]
    done, said, bad = run(rows, refused=("seed", "negative_prompt", "response_format"))
    assert len(bad) == 3 and len(said) == 30 and done.counts["done"] == 30, "one request for each"
    about = [row["fastgen"] for row in done.table]
    assert all(sorted(one["not_sent"]) == ["negative_prompt", "seed"] and "seed" not in one for one in about)
    told = [event["message"] for event in done.events if event["event"] == "warning"]
    assert sum("does not support seed" in message for message in told) == 1


def test_a_known_model_is_told_only_what_it_takes(run):
    done, said, _ = run([{**ROWS[0], "size": "1024x1024"}], model="gpt-image-2")
    assert not said["a cat"].keys() & OURS
    (row,) = done.table
    assert sorted(row["fastgen"]["not_sent"]) == ["guidance", "negative_prompt", "seed", "steps"]
    told = [event["message"] for event in done.events if event["event"] == "warning"]
    assert sum("takes no negative_prompt" in message for message in told) == 1


def test_each_image_has_its_own_seed():
    request = Request("a", "t2i", ("x",), ImageParams(0, 0, 28, 3.5, 2**40 + 5, 2))
    assert [image_words.words(request, number) for number in (0, 1)] == [{"seed": 5}, {"seed": 6}]
