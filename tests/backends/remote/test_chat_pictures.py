"""Pictures out of chats: every form that gateways have, whole and as a stream, against the simulator."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from PIL import Image

from fastgen.backends.remote.answer_text import text_of
from fastgen.backends.remote.chat import Reply, read
from fastgen.backends.remote.chat_pictures import addresses
from fastgen.backends.remote.http_client import Answer
from fastgen.backends.remote.openai_api import OpenAIBackend
from fastgen.backends.remote.responses import ProviderError
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, ImageParams, Request, TextParams
from tests.backends.remote.conftest import serving
from tests.simulator import Simulator, drawing
from tests.simulator.chat_gateway import FORMS

MODEL = "gemini-2.5-flash-image-preview"


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    """gateway(form, **of the simulator) -> (simulator, ask(task, *prompts, stream=, **fields of the request))."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    (tmp_path / "images").mkdir()
    (tmp_path / ".partial").mkdir()
    opened: list = []

    def make(form, stream=False, **about):
        sim = Simulator(draws=form, models={MODEL}, **about).__enter__()
        opened.append(lambda: sim.__exit__(None, None, None))
        settings = resolve("edit", None, backend="openai", base_url=sim.openai_url, model=MODEL, out=tmp_path)
        settings = replace(settings, endpoint=replace(settings.endpoint, stream=stream))
        backend = OpenAIBackend(settings, None)
        backend.open()
        opened.append(backend.close)

        def ask(task, *prompts, n=1, **fields):
            request = Request("a", task, prompts, ImageParams(0, 0, 28, 3.5, 0, n, **fields.pop("words", {})), **fields)
            (result,) = backend.run(Batch(Bucket.of(request), (request,)))
            return result

        return sim, ask

    yield make
    for close in reversed(opened):
        close()


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (80, 48), "red").save(tmp_path / "in.png")
    return str(tmp_path / "in.png")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("form", [form for form in FORMS if form != "words"])
def test_an_edit_comes_in_every_form(gateway, picture, tmp_path, form, stream):
    sim, ask = gateway(form, stream)
    result = ask("edit", "make it blue", images=(picture,))
    assert isinstance(result, Done), result
    (path,) = result.paths
    drawn = drawing.paint("make it blue", (80, 48), [Image.open(picture)])
    assert Image.open(tmp_path / path).tobytes() == drawn.tobytes()
    tried, chat = sim.requests
    assert (tried.operation, tried.status) == ("edit", 404) and chat.operation == "chat"
    assert chat.params.get("stream", False) is stream and chat.model == MODEL and "max_tokens" not in chat.params
    again = ask("edit", "make it green", images=(picture,))
    assert isinstance(again, Done) and [one.operation for one in sim.requests[2:]] == ["chat"], "it is known by now"


def test_prompts_copies_turns_and_several_pictures(gateway, picture, tmp_path):
    sim, ask = gateway("markdown", no_images=405)
    assert len(ask("t2i", "a fox", "a boat", n=2).paths) == 4
    sim.requests.clear()
    (path,) = ask("edit", "one", "two", images=(picture, picture)).paths
    first, second = sim.requests
    assert (first.prompt, len(first.images)) == ("one", 2) and (second.prompt, len(second.images)) == ("two", 1)
    made = drawing.paint("one", (80, 48), [Image.open(picture)] * 2)
    assert Image.open(tmp_path / path).tobytes() == drawing.paint("two", (80, 48), [made]).tobytes()
    result = ask("edit", "x", images=(picture,), words={"quality": "high"})
    assert "quality was left out" in result.warnings[0]
    Image.new("L", (80, 48), 255).save(tmp_path / "mask.png")
    assert ask("edit", "x", images=(picture,), mask=str(tmp_path / "mask.png")).kind == "unsupported"


@pytest.mark.parametrize("stream", [False, True])
def test_a_gateway_that_has_streams_only_or_words_only(gateway, picture, stream):
    sim, ask = gateway("markdown", stream, streams_only=True)
    assert ask("edit", "x", images=(picture,)).paths and ask("edit", "y", images=(picture,)).paths
    assert [one.status for one in sim.requests if one.operation == "chat"] == (
        [200, 200] if stream else [400, 200, 200]
    )
    _, ask = gateway("words", stream)
    result = ask("edit", "x", images=(picture,))
    assert result.kind == "refused" and "words instead of an image: Here it is." in result.message


def test_a_server_without_either_says_so_of_the_images(picture, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with Simulator(draws="markdown") as sim:  # it knows no such model
        settings = resolve("edit", None, backend="openai", base_url=sim.openai_url, model="nobody")
        backend = OpenAIBackend(settings, None)
        backend.open()
        request = Request("a", "edit", ("x",), ImageParams(0, 0, 28, 3.5, 0, 1), images=(picture,))
        (result,) = backend.run(Batch(Bucket.of(request), (request,)))
        assert (result.kind, "/images/edits" in result.message) == ("gone", True)


def test_a_model_that_cannot_be_chatted_with_fails_as_without_chats(picture, monkeypatch):
    """So that the run ends with its reason, instead of failing each row by what the chat does not like."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")

    def answer(handler, body):
        status, said = (
            (400, "This is not a chat model") if handler.path.endswith("completions") else (404, "no such URL")
        )
        handler.reply(status, json.dumps({"error": {"message": said}}).encode(), Content_Type="application/json")

    with serving(answer) as server:
        settings = resolve("edit", None, backend="openai", base_url=f"{server.url}/v1", model="painter")
        backend = OpenAIBackend(settings, None)
        backend.open()
        request = Request("a", "edit", ("x",), ImageParams(0, 0, 28, 3.5, 0, 1), images=(picture,))
        (result,) = backend.run(Batch(Bucket.of(request), (request,)))
        backend.close()
    assert (result.kind, "no such URL" in result.message, len(server.seen)) == ("gone", True, 2)


def test_captions_may_come_as_a_stream_too(picture, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with Simulator(models={"a-vlm"}) as sim:
        for model in ("a-vlm", "gpt-6-luna"):
            settings = resolve("caption", None, backend="openai", base_url=sim.openai_url, model=model, out=tmp_path)
            settings = replace(settings, endpoint=replace(settings.endpoint, stream=True))
            backend = OpenAIBackend(settings, None)
            backend.open()
            about = {"images": (picture,), "dialogue": (("user", "What?"),)}
            request = Request("a", "caption", (), TextParams(300, 0.0, 5), **about)
            (result,) = backend.run(Batch(Bucket.of(request), (request,)))
            assert result.text.startswith("A plain view with 80x48") and sim.requests[-1].params["stream"] is True
    assert result.usage, "where it costs something the usage is asked for"


DATA = "data:image/png;base64,iVBORw0KGgo="
SAID = {
    f"![a]({DATA}) and ![b](https://a.b/c.png?x=1)": ([DATA, "https://a.b/c.png?x=1"], []),
    "![a](https:\\/\\/a.b\\/c.png)": (["https://a.b/c.png"], []),
    "See https://a.b/c.png, or https://a.b/c.png.": ([], ["https://a.b/c.png"]),
    "[here](https://a.b/c.png)": ([], ["https://a.b/c.png"]),
    f"<img src='{DATA}'>": ([DATA], []),
    "no picture": ([], []),
    None: ([], []),
}


@pytest.mark.parametrize("text", SAID, ids=str)
def test_where_pictures_are_in_a_text(text):
    assert addresses(Reply(content=text)) == SAID[text]


def events(*lines: bytes) -> Answer:
    return Answer(
        200, {"content-type": "text/event-stream; charset=utf-8"}, b"".join(b"%s\r\n\r\n" % one for one in lines)
    )


def test_a_stream_is_read_as_a_whole_and_one_that_breaks_off_is_none():
    said = [b'data: {"choices":[{"delta":{"content":"a %s"}}]}' % word for word in (b"red ", "häuser".encode())]
    ended = [b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}', b'data: {"usage":{"prompt_tokens":5}}']
    whole = read(events(b": wait", *said, *ended, b"data: [DONE]"))
    assert (whole.content, whole.finish_reason, whole.usage) == ("a red a häuser", "stop", {"prompt_tokens": 5})
    assert read(events(*said, b"data: [DONE]")).finish_reason is None
    assert read(events(*said)).finish_reason == "error"
    assert read(events(*said, b'data: {"error": {"message": "overloaded"}}')).finish_reason == "error"
    nothing = read(Answer(200, {}, b'{"object": "list", "usage": {"prompt_tokens": 5}}'))
    assert nothing.nothing.startswith('{"object"') and nothing.usage == {"prompt_tokens": 5}
    parts = read(Answer(200, {}, b'{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":" b"}]}}]}'))
    assert parts.content == "a b"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": {"value": "A red house.", "annotations": []}}],
        [None, {"type": "output_text", "text": "A red house."}, 3],
        [{"type": "tool_use", "id": "x", "input": {}}, {"type": "text", "text": "A red house."}],
        [{"type": "text", "text": "A red "}, {"type": "reference", "reference_ids": [1]}, {"text": "house."}],
        {"type": "text", "text": "A red house."},
        {"role": "model", "parts": [{"text": "A red house."}]},
    ],
)
def test_parts_of_other_kinds_harm_no_text(content):
    said = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    assert read(Answer(200, {}, json.dumps(said).encode())).content == "A red house."


def test_answers_with_a_byte_order_mark_and_of_completions():
    said = json.dumps({"choices": [{"index": 0, "text": "A red house.", "finish_reason": "stop"}]}).encode()
    assert read(Answer(200, {}, b"\xef\xbb\xbf" + said)).content == "A red house."


def test_content_without_text_is_not_asked_for_again():
    sound = [{"type": "audio", "audio": {"id": "x"}}]
    said = {"choices": [{"message": {"role": "assistant", "content": sound}, "finish_reason": "stop"}]}
    found = read(Answer(200, {}, json.dumps(said).encode())).content
    assert found == sound
    with pytest.raises(ProviderError) as caught:
        text_of(found, "stop", None)
    assert caught.value.kind == "unsupported" and "audio" in caught.value.answer
