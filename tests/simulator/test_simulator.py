"""The simulator of the two API formats, driven by the vendors' own clients."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("openai")
pytest.importorskip("google.genai")

import httpx2
import openai
from google import genai
from google.genai import errors, types
from PIL import Image

from tests.simulator import Faults, Simulator
from tests.simulator.drawing import mean_colour, prompt_colour
from tests.simulator.faults import APPLIES

SMALL = "gpt-image-1-mini"
NANO = "gemini-nano-banana-2.1"
CHAT = "gpt-6-luna"


@pytest.fixture(scope="module")
def sim():
    with pytest.MonkeyPatch.context() as patch, Simulator(hang_s=0.3, retry_after_s=0.25) as running:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield running


@pytest.fixture(scope="module")
def client(sim):
    with openai.OpenAI(base_url=sim.openai_url, api_key="test-key", max_retries=0, timeout=10) as made:
        yield made


@pytest.fixture(scope="module")
def gemini(sim):
    return gemini_client(sim)


def gemini_client(sim, key="test-key", version="v1", timeout_s=10.0):
    options = types.HttpOptions(base_url=sim.gemini_url, api_version=version, timeout=int(timeout_s * 1000))
    return genai.Client(api_key=key, http_options=options)


def png(colour, size=(64, 48), mode="RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return out.getvalue()


def upload(colour, size=(64, 48), mode="RGB"):
    return ("a.png", png(colour, size, mode), "image/png")


def opened(data: str | bytes) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data))


def data_url(colour, size=(64, 48)) -> str:
    return "data:image/png;base64," + base64.b64encode(png(colour, size)).decode()


def ask(client, text, *colours, **more):
    parts = [{"type": "image_url", "image_url": {"url": data_url(colour)}} for colour in colours]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
    return client.chat.completions.create(model=CHAT, messages=[message], **more)


def pictures(answer) -> list[Image.Image]:
    parts = answer.candidates[0].content.parts
    return [opened(part.inline_data.data) for part in parts if part.inline_data and not part.thought]


# --- OpenAI


def test_generate(sim, client):
    answer = client.images.generate(model="gpt-image-2", prompt="a fox", n=2, size="1024x768", quality="low")
    first, second = (opened(one.b64_json) for one in answer.data)
    assert first.size == second.size == (1024, 768) and first.format == "PNG"
    assert first.getpixel((5, 2)) == prompt_colour("a fox") and second.getpixel((5, 2)) == prompt_colour("a fox", 1)
    assert (answer.size, answer.quality, answer.output_format, answer.background) == (
        "1024x768",
        "low",
        "png",
        "opaque",
    )
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    seen = sim.requests[-1]
    assert (seen.operation, seen.prompt, seen.key, seen.status) == ("generate", "a fox", "test-key", 200)
    assert seen.params == {"model": "gpt-image-2", "n": 2, "size": "1024x768", "quality": "low"}
    again = client.images.generate(model="gpt-image-2", prompt="a fox", size="1024x768", quality="low")
    assert again.data[0].b64_json == answer.data[0].b64_json


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_output_format(client, kind):
    answer = client.images.generate(model=SMALL, prompt="a fox", output_format=kind)
    assert opened(answer.data[0].b64_json).format == kind.upper() and answer.output_format == kind


def test_edit_shows_every_input(client):
    def edited(prompt, *colours):
        answer = client.images.edit(model=SMALL, image=[upload(one) for one in colours], prompt=prompt)
        return answer.data[0].b64_json

    reference = edited("make it night", (200, 10, 10), (10, 200, 10), (10, 10, 200))
    assert edited("make it day", (200, 10, 10), (10, 200, 10), (10, 10, 200)) != reference
    assert edited("make it night", (201, 90, 10), (10, 200, 10), (10, 10, 200)) != reference
    assert edited("make it night", (200, 10, 10), (10, 200, 10), (90, 10, 200)) != reference
    assert edited("make it night", (200, 10, 10), (10, 10, 200), (10, 200, 10)) != reference
    assert opened(reference).getpixel((0, 16)) == (105, 105, 10)  # half of picture 1, half of picture 2's stripe


def test_mask_repaints_where_alpha_is_0(sim, client):
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    out = io.BytesIO()
    mask.save(out, "PNG")
    answer = client.images.edit(
        model=SMALL, image=upload((200, 10, 10), (64, 64)), mask=("m.png", out.getvalue(), "image/png"), prompt="sea"
    )
    made = opened(answer.data[0].b64_json)
    assert made.size == (1024, 1024)
    assert made.getpixel((500, 2)) == prompt_colour("sea") and made.getpixel((520, 2)) == (200, 10, 10)
    seen = sim.requests[-1]
    assert seen.mask.size == (64, 64) and [one.size for one in seen.images] == [(64, 64)]


def test_edit_as_json(client):
    body = {"model": SMALL, "prompt": "x", "images": [{"image_url": data_url("red")}, {"image_url": data_url("blue")}]}
    answer = client.post("/images/edits", body=body, cast_to=openai.types.ImagesResponse)
    form = client.images.edit(model=SMALL, prompt="x", image=[upload("red"), upload("blue")])
    assert answer.data[0].b64_json == form.data[0].b64_json
    with pytest.raises(openai.BadRequestError, match="exactly one"):
        client.post("/images/edits", body={**body, "images": [{}]}, cast_to=openai.types.ImagesResponse)


def test_caption_and_schema(sim, client):
    text = ask(client, "describe", (255, 0, 0), (0, 0, 255)).choices[0].message.content
    assert "64x48 of #ff0000, 64x48 of #0000ff" in text
    assert text != ask(client, "describe!", (255, 0, 0), (0, 0, 255)).choices[0].message.content
    assert [one.mime for one in sim.requests[-1].images] == ["image/png", "image/png"]
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["caption", "tags", "kind", "score"],
        "properties": {
            "caption": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["photo", "drawing"]},
            "score": {"type": ["integer", "null"]},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}
    made = json.loads(ask(client, "describe", "red", response_format=form).choices[0].message.content)
    assert set(made) == set(schema["properties"]) and made["kind"] in ("photo", "drawing")
    assert isinstance(made["score"], int) and "#ff0000" in made["caption"]
    with pytest.raises(openai.BadRequestError, match="Invalid schema"):
        del schema["required"]
        ask(client, "describe", "red", response_format=form)
    assert ask(client, "describe", max_completion_tokens=2).choices[0].finish_reason == "length"


BAD = {
    "quality": ({"quality": "ultra"}, "invalid_value", "quality"),
    "quality of another model": ({"quality": "max"}, "invalid_value", "quality"),
    "n": ({"n": 11}, "integer_above_max_value", "n"),
    "size": ({"size": "512x512"}, "invalid_value", "size"),
    "free size": ({"model": "gpt-image-2", "size": "1000x1000"}, "invalid_value", "size"),
    "seed": ({"extra_body": {"seed": 1}}, "unknown_parameter", "seed"),
    "response_format": ({"response_format": "b64_json"}, "unknown_parameter", "response_format"),
    "prompt": ({"prompt": "x" * 32001}, "string_above_max_length", "prompt"),
    "no prompt": ({"prompt": openai.omit}, "missing_required_parameter", "prompt"),
    "transparent jpeg": ({"background": "transparent", "output_format": "jpeg"}, None, "background"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_generations(client, name):
    values, code, param = BAD[name]
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"model": SMALL, "prompt": "x", **values})
    assert (caught.value.code, caught.value.param, caught.value.type) == (code, param, "invalid_request_error")


BAD_EDITS = {
    "raw bytes": ({"image": png("red")}, "unsupported_file_mimetype"),
    "broken": ({"image": ("a.png", png("red")[:60], "image/png")}, "invalid_image_file"),
    "17 images": ({"image": [upload("red")] * 17}, "array_above_max_length"),
    "no image": ({"image": []}, "missing_required_parameter"),
    "mask without alpha": ({"mask": upload(255, mode="L")}, "invalid_mask_image_format"),
    "mask of another size": ({"mask": upload((0, 0, 0, 0), (64, 64), "RGBA")}, "invalid_mask_image_format"),
    "fidelity": ({"model": "gpt-image-2", "input_fidelity": "low"}, "invalid_input_fidelity_model"),
}


@pytest.mark.parametrize("name", BAD_EDITS)
def test_bad_edits(client, name):
    values, code = BAD_EDITS[name]
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(**{"model": SMALL, "prompt": "x", "image": upload("red"), **values})
    assert caught.value.code == code


def test_bad_chats_keys_and_models(sim, client):
    def refused(status, code, **values):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**{"model": CHAT, "messages": [{"role": "user", "content": "x"}], **values})
        assert (caught.value.status_code, caught.value.code) == (status, code)

    bare = [{"role": "user", "content": [{"type": "image_url", "image_url": data_url("red")}]}]
    cut = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url("red")[:-88]}}]}]
    refused(400, "invalid_type", messages=bare)
    refused(400, "invalid_image_file", messages=cut)
    refused(400, "unknown_parameter", extra_body={"top_k": 3})
    refused(400, "unsupported_parameter", max_tokens=3)
    refused(404, "model_not_found", model="gpt-3")
    with pytest.raises(openai.NotFoundError):
        client.images.generate(model="dall-e-3", prompt="x")
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="wrong").images.generate(model=SMALL, prompt="x")
    assert caught.value.code == "invalid_api_key"
    assert CHAT in [one.id for one in client.models.list()]


# fault -> (status, code) of the error that the client raises
OPENAI_ERRORS = {
    "rate_limit": (429, "rate_limit_exceeded"),
    "rate_limit_after": (429, "rate_limit_exceeded"),
    "per_day_quota": (429, "rate_limit_exceeded"),
    "insufficient_quota": (429, "insufficient_quota"),
    "moderation": (400, "moderation_blocked"),
    "error_500": (500, None),
    "unauthorized": (401, "invalid_api_key"),
    "overloaded": (503, None),
}


@pytest.mark.parametrize("fault", sorted(APPLIES["generate"] | APPLIES["chat"]))
def test_faults_in_openai_format(sim, client, fault):
    def call(words=f"fault:{fault}"):
        if fault in APPLIES["generate"]:
            return client.images.generate(model=SMALL, prompt=words)
        return ask(client, words)

    if fault in OPENAI_ERRORS or fault in ("no_image", "image_safety"):
        with pytest.raises(openai.APIStatusError) as caught:
            call()
        error = caught.value
        assert (error.status_code, error.code) == OPENAI_ERRORS.get(fault, (400, "moderation_blocked"))
        after = error.response.headers.get("retry-after")
        assert after == {"rate_limit_after": "1", "per_day_quota": "43200"}.get(fault)
        assert error.request_id
    elif fault in ("hang", "disconnect"):
        with pytest.raises(openai.APIConnectionError):
            call()
        assert sim.requests[-1].cost_usd > 0
    elif fault == "cut_json":
        with pytest.raises((json.JSONDecodeError, openai.APIResponseValidationError)):
            call()
    elif fault in APPLIES["generate"]:
        answer = call()
        if fault == "html_200":
            assert answer.startswith("<html>")
        elif fault in ("data_null", "empty_choices"):
            assert answer.data == {"data_null": None, "empty_choices": []}[fault]
        else:
            made = opened(answer.data[0].b64_json)
            assert (made.size == (1024, 1024)) == (fault == "jpeg_for_png")
            assert (made.format == "PNG") == (fault == "wrong_size")
    else:
        choice = call().choices[0]
        assert choice.finish_reason == {"length": "length", "content_filter": "content_filter"}.get(fault, "stop")
        text = choice.message.content
        assert {
            "length": lambda: 0 < len(text) < 40,
            "content_filter": lambda: text is None,
            "empty_text": lambda: text == "",
            "refusal_field": lambda: text is None and choice.message.refusal,
            "refusal_text": lambda: "sorry" in text,
        }[fault]()
    assert sim.requests[-1].fault == fault


def test_once_and_by_lot(client):
    with pytest.raises(openai.InternalServerError):
        ask(client, "x fault:error_500:once")
    assert ask(client, "x fault:error_500:once").choices
    with Simulator(faults=Faults(0.3, ["error_500", "moderation"], seed=4)) as other:
        again = client.with_options(base_url=other.openai_url)

        def failing():
            for number in range(40):
                try:
                    ask(again, f"row {number}")
                except openai.APIStatusError as error:
                    yield number, error.status_code

        first = list(failing())
        assert 5 <= len(first) <= 20 and {status for _, status in first} == {400, 500}
        other.faults.seen.clear()
        assert list(failing()) == first


# --- Gemini


def test_gemini_text_to_image(sim, gemini):
    config = types.GenerateContentConfig(
        response_modalities=["TEXT", "IMAGE"],
        seed=3,
        thinking_config=types.ThinkingConfig(thinking_level="minimal"),
        image_config=types.ImageConfig(aspect_ratio="16:9", image_size="2K"),
        safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
    )
    answer = gemini.models.generate_content(model=NANO, contents="a fox draft:yes", config=config)
    made = pictures(answer)
    assert [one.size for one in made] == [(2688, 1536)] and made[0].getpixel((0, 0)) == prompt_colour("a fox draft:yes")
    assert [part.thought for part in answer.candidates[0].content.parts] == [True, None, None]
    assert answer.usage_metadata.candidates_token_count > 1680 and "2688x1536" in answer.text
    assert sim.requests[-1].params["image_config"] == {"aspect_ratio": "16:9", "image_size": "2K"}


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_gemini_edit_and_caption(sim, version):
    gemini = gemini_client(sim, version=version)
    parts = [types.Part.from_bytes(data=png(one), mime_type="image/png") for one in ((200, 10, 10), (10, 200, 10))]
    config = types.GenerateContentConfig(response_modalities=["IMAGE"])
    answer = gemini.models.generate_content(model=NANO, contents=[*parts, "night draft:no"], config=config)
    (made,) = pictures(answer)
    assert made.size == (1184, 864) and made.getpixel((0, 16)) == (105, 105, 10) and not answer.text
    told = gemini.models.generate_content(model="gemini-2.5-flash", contents=[*parts, "describe"])
    assert "64x48 of #c80a0a, 64x48 of #0ac80a" in told.text and told.usage_metadata.candidates_token_count


def test_gemini_takes_snake_case(sim):
    blob = {"mime_type": "image/png", "data": base64.b64encode(png("red")).decode()}
    body = {
        "contents": [{"role": "user", "parts": [{"inline_data": blob}, {"text": "x"}]}],
        "generation_config": {"response_modalities": ["TEXT", "IMAGE"], "image_config": {"aspect_ratio": "1:1"}},
    }
    url, head = f"{sim.gemini_url}/v1beta/models/{NANO}:generateContent", {"x-goog-api-key": "test-key"}
    answer = httpx2.post(url, json=body, headers=head, timeout=10)
    assert answer.status_code == 200 and types.GenerateContentResponse.model_validate(answer.json()).candidates
    for broken in ({**body, "foo": 1}, {**body, "generation_config": {"foo": 1}}):
        error = httpx2.post(url, json=broken, headers=head, timeout=10).json()["error"]
        assert error["status"] == "INVALID_ARGUMENT" and "Unknown name" in error["message"]
    assert httpx2.post(url, json=body, timeout=10).status_code == 403


def test_gemini_chat_needs_its_signatures(gemini):
    chat = gemini.chats.create(model=NANO)
    chat.send_message("a dog draft:yes")
    second = chat.send_message("make it blue draft:no")
    assert mean_colour(pictures(second)[0]) and pictures(second)[0].size == (1024, 1024)

    def resend(change):
        history = [one.model_copy(deep=True) for one in chat.get_history()[:2]]
        change(history[1].parts)
        asked = types.Content(role="user", parts=[types.Part(text="now green")])
        return gemini.models.generate_content(model=NANO, contents=[*history, asked])

    def strip(parts):
        parts[-1].thought_signature = None

    def forge(parts):
        parts[-1].thought_signature = b"another"

    def swap(parts):
        parts[-1].inline_data.data = png("red")

    assert pictures(resend(lambda parts: None))
    for change, words in ((strip, "missing a thought_signature"), (forge, "Corrupted"), (swap, "Corrupted")):
        with pytest.raises(errors.ClientError, match=words) as caught:
            resend(change)
        assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")


GEMINI_BAD = {
    "size": {"image_config": {"image_size": "512"}},
    "ratio": {"image_config": {"aspect_ratio": "7:3"}},
    "candidates": {"candidate_count": 2},
    "threshold": {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "X"}]},
}


@pytest.mark.filterwarnings("ignore")
def test_gemini_refusals(sim, gemini):
    def refused(status, name, model=NANO, contents="x", who=gemini, **config):
        with pytest.raises(errors.APIError) as caught:
            who.models.generate_content(model=model, contents=contents, config=config)
        assert (caught.value.code, caught.value.status) == (status, name)
        return caught.value

    for config in GEMINI_BAD.values():
        refused(400, "INVALID_ARGUMENT", **config)
    broken = types.Part.from_bytes(data=png("red")[:60], mime_type="image/png")
    refused(400, "INVALID_ARGUMENT", contents=[broken, "x"])
    refused(400, "INVALID_ARGUMENT", contents=[types.Part.from_bytes(data=png("red"), mime_type="image/tiff"), "x"])
    refused(400, "INVALID_ARGUMENT", model="gemini-2.5-flash", response_modalities=["IMAGE"])
    refused(404, "NOT_FOUND", model="gemini-3-pro-image-preview")
    error = refused(400, "INVALID_ARGUMENT", who=gemini_client(sim, key="wrong"))
    assert error.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


GEMINI_ERRORS = {
    "rate_limit": (429, "RESOURCE_EXHAUSTED"),
    "rate_limit_after": (429, "RESOURCE_EXHAUSTED"),
    "per_day_quota": (429, "RESOURCE_EXHAUSTED"),
    "insufficient_quota": (429, "RESOURCE_EXHAUSTED"),
    "error_500": (500, "INTERNAL"),
    "unauthorized": (401, "UNAUTHENTICATED"),
    "overloaded": (503, "UNAVAILABLE"),
}
FINISHES = {
    "image_safety": "IMAGE_SAFETY",
    "no_image": "NO_IMAGE",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal_field": "PROHIBITED_CONTENT",
}


@pytest.mark.parametrize("fault", sorted(APPLIES["gemini picture"] | APPLIES["gemini text"]))
def test_faults_in_gemini_format(sim, gemini, fault):
    model = NANO if fault in ("image_safety", "no_image", "wrong_size", "jpeg_for_png") else "gemini-2.5-flash"

    def call():
        return gemini.models.generate_content(model=model, contents=f"fault:{fault} draft:no")

    if fault in GEMINI_ERRORS:
        with pytest.raises(errors.APIError) as caught:
            call()
        assert (caught.value.code, caught.value.status) == GEMINI_ERRORS[fault]
        wire = json.dumps(caught.value.details)
        assert ("retryDelay" in wire) == (fault in ("rate_limit_after", "per_day_quota", "insufficient_quota"))
        assert ("PerDay" in wire) == (fault == "per_day_quota")
        assert ("limit: 0" in wire) == (fault == "insufficient_quota")
    elif fault in ("hang", "disconnect"):
        with pytest.raises(httpx2.TransportError):
            call()
    elif fault in ("cut_json", "html_200"):
        with pytest.raises((json.JSONDecodeError, errors.UnknownApiResponseError)):
            call()
    else:
        answer = call()
        if fault == "moderation":
            assert answer.prompt_feedback.block_reason.name == "PROHIBITED_CONTENT" and not answer.candidates
        elif fault in ("data_null", "empty_choices"):
            assert not answer.candidates
        elif fault in ("wrong_size", "jpeg_for_png"):
            (made,) = pictures(answer)
            assert (made.size, made.format) in (((512, 1024), "PNG"), ((1024, 1024), "JPEG"))
        else:
            assert answer.candidates[0].finish_reason.name == FINISHES.get(fault, "STOP")
            words = {"no_image": "describe", "refusal_text": "sorry", "length": "A plain"}
            assert words.get(fault, "") in (answer.text or "")
    assert sim.requests[-1].fault == fault


# --- the gate, the ledger, and the end of the world


def test_gate(client):
    with Simulator(slots=2, latency_s=0.3) as sim:
        here = client.with_options(base_url=sim.openai_url)
        statuses: list[int] = []

        def one():
            try:
                ask(here, "x")
                statuses.append(200)
            except openai.RateLimitError as error:
                statuses.append(error.status_code)

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 429, 429] and sim.peak == 2 and sim.state()["faults"] == {"slots": 2}
    with Simulator(rate=(1, 2)) as sim:
        here = client.with_options(base_url=sim.openai_url)
        for _ in range(2):
            ask(here, "x")
        with pytest.raises(openai.RateLimitError) as caught:
            ask(here, "x")
        head = caught.value.response.headers
        assert head["retry-after"] == "1" and 0 < int(head["retry-after-ms"]) <= 1000
        assert head["x-ratelimit-limit-requests"] == "2" and head["x-ratelimit-remaining-requests"] == "0"
    with Simulator(faults=Faults(storm=(0.0, 0.3))) as sim:
        here = client.with_options(base_url=sim.openai_url)
        afters = []
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                ask(here, "x")
            afters.append("retry-after" in caught.value.response.headers)
        assert sorted(afters) == [False, True]
        time.sleep(0.3)
        assert ask(here, "x").choices


def test_ledger(client):
    with Simulator(hang_s=0.1) as sim:
        here, there = client.with_options(base_url=sim.openai_url), gemini_client(sim)
        usage = here.images.generate(model="gpt-image-2", prompt="a fox", quality="high").usage
        spent = (usage.input_tokens * 5 + usage.output_tokens * 30) / 1e6
        assert sim.ledger_usd == pytest.approx(spent) and round(sim.ledger_usd, 3) == 0.211
        there.models.generate_content(model=NANO, contents="a fox", config={"response_modalities": ["IMAGE"]})
        spent += 1120 * 30e-6 + 2 * 1.5e-6
        assert sim.ledger_usd == pytest.approx(spent)
        there.models.generate_content(model=NANO, contents="fault:image_safety")
        assert sim.ledger_usd > spent + 0.03
        before = sim.ledger_usd
        with pytest.raises(openai.BadRequestError):
            here.images.generate(model="gpt-image-2", prompt="fault:moderation")
        assert sim.ledger_usd == before
        with pytest.raises(openai.APIConnectionError):
            here.images.generate(model="gpt-image-2", prompt="fault:hang")
        assert sim.ledger_usd > before
        assert sum(one.cost_usd for one in sim.requests) == pytest.approx(sim.ledger_usd)


def test_who_leaves_early_is_billed(client):
    with Simulator(latency_s=1) as sim:
        here = client.with_options(base_url=sim.openai_url, timeout=0.3)
        with pytest.raises(openai.APITimeoutError):
            ask(here, "x")
        while not sim.requests[-1].status:
            time.sleep(0.01)
        assert sim.requests[-1].status == 499 and sim.ledger_usd > 0 and not sim.state()["at_once_now"]


def test_kill_and_revive(client):
    with Simulator(latency_s=5) as sim:
        here = client.with_options(base_url=sim.openai_url)
        caught: list[Exception] = []

        def one():
            try:
                ask(here, "x")
            except openai.APIConnectionError as error:
                caught.append(error)

        thread = threading.Thread(target=one)
        thread.start()
        while not sim.state()["at_once_now"]:
            time.sleep(0.01)
        sim.kill()
        thread.join(timeout=2)
        assert len(caught) == 1
        with pytest.raises(openai.APIConnectionError):
            ask(here, "x")
        url, sim.latency_s = sim.openai_url, 0.0
        sim.revive()
        assert sim.openai_url == url and ask(here, "x").choices


def test_fast(client):
    with Simulator(fast=True, slots=2, queue=True, latency_s=0.05) as sim:
        here = client.with_options(base_url=sim.openai_url)
        threads = [threading.Thread(target=ask, args=(here, "x", "red")) for _ in range(6)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began >= 0.15 and sim.peak == 2
        assert gemini_client(sim).models.generate_content(model="any", contents="x").text == "A plain view."
        assert sim.state()["statuses"] == {200: 7}


def test_as_a_program(sim):
    command = [sys.executable, "-m", "tests.simulator", "--share", "1", "--faults", "overloaded", "--key", "k"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            urls = json.loads(process.stdout.readline())
            client = openai.OpenAI(base_url=urls["openai"], api_key="k", max_retries=0, timeout=10)
            with client, pytest.raises(openai.InternalServerError):
                ask(client, "x")
            state = httpx2.get(f"{urls['gemini']}/_sim/state", timeout=10).json()
            assert (state["requests"], state["statuses"], state["faults"]) == (1, {"503": 1}, {"overloaded": 1})
        finally:
            process.terminate()
