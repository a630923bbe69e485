"""The Gemini backend through the real SDK, against the simulator: what is sent, what is made of each answer, what it
costs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("google.genai")

from fastgen import providers
from fastgen.backends.remote import gemini_answers, responses
from fastgen.backends.remote.gemini_api import GeminiBackend
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, Failed, ImageParams, Request, TextParams
from tests.simulator import Simulator, drawing

KEY = "test-key"
CAPTIONER = "gemini-3-flash"


@pytest.fixture(scope="module")
def sim():
    with Simulator(hang_s=3, retry_after_s=0.2, prices={CAPTIONER: (0, 0, 0, 0)}) as running:
        yield running


@pytest.fixture
def ask(sim, tmp_path, monkeypatch):
    """ask(task, *prompts, **request fields; flags={...}) -> (result, what the simulator saw)."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    (tmp_path / "images").mkdir()
    (tmp_path / ".partial").mkdir()
    opened = []

    def one(task, *prompts, flags=None, n=1, backend=None, **about):
        model = {"model": CAPTIONER} if task == "caption" else {}
        flags = {
            "out": tmp_path,
            "backend": "gemini",
            "base_url": sim.gemini_url,
            "timeout": 10,
            **model,
            **(flags or {}),
        }
        backend = backend or GeminiBackend(resolve(task, None, **flags), None)
        if not backend._clients:
            backend.open()
            opened.append(backend)
        if task == "caption":
            request = Request("a", task, (), TextParams(300, 0.0, 2**40 + 5), dialogue=(("user", prompts[0]),), **about)
        else:
            params = ImageParams(*about.pop("size", (0, 0)), 28, 3.5, 0, n, **about.pop("words", {}))
            request = Request("a", task, prompts, params, **about)
        sim.reset()
        (result,) = backend.run(Batch(Bucket.of(request), (request,)))
        assert backend.gate.inflight == 0
        assert isinstance(result, Failed) or result.cost <= providers.estimate(backend.settings, request) + 1e-9
        assert sim.ledger_usd <= result.cost + 1e-9, "what was billed is counted"
        return result, list(sim.requests)

    yield one
    for backend in opened:
        backend.close()


@pytest.fixture
def picture(tmp_path):
    def make(name="in.png", size=(640, 480), colour="red", **how):
        Image.new("RGB", size, colour).save(tmp_path / name, **how)
        return str(tmp_path / name)

    return make


def test_pictures_one_call_each_without_drafts(ask, sim, tmp_path):
    result, seen = ask("t2i", "a cat draft:yes", "a dog", n=2, words={"aspect_ratio": "16:9", "resolution": "1K"})
    assert [r.prompt for r in seen] == ["a cat draft:yes"] * 2 + ["a dog"] * 2 and seen[0].key == KEY
    assert seen[0].params["image_config"] == {"aspect_ratio": "16:9", "image_size": "1K"}
    assert result.paths == tuple(f"images/a_{i}.png" for i in range(4)) and not result.warnings
    made = Image.open(tmp_path / result.paths[0])
    assert made.size == (1344, 768) and made.getpixel((3, 3)) == drawing.prompt_colour("a cat draft:yes")
    assert result.cost == pytest.approx(sim.ledger_usd) and result.usage["image_out"] == 4 * 1120
    result, (seen,) = ask("t2i", "a cat")
    assert "image_config" not in seen.params, "only what is asked for is sent"


def test_a_size_becomes_a_shape(ask):
    result, (seen,) = ask("t2i", "a cat", size=(1280, 720))
    assert seen.params["image_config"] == {"aspect_ratio": "16:9", "image_size": "1K"}
    assert "came at 1344x768, not 1280x720" in result.warnings[0]


def test_an_edit_sends_the_bytes_of_its_pictures(ask, picture, tmp_path):
    images = (picture(), picture("b.jpg", colour="blue"))
    result, (seen,) = ask("edit", "make it green", images=images)
    assert [one.mime for one in seen.images] == ["image/png", "image/jpeg"]
    assert [one.bytes for one in seen.images] == [(tmp_path / name).stat().st_size for name in ("in.png", "b.jpg")]
    assert isinstance(result, Done)


def test_a_mask_is_kept_to_bit_for_bit(ask, tmp_path):
    before = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(before).save(tmp_path / "in.png")
    mask = np.zeros((480, 640), np.uint8)
    mask[100:300, 200:400] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result, seen = ask(
        "edit", "a hat", "and a feather", images=(str(tmp_path / "in.png"),), mask=str(tmp_path / "mask.png")
    )
    assert len(seen[0].images) == 2 and "mask" in seen[0].prompt and seen[0].prompt.endswith("a hat")
    after = np.asarray(Image.open(tmp_path / result.paths[0]))
    assert (after[mask == 0] == before[mask == 0]).all() and (after[mask > 0] != before[mask > 0]).any()


def test_later_turns_bring_back_the_conversation_unchanged(ask, picture):
    result, seen = ask("edit", "first draft:yes", "second", "third", images=(picture(),), n=2)
    assert [r.prompt for r in seen] == ["first draft:yes", "second", "third"] * 2 and len(result.paths) == 2
    assert [r.status for r in seen] == [200] * 6, "the simulator refuses signatures that are missing or changed"
    assert [len(r.images) for r in seen[:3]] == [1, 3, 4], "the input, then the draft and the picture, then one more"


def test_every_turns_picture_is_kept_where_the_row_says_so(ask, picture, tmp_path):
    given = picture()
    result, seen = ask("edit", "first", "second", images=(given,), n=2, keep_turns=True)
    assert [r.prompt for r in seen] == ["first", "second"] * 2 and len(result.paths) == 4
    one, two = (Image.open(tmp_path / path) for path in result.paths[:2])
    assert one.tobytes() == drawing.paint("first", one.size, [Image.open(given)]).tobytes() != two.tobytes()


def test_a_turn_may_cost_what_comes_with_it(ask, picture, monkeypatch):
    monkeypatch.setattr("fastgen.backends.remote.gemini_api.tokens", lambda usage, drawing: {})
    params = ImageParams(0, 0, 28, 3.5, 0, 2)
    images = (picture(), picture("b.png"))
    result, _ = ask("edit", "first", "second", "third", images=images, n=2)
    request = Request("a", "edit", ("first", "second", "third"), params, images=images)
    backend = GeminiBackend(resolve("edit", None, backend="gemini"), None)
    assert result.cost == pytest.approx(providers.estimate(backend.settings, request)), "the pictures before it too"


def test_captions(ask, picture):
    images = (picture(size=(64, 48)), picture("b.jpg", size=(32, 32)))
    result, (seen,) = ask("caption", "compare <image> with <image>", images=images)
    assert result.text.startswith("A plain view with 64x48 of #ff0000") and not result.paths
    assert (seen.params["max_output_tokens"], seen.params["temperature"], seen.params["seed"]) == (300, 0.0, 5)
    assert result.usage["text_in"] > 0 and result.usage["image_in"] > 0 and result.usage["text_out"] > 0
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    result, (seen,) = ask("caption", "what?", images=images[:1], flags={"schema": schema})
    assert json.loads(result.text)["text"].startswith("A plain view") and seen.params["response_mime_type"]


@pytest.mark.parametrize(
    "task, fault, kind, says",
    [
        ("t2i", "moderation", "refused", "PROHIBITED_CONTENT"),
        ("t2i", "image_safety", "refused", "IMAGE_SAFETY"),
        ("t2i", "no_image", "empty", "I did not draw one"),
        ("t2i", "refusal_text", "refused", "words instead of an image"),
        ("t2i", "length", "truncated", "cut off"),
        ("t2i", "empty_text", "empty", "no image"),
        ("t2i", "data_null", "malformed", "no candidates"),
        ("t2i", "empty_choices", "malformed", "no candidates"),
        ("t2i", "html_200", "unavailable", "502"),
        ("t2i", "cut_json", "malformed", "JSONDecodeError"),
        ("t2i", "hang", "unavailable", "ReadTimeout"),
        ("t2i", "disconnect", "unavailable", "disconnected"),
        ("t2i", "error_500", "unavailable", "500"),
        ("t2i", "overloaded", "unavailable", "503"),
        ("t2i", "unauthorized", "unauthorized", "401"),
        ("t2i", "rate_limit", "rate_limited", "exhausted"),
        ("t2i", "rate_limit_after", "rate_limited", "current quota"),
        ("t2i", "per_day_quota", "quota", "current quota"),
        ("t2i", "insufficient_quota", "quota", "limit: 0"),
        ("caption", "content_filter", "refused", "SAFETY"),
        ("caption", "refusal_field", "refused", "PROHIBITED_CONTENT"),
        ("caption", "refusal_text", "refused", "declined"),
        ("caption", "length", "truncated", "--max-tokens"),
        ("caption", "empty_text", "empty", "no text"),
    ],
)
def test_faults_are_told_apart(ask, picture, task, fault, kind, says):
    flags = {"timeout": 1} if fault == "hang" else {}  # the others have time, even on a busy machine
    result, seen = ask(task, f"fault:{fault}", images=() if task == "t2i" else (picture(),), flags=flags)
    assert isinstance(result, Failed) and (result.kind, len(seen)) == (kind, 1) and says in result.message
    assert KEY not in result.message
    if fault in ("hang", "disconnect", "cut_json"):
        assert result.cost > 0, "it may have been billed"
    assert result.retry_after == (0.2 if fault == "rate_limit_after" else 0.0)


def test_a_row_that_is_half_paid_waits_where_it_is(ask):
    result, seen = ask("t2i", "one", "two fault:rate_limit_after:once")
    assert isinstance(result, Done) and [r.status for r in seen] == [200, 429, 200]


def test_what_comes_is_kept_under_its_true_name(ask):
    result, _ = ask("t2i", "fault:jpeg_for_png draft:no")
    assert result.paths == ("images/a_0.jpg",) and "came as jpeg, not png" in result.warnings[0]


def test_wrong_keys_dead_servers_and_unknown_models(ask, sim, monkeypatch):
    result, _ = ask("t2i", "a", flags={"base_url": "http://127.0.0.1:9"})
    assert (result.kind, result.cost) == ("unavailable", 0.0)
    result, seen = ask("t2i", "a", flags={"model": "gemini-none-image"})
    assert (result.kind, len(seen)) == ("gone", 1)
    monkeypatch.setenv("GEMINI_API_KEY", "secret-of-mine")
    result, _ = ask("t2i", "a")
    assert result.kind == "unauthorized" and "secret" not in str(result)


class OldGateway(BaseHTTPRequestHandler):
    """Serves v1beta alone, as gateways do that are a year old."""

    seen: list = []  # noqa: RUF012

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(self.path)
        body = b"404 page not found"
        if self.path.startswith("/v1beta/"):
            part = {"text": "A plain view."}
            body = json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()
        self.send_response(200 if self.path.startswith("/v1beta/") else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about): ...


def test_a_gateway_that_knows_the_older_version_only(ask):
    server = ThreadingHTTPServer(("127.0.0.1", 0), OldGateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    backend = GeminiBackend(resolve("caption", None, backend="gemini", model=CAPTIONER, base_url=url), None)
    for _ in range(2):
        result, _ = ask("caption", "what?", backend=backend)
        assert result.text == "A plain view."
    assert [path.split("/")[1] for path in OldGateway.seen] == ["v1", "v1beta", "v1beta"], "found out once"
    OldGateway.seen.clear()
    ask("caption", "what?", flags={"base_url": url + "/v1beta"})
    result, _ = ask("caption", "what?", flags={"base_url": url + "/v1"})
    assert result.kind == "gone" and [path.split("/")[1] for path in OldGateway.seen] == ["v1beta", "v1"]
    server.shutdown()
    server.server_close()


def complaint(code: int, *details: dict, status: str = "RESOURCE_EXHAUSTED") -> responses.ProviderError:
    from google.genai import errors

    body = {
        "error": {
            "code": code,
            "status": status,
            "message": "You exceeded your current quota",
            "details": list(details),
        }
    }
    return gemini_answers.provider_error(errors.APIError(code, body), str, 0.5)


def test_how_long_it_asks_to_wait():
    def retry(delay: str) -> dict:
        return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}

    assert (found := complaint(429, retry("47s"))).kind == "rate_limited" and found.retry_after == 47
    assert complaint(429, retry("43200s")).kind == "quota", "nobody waits half a day"
    assert (found := complaint(503, retry("20.5s"), status="UNAVAILABLE")).kind == "unavailable"
    assert found.retry_after == 20.5 and found.cost == 0
    assert complaint(504, status="DEADLINE_EXCEEDED").cost == 0.5, "it may have done the work"
