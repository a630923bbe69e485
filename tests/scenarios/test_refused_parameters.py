"""Servers that refuse what every request says: it costs each run a few requests, and no row."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from fastgen.resolver import resolve
from tests.backends.remote.conftest import chat_answer, gemini_answer, image_answer, serving

ROWS, MOST_WASTED = 200, 5


def test_captions_of_a_server_that_refuses_seed_temperature_system_and_max_tokens(tmp_path, go):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(i), "image": "a.png"}) + "\n" for i in range(ROWS)))
    refused: list[str] = []

    def answer(handler, body):
        sent = json.loads(body)
        if "seed" in sent:
            why, said = "seed", {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}
        elif sent["messages"][0]["role"] == "system":
            why, said = "system", {"error": {"message": "System role not supported", "code": 400}}
        elif "temperature" in sent:
            why, said = "temperature", {"error": {"message": "Unsupported value: 'temperature' is not supported"}}
        elif "max_tokens" in sent:
            why, said = "max_tokens", {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}
        else:
            return handler.reply(200, chat_answer("A red house."))
        refused.append(why)
        return handler.reply(422 if why == "seed" else 400, json.dumps(said).encode())

    with serving(answer) as server:
        run = go(resolve("caption", rows, out=tmp_path / "out", base_url=server.url, model="m", max_inflight=16))
    assert run.counts["done"] == ROWS and not run.failures
    assert {name: refused.count(name) <= MOST_WASTED for name in refused} == dict.fromkeys(
        ("seed", "system", "temperature", "max_tokens"), True
    )
    assert len(server.seen) == ROWS + len(refused), "a row that is done is not asked for again"
    assert {"seed", "temperature"} <= set(run.table[0]["fastgen"]["not_sent"])


def captions_under_a_schema(tmp_path, go, answer, **more):
    """A run of ROWS rows with --schema. `answer(sent)`: status and body for a request."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(i), "image": "a.png"}) + "\n" for i in range(ROWS)))
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    with serving(
        lambda handler, body: handler.reply(*answer(json.loads(body)), Content_Type="application/json")
    ) as server:
        flags = {"base_url": server.url, "model": "m", "max_inflight": 16, "schema": schema, **more}
        run = go(resolve("caption", rows, out=tmp_path / "out", **flags))
    assert run.counts["done"] == ROWS and [row["caption"] for row in run.table] == [{"n": 1}] * ROWS
    return run, server


def is_told(sent) -> bool:
    """Whether the prompt says the schema."""
    return '"required": ["n"]' in sent["messages"][-1]["content"][-1]["text"]


def test_captions_of_a_server_that_refuses_response_format(tmp_path, go):
    """Without a schema in the prompt it answers with prose."""
    refusal = json.dumps({"error": {"message": "'response_format' is not supported by this server"}}).encode()

    def answer(sent):
        if "response_format" in sent:
            return 400, refusal
        return 200, chat_answer('```json\n{"n": 1}\n```' if is_told(sent) else "One.")

    run, server = captions_under_a_schema(tmp_path, go, answer)
    assert len(server.seen) <= ROWS + MOST_WASTED
    assert run.table[0]["fastgen"]["not_sent"] == ["response_format"]
    (said,) = {event["message"] for event in run.events if "--schema" in str(event.get("message"))}
    assert said == "vllm: m takes no response_format; --schema is in the prompt, and the answer checked here"


def test_captions_of_a_server_that_ignores_response_format(tmp_path, go):
    _, server = captions_under_a_schema(
        tmp_path, go, lambda sent: (200, chat_answer('{"n": 1}' if is_told(sent) else "One."))
    )
    assert len(server.seen) < ROWS + 3 * 16, "only what was under way is asked again"


def test_captions_of_a_model_of_gemini_that_takes_no_system_instruction_json_or_thinking(tmp_path, go, monkeypatch):
    """As Gemma: its system text begins the user's turn, and the schema is at its end."""
    pytest.importorskip("google.genai")
    monkeypatch.setenv("GEMINI_API_KEY", "x")
    refused: list[str] = []

    def answer(sent):
        config = sent["generationConfig"]
        if "systemInstruction" in sent:
            said = "Developer instruction is not enabled for models/gemma-3-27b-it"
        elif "responseMimeType" in config:
            said = "JSON mode is not enabled for models/gemma-3-27b-it"
        elif "thinkingConfig" in config:
            said = "Thinking is not enabled for models/gemma-3-27b-it"
        else:
            first, *_, last = [part.get("text", "") for part in sent["contents"][0]["parts"]]
            assert first.startswith("You are") and '"required": ["n"]' in last, sent
            return 200, gemini_answer({"text": '{"n": 1}'})
        refused.append(said)
        return 400, json.dumps({"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}).encode()

    flags = {"backend": "gemini", "model": "gemma-3-27b-it", "thinking": "off"}
    run, server = captions_under_a_schema(tmp_path, go, answer, **flags)
    assert len(set(refused)) == 3 and len(refused) <= MOST_WASTED and len(server.seen) == ROWS + len(refused)
    assert run.table[0]["fastgen"]["not_sent"] == ["response_format", "thinking"]
    assert any("no system role" in note for note in run.table[0]["fastgen"]["warnings"])


def test_images_of_a_server_that_refuses_n_seed_and_response_format(tmp_path, go, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"picture {i}", "n": 2 + i % 2}) + "\n" for i in range(ROWS)))
    refused: list[str] = []

    def answer(handler, body):
        sent = json.loads(body)
        for name in ("response_format", "seed"):
            if name in sent:
                refused.append(name)
                said = {"error": {"message": f"Unknown parameter: '{name}'.", "param": name}}
                return handler.reply(400, json.dumps(said).encode(), Content_Type="application/json")
        if sent.get("n", 1) > 1:
            refused.append("n")
            said = {"error": {"message": "You must provide n=1 for this model.", "param": None}}
            return handler.reply(400, json.dumps(said).encode(), Content_Type="application/json")
        return handler.reply(200, image_answer(), Content_Type="application/json")

    with serving(answer) as server:
        flags = {"backend": "openai", "base_url": f"{server.url}/v1", "model": "m", "max_inflight": 16}
        run = go(resolve("t2i", rows, out=tmp_path / "out", **flags))
    images = sum(2 + i % 2 for i in range(ROWS))
    assert run.counts["done"] == ROWS and sum(len(row["images"]) for row in run.table) == images
    assert set(refused) == {"n", "seed", "response_format"}
    assert all(refused.count(name) <= MOST_WASTED for name in refused), refused
    assert len(server.seen) == images + len(refused)


def test_images_of_a_server_that_gives_fewer_than_it_is_asked_for(tmp_path, go, monkeypatch):
    """What came is paid for and kept; the rest is asked for one by one, with seeds of their own."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"picture {i}", "n": 3, "seed": 7}) + "\n" for i in range(4)))

    def answer(handler, body):
        handler.reply(200, image_answer(), Content_Type="application/json")

    with serving(answer) as server:
        flags = {"backend": "openai", "base_url": f"{server.url}/v1", "model": "m", "max_inflight": 4}
        run = go(resolve("t2i", rows, out=tmp_path / "out", **flags))
    assert [len(row["images"]) for row in run.table] == [3] * 4 and len(server.seen) == 12
    seeds = sorted(json.loads(one.body)["seed"] for one in server.seen)
    assert seeds == sorted([7, 8, 9] * 4)


def test_a_row_beyond_a_limit_of_a_server_is_told_what_raises_it(tmp_path, go):
    """The other rows are done."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "few", "image": "a.png"}\n' + json.dumps({"id": "many", "images": ["a.png"] * 5}) + "\n")

    def answer(handler, body):
        if body.count(b"data:image") <= 4:
            return handler.reply(200, chat_answer("A red house."))
        said = {"error": {"message": "At most 4 image(s) may be provided in one prompt.", "code": 400}}
        return handler.reply(400, json.dumps(said).encode())

    with serving(answer) as server:
        run = go(resolve("caption", rows, out=tmp_path / "out", base_url=server.url, model="m", max_inflight=4))
    assert run.counts["done"] == 1
    (failed,) = run.failures
    assert "starting that server with --limit-mm-per-prompt.image" in failed["fastgen"]["error"]["message"]
