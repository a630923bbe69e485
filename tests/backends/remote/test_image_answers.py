"""Images that gateways have in other places than OpenAI does are found there: they are paid for."""

from __future__ import annotations

import base64
import json

import pytest

from fastgen.backends.remote.http_client import Answer
from fastgen.backends.remote.image_answers import in_usual_form
from fastgen.resolver import resolve
from tests.backends.remote.conftest import png, serving

PACKED = base64.b64encode(png()).decode()
URI = f"data:image/png;base64,{PACKED}"
STREAM = (
    'event: image_generation.partial_image\ndata: {"type": "image_generation.partial_image", "b64_json": "draft"}\n\n'
    f'event: image_generation.completed\ndata: {{"type": "image_generation.completed", "b64_json": "{PACKED}"}}\n\n'
)


def data_of(body) -> list:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = in_usual_form(Answer(200, {"Content-Type": "text/plain"}, raw))
    assert answer.headers == {"content-type": "application/json"}
    return json.loads(answer.data)["data"]


@pytest.mark.parametrize(
    "body, image",
    [
        ({"images": [{"url": URI}], "timings": {"inference": 1.5}}, {"url": URI}),
        ({"images": [PACKED], "parameters": {}, "info": ""}, {"b64_json": PACKED}),
        ({"data": [PACKED]}, {"b64_json": PACKED}),
        ({"data": [{"image": PACKED}]}, {"b64_json": PACKED}),
        ({"data": None, "output": {"results": [{"b64_image": "x"}]}}, {"b64_json": "x"}),
        ({"output": ["https://host/a.png"]}, {"url": "https://host/a.png"}),
        ({"output": "https://host/a.png"}, {"url": "https://host/a.png"}),
        ({"images": [{"image_url": {"url": "/files/a.png"}}]}, {"url": "/files/a.png"}),
        ({"artifacts": [{"base64": "x", "seed": 1}]}, {"b64_json": "x"}),
        ({"predictions": [{"bytesBase64Encoded": "x", "mimeType": "image/png"}]}, {"b64_json": "x"}),
        (png(), {"b64_json": PACKED}),
        (STREAM.encode(), {"b64_json": PACKED}),
    ],
)
def test_images_elsewhere(body, image):
    assert data_of(body) == [image]


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"b64_json": "x"}], "usage": {"input_tokens": 5}},
        {"data": [{"url": "https://host/a.png", "revised_prompt": "a cat"}]},
        {"data": []},
        {"images": [{"error": "out of memory"}]},
        {"output": "I cannot draw that."},
        {"output": "failed"},
        [],
        None,
    ],
)
def test_other_answers_are_left_as_they_are(body):
    answer = Answer(200, {"content-type": "application/json"}, json.dumps(body).encode())
    assert in_usual_form(answer) is answer


def test_an_error_is_left_as_it_is():
    answer = Answer(500, {}, png())
    assert in_usual_form(answer) is answer


@pytest.mark.parametrize(
    "body",
    [
        {"images": [{"url": URI}]},
        {"data": [{"b64_json": "\n".join(PACKED[i : i + 60] for i in range(0, len(PACKED), 60))}]},
        {"data": [{"b64_json": base64.urlsafe_b64encode(png()).decode().rstrip("=")}]},
        png(),
        STREAM.encode(),
    ],
)
def test_one_request_gives_the_image(tmp_path, go, monkeypatch, body):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a cat"}\n')
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "image/png" if data == png() else "text/event-stream" if data == STREAM.encode() else "application/json"
    with serving(lambda handler, sent: handler.reply(200, data, Content_Type=kind)) as server:
        flags = {"backend": "openai", "base_url": server.url, "model": "m", "max_inflight": 1}
        run = go(resolve("t2i", rows, out=tmp_path / "out", **flags))
    assert len(server.seen) == 1 and len(run.table[0]["images"]) == 1, run.table
