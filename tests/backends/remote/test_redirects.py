"""Redirects: every status, to the same and to another origin, for every way in which something is sent. No key, prompt
or picture reaches another origin, and a body is not turned into a GET."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("openai")
pytest.importorskip("google.genai")

from fastgen.backends.registry import create
from fastgen.config.hardware import Device
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, Failed, ImageParams, Request, TextParams
from tests.backends.remote.conftest import chat_answer, gemini_answer, image_answer, png, serving

KEY = "the-key-of-this-test"
STATUSES = (301, 302, 303, 307, 308)
WAYS = {
    "openai t2i": ("openai", "t2i", "/v1"),
    "openai edit": ("openai", "edit", "/v1"),
    "openai caption": ("openai", "caption", "/v1"),
    "gemini t2i": ("gemini", "t2i", "/v1beta"),
    "gemini edit": ("gemini", "edit", "/v1beta"),
    "gemini caption": ("gemini", "caption", "/v1beta"),
    "vllm caption": ("vllm", "caption", "/v1"),
}


def answer_to(path: str, body: bytes, own_url: str) -> bytes:
    if "generateContent" in path:
        return gemini_answer({"text": "a red house"}) if b"IMAGE" not in body else gemini_answer()
    if "chat" in path:
        return chat_answer()
    return image_answer({"url": f"{own_url}/picture"}) if b"by address" in body else image_answer()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Two origins, the first of which sends all on as `.status` and `.goal` say; a backend for each way."""
    state = SimpleNamespace(status=307, goal="")

    def first(handler, body):
        if handler.path.startswith("/moved") or (handler.path != "/picture" and b"by address" in body):
            data = png() if "picture" in handler.path else answer_to(handler.path, body, one.url)
            handler.reply(200, data, Content_Type="application/json")
        else:
            handler.reply(state.status, b"on you go", Location=f"{state.goal}{handler.path}")

    def second(handler, body):
        data = png() if "picture" in handler.path else answer_to(handler.path, body, two.url)
        handler.reply(200, data, Content_Type="application/json")

    out = tmp_path_factory.mktemp("out")
    for folder in ("images", ".partial"):
        (out / folder).mkdir()
    (out / "in.png").write_bytes(png((128, 128)))
    patch = pytest.MonkeyPatch()
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "VLLM_API_KEY"):
        patch.setenv(name, KEY)
    opened = {}

    def backend(way):
        name, task, version = WAYS[way]
        if way not in opened:
            model = {"caption": "a-vlm"}.get(task, "auto")
            flags = {"backend": name, "base_url": one.url + version, "out": out, "model": model, "timeout": 10}
            opened[way] = create(resolve(task, None, **flags), Device("cpu", "cpu", 1))
            opened[way].open()
        return opened[way]

    with serving(first) as one, serving(second) as two:
        yield SimpleNamespace(state=state, one=one, two=two, backend=backend, out=out)
        for each in opened.values():
            each.close()
    patch.undo()


def ask(house, way, prompt="a house"):
    _, task, _ = WAYS[way]
    images = () if task == "t2i" else (str(house.out / "in.png"),)
    if task == "caption":
        request = Request("a", task, (), TextParams(300, 0.0, 5), images=images, dialogue=(("user", prompt),))
    else:
        request = Request("a", task, (prompt,), ImageParams(0, 0, 28, 3.5, 0, 1), images=images)
    house.one.seen.clear()
    house.two.seen.clear()
    (result,) = house.backend(way).run(Batch(Bucket.of(request), (request,)))
    return result


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("way", WAYS)
def test_to_another_origin_nothing_goes(house, way, status):
    house.state.status, house.state.goal = status, house.two.url
    result = ask(house, way)
    assert not house.two.seen
    assert isinstance(result, Failed) and (result.kind, result.cost) == ("gone", 0.0)
    base = house.two.url + WAYS[way][2]
    assert f"{status}" in result.message and f"--base-url {base}" in result.message and KEY not in result.message
    assert len(house.one.seen) == 1


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("way", WAYS)
def test_within_an_origin_only_what_keeps_the_body_is_followed(house, way, status):
    house.state.status, house.state.goal = status, f"{house.one.url}/moved"
    result = ask(house, way)
    if status in (307, 308):
        assert isinstance(result, Done), result
        first, second = house.one.seen
        assert second.path == f"/moved{first.path}" and second.body == first.body and first.body
        assert second.method == "POST" and KEY in json.dumps(second.headers)
    else:
        assert isinstance(result, Failed) and (result.kind, result.cost) == ("gone", 0.0)
        assert f"--base-url {house.one.url}/moved{WAYS[way][2]}" in result.message and len(house.one.seen) == 1


@pytest.mark.parametrize("status", STATUSES)
def test_a_picture_by_address_that_was_moved(house, status):
    house.state.status, house.state.goal = status, house.two.url
    result = ask(house, "openai t2i", "by address")
    assert not house.two.seen
    assert isinstance(result, Failed) and result.kind == "unsupported" and house.two.url in result.message
    assert [seen.method for seen in house.one.seen] == ["POST", "GET"], "paid for once"
    house.state.goal = f"{house.one.url}/moved"
    result = ask(house, "openai t2i", "by address")
    assert isinstance(result, Done) and [seen.method for seen in house.one.seen] == ["POST", "GET", "GET"]
    assert not any(KEY in json.dumps(seen.headers) for seen in house.one.seen[1:])


def test_a_circle_ends(house):
    house.state.status, house.state.goal = 307, house.one.url
    result = ask(house, "vllm caption")
    assert result.kind == "gone" and "circle" in result.message and len(house.one.seen) == 5


def test_an_address_with_secrets_is_told_without_them(house):
    house.state.status, house.state.goal = 307, f"http://u:hidden@127.0.0.1:{house.two.port}"
    result = ask(house, "vllm caption")
    assert result.kind == "gone" and "hidden" not in result.message and not house.two.seen
