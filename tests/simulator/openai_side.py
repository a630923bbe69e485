"""Answers in the OpenAI format: pictures, captions, the list of models, and how each fault looks there."""

from __future__ import annotations

import base64
import json

from PIL import Image

from tests.simulator import chat_gateway, drawing
from tests.simulator.http import Answer, Request
from tests.simulator.openai_checks import error, refuse
from tests.simulator.openai_reading import read
from tests.simulator.prices import Usage, drawn_tokens, picture_tokens, text_tokens
from tests.simulator.records import About, Call

__all__ = ["answer", "check_key", "constant", "early_fault", "key_of", "listing", "read"]

BEGAN = 1_795_000_000  # "created" of the answers: a number, not the time


def key_of(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ").strip()


def check_key(request: Request, keys: set[str]) -> None:
    key = key_of(request)
    if not key:
        raise refuse("You didn't provide an API key.", None, None, 401)
    if key not in keys:
        text = f"Incorrect API key provided: {key[:4]}****. You can find your API key at the settings page."
        raise refuse(text, "invalid_api_key", None, 401)


def early_fault(name: str, number: int, retry_after_s: float) -> Answer:
    """The refusals that come before any work."""
    text = "Rate limit reached for requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again later."
    if name in ("rate_limit", "rate_limit_after"):
        answer = error(429, text, "rate_limit_exceeded", None, "requests")
        if name == "rate_limit_after":
            answer.headers["retry-after"] = str(max(1, -(-int(retry_after_s * 1000) // 1000)))
            answer.headers["retry-after-ms"] = str(int(retry_after_s * 1000))
            answer.headers["x-ratelimit-remaining-requests"] = "0"
    elif name == "per_day_quota":
        answer = error(429, text.replace("per min (RPM)", "per day (RPD)"), "rate_limit_exceeded", None, "requests")
        answer.headers["retry-after"] = "43200"
    elif name == "insufficient_quota":
        text = "You exceeded your current quota, please check your plan and billing details."
        answer = error(429, text, "insufficient_quota", None, "insufficient_quota")
    elif name == "unauthorized":
        answer = error(401, "Incorrect API key provided: ****.", "invalid_api_key")
    elif name == "overloaded":
        answer = error(503, "The engine is currently overloaded, please try again later", None, None, "server_error")
    else:
        answer = error(500, "The server had an error while processing your request.", None, None, "server_error")
    answer.headers["x-request-id"] = f"req_{number}"
    return answer


def answer(call: Call, fault: str, about: About) -> Answer:
    if fault in ("moderation", "no_image", "image_safety"):
        text = "Your request was rejected by the safety system. If you believe this is an error, contact us at help."
        text += f" Include the request ID req_{about.number}. safety_violations=[sexual]."
        reply = error(400, text, "moderation_blocked", None, "image_generation_user_error")
        reply.early = False
    else:
        usage, body = (chat_body if call.kind == "chat" else images_body)(call, fault, about)
        reply = Answer(200, json.dumps(body).encode())
        if call.stream:
            reply = chat_gateway.stream(body, call.include_usage)
        reply.cost = about.price(call.model, usage)
    reply.headers["x-request-id"] = f"req_{about.number}"
    return reply


def images_body(call: Call, fault: str, about: About) -> tuple[Usage, dict]:
    values, form = call.values, call.values.get("output_format") or "png"
    quality = values.get("quality") or "auto"
    quality = "medium" if quality == "auto" else quality
    size = call.size or auto_size(call.inputs)
    count = values.get("n") or 1
    clear = values.get("background") == "transparent"
    drawn = (size[0] // 2, size[1]) if fault == "wrong_size" else size
    data = []
    for index in range(count):
        made = drawing.paint(values["prompt"], drawn, call.inputs, call.mask, index, clear)
        packed = drawing.encode(made, "jpeg" if fault == "jpeg_for_png" else form)
        data.append({"b64_json": base64.b64encode(packed).decode()})
    usage = Usage(
        text_in=text_tokens(values["prompt"]),
        image_in=sum(picture_tokens(one) for one in (*call.inputs, *([call.mask] if call.mask else []))),
        image_out=count * drawn_tokens(size, quality),
    )
    details = {"text_tokens": usage.text_in, "image_tokens": usage.image_in}
    body = {
        "created": BEGAN + about.number,
        "data": None if fault == "data_null" else [] if fault == "empty_choices" else data,
        "background": "transparent" if clear else "opaque",
        "output_format": form,
        "quality": quality,
        "size": f"{size[0]}x{size[1]}",
        "usage": {
            "input_tokens": usage.text_in + usage.image_in,
            "input_tokens_details": details,
            "output_tokens": usage.image_out,
            "total_tokens": usage.total,
            "output_tokens_details": {"image_tokens": usage.image_out, "text_tokens": 0},
        },
    }
    return usage, body


def auto_size(inputs: list[Image.Image]) -> tuple[int, int]:
    """The standard size whose shape is nearest to the first input's."""
    shape = inputs[0].width / inputs[0].height if inputs else 1.0
    return (1536, 1024) if shape > 1.2 else (1024, 1536) if shape < 0.83 else (1024, 1024)


def chat_body(call: Call, fault: str, about: About) -> tuple[Usage, dict]:
    values = call.values
    text, form = drawing.caption(call.texts, call.inputs), values.get("response_format") or {}
    if form.get("type") == "json_schema":
        text = json.dumps(drawing.conform(form["json_schema"].get("schema", {}), text))
    elif form.get("type") == "json_object":
        text = json.dumps({"caption": text})
    finish, message = "stop", {"role": "assistant", "content": text, "refusal": None}
    if about.draws:
        message = chat_gateway.message(call, about)
    limit = values.get("max_completion_tokens") or values.get("max_tokens")
    if fault == "length" or (limit and text_tokens(text) > limit):
        finish, message["content"] = "length", text[: 4 * min(limit or 8, len(text) // 8)]
    elif fault == "content_filter":
        finish, message["content"] = "content_filter", None
    elif fault == "refusal_field":
        message.update(content=None, refusal="I'm sorry, I can't assist with that request.")
    elif fault == "refusal_text":
        message["content"] = "I'm sorry, but I can't help with that."
    elif fault == "empty_text":
        message["content"] = ""
    count = values.get("n") or 1
    choices = [{"index": n, "message": message, "finish_reason": finish, "logprobs": None} for n in range(count)]
    usage = Usage(
        text_in=text_tokens(*call.texts),
        image_in=sum(map(picture_tokens, call.inputs)),
        text_out=count * text_tokens(str(message["content"] or "")),
    )
    body = {
        "id": f"chatcmpl-{about.number}",
        "object": "chat.completion",
        "created": BEGAN + about.number,
        "model": values["model"],
        "choices": None if fault == "data_null" else [] if fault == "empty_choices" else choices,
        "usage": {
            "prompt_tokens": usage.text_in + usage.image_in,
            "completion_tokens": usage.text_out,
            "total_tokens": usage.total,
        },
    }
    return usage, body


def listing(request: Request, about: About) -> Answer:
    ids = ["gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-sunburst", "gpt-image-2.6-sunburst", "gpt-6-luna", "gpt-4o"]
    ends = {"gpt-image-1.5": "2026-12-01", "gpt-4o": "2027-01-14"}
    rows = [
        {"id": one, "object": "model", "created": BEGAN, "owned_by": "simulator", "shutdown_date": ends.get(one)}
        for one in [*ids, *sorted(about.models)]
    ]
    return Answer(200, json.dumps({"object": "list", "data": rows}).encode())


def constant() -> Answer:
    """Fast mode: one caption for all."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A plain view."}}
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    body = {
        "id": "chatcmpl-fast",
        "object": "chat.completion",
        "created": BEGAN,
        "model": "fast",
        "choices": [choice],
        "usage": usage,
    }
    return Answer(200, json.dumps(body).encode())
