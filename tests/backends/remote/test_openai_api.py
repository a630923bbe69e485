"""The OpenAI backend through the real SDK, against the simulator: what is sent, what is made of each answer, what it
costs."""

from __future__ import annotations

import base64
import json
import threading
import time

import pytest
from PIL import Image

pytest.importorskip("openai")

from fastgen import providers
from fastgen.backends.remote import openai_answers
from fastgen.backends.remote.attempt import Attempt
from fastgen.backends.remote.openai_api import OpenAIBackend
from fastgen.backends.remote.schema_form import is_strict
from fastgen.config.stamps import digest
from fastgen.resolver import resolve
from fastgen.scheduler import failure_policy
from fastgen.types import Batch, Bucket, Done, Failed, ImageParams, Request, TextParams
from tests.backends.remote.conftest import image_answer, png
from tests.simulator import Simulator, drawing

KEY = "test-key"


@pytest.fixture(scope="module")
def sim():
    prices = {
        "gpt-6-luna": (0.1, 0.1, 0.5, 0.5),
        "gpt-5": (0, 0, 0, 0),
        "gpt-5-nano-2025-08-07": (0, 0, 0, 0),
        "some-model": (0, 0, 0, 0),
        "dall-e-2": (0, 0, 0, 0),
    }
    with Simulator(hang_s=3, retry_after_s=0.2, models={"some-model", "dall-e-2"}, prices=prices) as running:
        yield running


@pytest.fixture
def ask(sim, tmp_path, monkeypatch):
    """ask(task, *prompts, **request fields; flags={...}) -> (result, what the simulator saw)."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    (tmp_path / "images").mkdir()
    (tmp_path / ".partial").mkdir()
    opened = []

    def one(task, *prompts, flags=None, n=1, backend=None, **about):
        flags = {"out": tmp_path, "backend": "openai", "base_url": sim.openai_url, "timeout": 10, **(flags or {})}
        backend = backend or OpenAIBackend(resolve(task, None, **flags), None)
        if not hasattr(backend, "client"):
            backend.open()
            opened.append(backend)
        if task == "caption":
            request = Request("a", task, (), TextParams(300, 0.0, 5), dialogue=(("user", prompts[0]),), **about)
        else:
            params = ImageParams(*about.pop("size", (0, 0)), 28, 3.5, 0, n, **about.pop("words", {}))
            request = Request("a", task, prompts, params, **about)
        sim.reset()
        (result,) = backend.run(Batch(Bucket.of(request), (request,)))
        assert backend.gate.inflight == 0
        assert result.cost <= providers.estimate(backend.settings, request) + 1e-9 or isinstance(result, Failed)
        assert sim.ledger_usd <= result.cost + 1e-9, "what was billed is counted"
        return result, list(sim.requests)

    yield one
    for backend in opened:
        backend.close()


@pytest.fixture
def picture(tmp_path):
    def make(name="in.png", size=(1024, 1024), colour="red", **how):
        Image.new("RGB", size, colour).save(tmp_path / name, **how)
        return str(tmp_path / name)

    return make


def load(tmp_path, path) -> Image.Image:
    return Image.open(tmp_path / path)


def test_a_variation_has_its_own_endpoint_and_dall_e_2_gets_a_png(ask, picture, tmp_path):
    about = {"flags": {"model": "dall-e-2"}, "images": (picture("in.jpg", (256, 256)),)}
    result, seen = ask("edit", "vary it", variation=True, n=2, **about)
    assert isinstance(result, Done) and len(result.paths) == 2
    (asked,) = seen
    assert (asked.operation, asked.images[0].mime, asked.params) == ("vary", "image/png", {"model": "dall-e-2", "n": 2})


def test_results_say_what_was_written(ask, tmp_path):
    result, _ = ask("t2i", "a fox", n=3)
    written = [(tmp_path / path).read_bytes() for path in result.paths]
    assert len(written) == 3 and result.files == tuple((len(data), digest(data)) for data in written)


def test_every_turns_picture_is_kept_where_the_row_says_so(ask, picture, tmp_path):
    given = picture()
    result, seen = ask("edit", "one", "two", images=(given,), keep_turns=True)
    assert [one.prompt for one in seen] == ["one", "two"] and len(result.paths) == 2
    first, second = (load(tmp_path, path) for path in result.paths)
    assert first.tobytes() == drawing.paint("one", first.size, [Image.open(given)]).tobytes()
    assert second.tobytes() == drawing.paint("two", second.size, [first]).tobytes()


def test_only_what_is_asked_for_is_sent(ask, sim, tmp_path):
    result, (seen,) = ask("t2i", "a cat")
    assert seen.params == {"model": "gpt-image-2", "output_format": "png"} and seen.key == KEY
    assert load(tmp_path, result.paths[0]).size == (1024, 1024) and not result.warnings
    assert result.cost == pytest.approx(sim.ledger_usd) and result.usage["image_out"] > 0
    words = {"quality": "low", "background": "transparent"}
    result, (seen,) = ask("t2i", "a cat", size=(1536, 1024), words=words, n=3, flags={"format": "webp"})
    assert seen.params == {"model": "gpt-image-2", "output_format": "webp", "n": 3, "size": "1536x1024", **words}
    assert result.paths == tuple(f"images/a_{i}.webp" for i in range(3))
    result, [*refused, seen] = ask("t2i", "a cat", words={"quality": "auto"}, flags={"model": "some-model"})
    assert all(one.status == 400 for one in refused), "what any other server may take is learned"
    assert seen.params == {"model": "some-model"}, "of an unknown model nothing is taken for granted"


def test_pictures_are_numbered_by_prompt_and_copy(ask, tmp_path):
    result, seen = ask("t2i", "one", "two", n=2)
    assert [r.prompt for r in seen] == ["one", "two"] and len(result.paths) == 4
    first = [load(tmp_path, result.paths[i]).getpixel((3, 3)) for i in (0, 2)]
    assert first == [drawing.prompt_colour("one"), drawing.prompt_colour("two")]
    result, seen = ask("t2i", "many", n=11)
    assert [r.params.get("n") for r in seen] == [10, None] and len(result.paths) == 11, "ten at a time"


def test_an_edit_sends_pictures_as_they_are_and_the_mask_as_alpha(ask, picture, tmp_path):
    mask = Image.new("L", (512, 512), 0)
    mask.paste(255, (0, 0, 256, 512))
    mask.save(tmp_path / "mask.png")
    images = (picture(), picture("b.jpg", colour="blue"))
    result, (seen,) = ask("edit", "make it green", images=images, mask=str(tmp_path / "mask.png"), size=(1024, 1024))
    assert [one.mime for one in seen.images] == ["image/png", "image/jpeg"]
    assert seen.images[1].bytes == (tmp_path / "b.jpg").stat().st_size, "its own bytes"
    assert seen.mask.size == (1024, 1024) and seen.mask.mode == "RGBA"
    alpha = seen.mask.getchannel("A")
    assert (alpha.getpixel((100, 500)), alpha.getpixel((900, 500))) == (0, 255), "what is white is to be repainted"
    made = load(tmp_path, result.paths[0])
    assert made.getpixel((900, 500)) == (255, 0, 0) and made.getpixel((100, 3)) == drawing.prompt_colour(
        "make it green"
    )


def test_later_turns_edit_the_result_before_them(ask, picture, tmp_path):
    picture("mask.png", colour="white")
    images = (picture(), picture("b.png", colour="blue"))
    result, seen = ask("edit", "first", "second", images=images, mask=str(tmp_path / "mask.png"), n=2)
    assert [r.prompt for r in seen] == ["first", "second", "first", "second"] and len(result.paths) == 2
    assert [len(r.images) for r in seen] == [2, 1, 2, 1] and [bool(r.mask) for r in seen] == [True, False] * 2
    assert seen[1].images[0].sha256 != seen[0].images[0].sha256


def test_a_model_that_always_thinks_gets_no_temperature(ask, picture):
    result, (seen,) = ask("caption", "what?", images=(picture(),), flags={"model": "gpt-5-nano-2025-08-07"})
    assert result.text and seen.params["reasoning_effort"] == "minimal" and "temperature" not in seen.params


def test_captions(ask, picture):
    pictures = (picture(size=(64, 48)), picture("b.jpg", size=(32, 32)))
    result, (seen,) = ask("caption", "compare <image> with <image>", images=pictures)
    assert result.text.startswith("A plain view with 64x48 of #ff0000") and not result.paths
    assert seen.params["max_completion_tokens"] == 300 and "max_tokens" not in seen.params
    assert (seen.params["temperature"], seen.params["seed"], seen.params["reasoning_effort"]) == (0.0, 5, "none")
    assert result.usage["text_in"] > 0 and result.usage["text_out"] > 0
    result, (seen,) = ask("caption", "what?", images=pictures[:1], flags={"max_pixels": 1024})
    assert seen.images[0].size[0] * seen.images[0].size[1] <= 1024
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    closed = {**schema, "required": ["text"], "additionalProperties": False}
    for given, strict in ((closed, True), (schema, False)):
        result, (seen,) = ask("caption", "what?", images=pictures[:1], flags={"schema": given})
        assert result.text.startswith('{"text": "A plain view') and is_strict(given) == strict
        assert seen.params["response_format"]["json_schema"]["strict"] == strict


def test_a_server_that_knows_another_word_for_the_limit(ask, sim, picture):
    result, seen = ask("caption", "what?", images=(picture(),), flags={"model": "gpt-5-chat"})
    assert result.kind == "gone" and len(seen) == 1
    backend = OpenAIBackend(
        resolve("caption", None, backend="openai", base_url=sim.openai_url, model="gpt-5-2026-01-01"), None
    )
    backend.open()
    backend.captions.learned._limit = "max_tokens"  # as if it were anybody's server
    result, seen = ask("caption", "what?", images=(picture(),), backend=backend)
    assert [("max_tokens" in r.params, r.status) for r in seen] == [(True, 400), (False, 200)] and result.text
    result, seen = ask("caption", "and?", images=(picture(),), backend=backend)
    assert len(seen) == 1, "it is remembered"


@pytest.mark.parametrize(
    "task, fault, kind, says",
    [
        ("t2i", "moderation", "refused", "safety system"),
        ("t2i", "insufficient_quota", "quota", "current quota"),
        ("t2i", "per_day_quota", "quota", "per day"),
        ("t2i", "unauthorized", "unauthorized", "401"),
        ("t2i", "html_200", "unavailable", "<html>"),
        ("t2i", "data_null", "malformed", "no images"),
        ("t2i", "cut_json", "malformed", "cannot be read"),
        ("t2i", "hang", "unavailable", "ReadTimeout"),
        ("t2i", "disconnect", "unavailable", "disconnected"),
        ("t2i", "error_500", "unavailable", "500"),
        ("t2i", "overloaded", "unavailable", "503"),
        ("t2i", "rate_limit_after", "rate_limited", "per min"),
        ("edit", "moderation", "refused", "safety system"),
        ("edit", "empty_choices", "malformed", "no images"),
        ("caption", "empty_choices", "malformed", "not a chat completion"),
        ("caption", "html_200", "unavailable", "502"),
        ("caption", "refusal_field", "refused", "declined"),
        ("caption", "refusal_text", "refused", "declined"),
        ("caption", "content_filter", "refused", "filter"),
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
    if fault == "rate_limit_after":
        assert result.retry_after == 0.2


def test_a_complaint_about_the_model_is_not_the_rows_fault():
    import httpx2
    import openai

    body = {"message": "Invalid value: 'x'", "type": "invalid_request_error", "param": "model", "code": "invalid_value"}
    response = httpx2.Response(400, request=httpx2.Request("POST", "http://a/v1"))
    found = openai_answers.provider_error(openai.BadRequestError("no", response=response, body=body), str, 0.0)
    assert found.kind == "gone"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Request too large for m: Limit 30000, Requested 45123", "code": "rate_limit_exceeded"}},
        {"error": "Request too large: 45123 tokens, more than 30000 per minute"},
        {"detail": "Request too large for this account"},
        "Request too large for m on tokens per min (TPM): Limit 30000, Requested 45123",
    ],
)
def test_a_request_that_is_too_large_is_final_however_a_gateway_says_so(body):
    import httpx2
    import openai

    client = openai.OpenAI(api_key=KEY, base_url="http://127.0.0.1:1/v1")
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    asked = httpx2.Request("POST", "http://127.0.0.1:1/v1/images/generations")
    error = client._make_status_error_from_response(httpx2.Response(429, content=content, request=asked))
    found = openai_answers.provider_error(error, str, 0.0)
    assert found.kind == "unsupported" and "Request too large" in str(found) and "limit of this account" in str(found)


def test_a_row_that_is_half_paid_waits_where_it_is(ask):
    result, seen = ask("t2i", "one", "two fault:rate_limit_after:once")
    assert isinstance(result, Done) and [r.status for r in seen] == [200, 429, 200]


def test_a_row_that_is_half_paid_is_finished_though_no_more_are_begun(ask, sim, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    backend = OpenAIBackend(resolve("t2i", None, backend="openai", base_url=sim.openai_url, out=tmp_path), None)
    keep = Attempt.keep

    def keep_and_close(attempt, made):
        keep(attempt, made)
        backend.cancel_pending()

    monkeypatch.setattr(Attempt, "keep", keep_and_close)
    result, seen = ask("t2i", "one", "and two fault:rate_limit_after:once", backend=backend)
    assert isinstance(result, Done) and [r.status for r in seen] == [200, 429, 200]
    result, seen = ask("t2i", "three", backend=backend)
    assert (result.kind, result.attempts, seen) == ("unavailable", 0, [])


def test_what_comes_is_kept_under_its_true_name(ask, tmp_path):
    result, _ = ask("t2i", "fault:jpeg_for_png")
    assert result.paths == ("images/a_0.jpg",) and "came as jpeg, not png" in result.warnings[0]
    result, _ = ask("t2i", "fault:wrong_size", size=(1024, 1024))
    assert isinstance(result, Done) and "came at 512x1024, not 1024x1024" in result.warnings[0]


def test_where_nothing_is_counted_the_most_is_taken_to_be_spent(ask, picture, monkeypatch):
    """The fixture sees to it that the cost is no less than the bill, and no more than what was set aside."""
    for module in ("openai_api", "captions"):
        monkeypatch.setattr(f"fastgen.backends.remote.{module}.tokens", lambda answer: {})
    about = {"size": (1024, 1024), "words": {"quality": "low"}}
    result, _ = ask("edit", "a", images=(picture(), picture("b.png")), **about)
    assert result.cost > 2 * 6500 * 8e-6, "its pictures too"
    result, _ = ask("t2i", "a", "b", "c", n=2, **about)
    assert isinstance(result, Done) and result.cost > 0
    result, _ = ask("caption", "what?", images=(picture(),))
    assert result.cost > 6500 * 0.1e-6


def test_what_nobody_foresaw_costs_all_that_was_set_aside_and_tells_no_key(ask, sim, monkeypatch):
    def stumble(answer):
        raise TypeError(f"nobody foresaw {KEY}")

    for module in ("openai_api", "captions"):
        monkeypatch.setattr(f"fastgen.backends.remote.{module}.tokens", stumble)
    result, _ = ask("t2i", "a")
    assert (result.kind, result.message) == (
        "internal",
        "TypeError: nobody foresaw ...",
    ) and result.cost >= sim.ledger_usd > 0


def test_no_server_costs_nothing_and_bad_pictures_are_not_sent(ask, tmp_path):
    result, _ = ask("t2i", "a", flags={"base_url": "http://127.0.0.1:9/v1"})
    assert (result.kind, result.cost) == ("unavailable", 0.0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    result, seen = ask("edit", "a", images=(str(tmp_path / "broken.png"),))
    assert (result.kind, result.field, seen) == ("input", "images", [])


def test_the_key_is_never_told(ask, sim, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-mine")
    backend = OpenAIBackend(resolve("t2i", None, backend="openai", base_url=sim.openai_url, out=tmp_path), None)
    result, _ = ask("t2i", "a", backend=backend)
    assert result.kind == "unauthorized" and "secret" not in f"{result} {backend.settings} {backend.open()}"
    assert backend._clean("it was secret-of-mine, at sk-abcdefghijk") == "it was ..., at sk-..."


@pytest.fixture
def drawn_by(server, ask, monkeypatch):
    """drawn_by(answer, **flags) -> (result of a t2i row, what that server saw)."""

    def draw(answer, **flags):
        there = server(answer)
        backend = OpenAIBackend(
            resolve("t2i", None, backend="openai", base_url=f"{there.url}/v1", **{"timeout": 5, **flags}), None
        )
        result, _ = ask("t2i", "a cat", backend=backend)
        return result, there.seen

    return draw


@pytest.mark.parametrize("where", ["http://localhost:{port}/cdn/1.png", "/cdn/1.png", "data:image/png;base64,{data}"])
def test_a_picture_that_is_not_in_the_answer_is_fetched_without_the_key(drawn_by, tmp_path, where):
    def answer(handler, body):
        if handler.command == "GET":
            return handler.reply(200, png())
        data = base64.b64encode(png()).decode()
        url = where.format(port=handler.server.server_port, data=data)
        return handler.reply(200, image_answer({"url": url}), Content_Type="application/json")

    result, seen = drawn_by(answer, out=tmp_path)
    assert isinstance(result, Done) and load(tmp_path, result.paths[0]).size == (64, 64)
    assert [one.method for one in seen] == ["POST", "GET"][: len(seen)] and (len(seen) == 1) == where.startswith(
        "data:"
    )
    assert all(KEY not in str(one.headers) for one in seen[1:])


def test_a_picture_that_cannot_be_fetched_is_asked_for_once(drawn_by, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen.backends.remote.openai_api.FETCH_AGAIN_S", 0.0)

    def answer(handler, body):
        if handler.command == "GET":
            return handler.reply(404)
        url = f"http://127.0.0.1:{handler.server.server_port}/1.png"
        return handler.reply(200, image_answer({"url": url}), Content_Type="application/json")

    result, seen = drawn_by(answer, out=tmp_path)
    assert (result.kind, [one.method for one in seen]) == ("unsupported", ["POST", "GET", "GET", "GET"])
    assert "/1.png" in result.message and result.cost > 0, "it is there for whoever wants to look"
    inside = image_answer({"url": "http://169.254.169.254/latest"})
    result, seen = drawn_by(lambda handler, body: handler.reply(200, inside), out=tmp_path)
    assert (result.kind, len(seen)) == ("unsupported", 1) and "private network" in result.message


def test_what_is_no_picture_in_an_answer(drawn_by, tmp_path):
    for item, said in (({"b64_json": "%%%"}, "not base64"), ({}, "neither an image nor its address")):
        body = image_answer(item)
        result, _ = drawn_by(lambda handler, _, body=body: handler.reply(200, body), out=tmp_path)
        assert result.kind == "malformed" and said in result.message


def test_an_answer_that_is_too_long_is_paid_and_not_asked_for_again(drawn_by, tmp_path):
    def answer(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 300000000\r\n\r\n")

    result, seen = drawn_by(answer, out=tmp_path)
    assert (result.kind, len(seen)) == ("unsupported", 1) and "cut off" in result.message and result.cost > 0
    assert failure_policy.decide(result, True) == "give up" and result.kind not in failure_policy.AGAIN


def test_a_picture_of_too_many_pixels_is_not_decoded(drawn_by, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen.input.images.MAX_PIXELS", 100_000)
    wide = image_answer({"b64_json": base64.b64encode(png((400, 300))).decode()})
    result, seen = drawn_by(lambda handler, body: handler.reply(200, wide), out=tmp_path)
    assert (result.kind, len(seen)) == ("unsupported", 1) and "megapixels" in result.message and result.cost > 0


def test_a_server_that_never_ends_its_answer_may_have_been_paid(drawn_by, tmp_path):
    def answer(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(200):
            handler.wfile.write(b"{")
            handler.wfile.flush()
            time.sleep(0.1)

    result, seen = drawn_by(answer, out=tmp_path, timeout=1)
    assert (result.kind, len(seen)) == ("unavailable", 1) and "--timeout (1 s)" in result.message and result.cost > 0


def test_many_threads_share_one_backend(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = resolve("caption", None, backend="openai", base_url=sim.openai_url, out=tmp_path)
    backend = OpenAIBackend(settings, None)
    backend.open()
    sim.reset()
    results = {}

    def work(i):
        request = Request(f"r{i}", "caption", (), TextParams(300, 0.0, 0), dialogue=(("user", f"number {i}"),))
        (results[i],) = backend.run(Batch(Bucket.of(request), (request,)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(40)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len({r.text for r in results.values()}) == 40 and backend.gate.inflight == 0
    assert sum(r.cost for r in results.values()) < 1 and len(sim.requests) == 40
    backend.close()
