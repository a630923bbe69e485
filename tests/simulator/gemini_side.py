"""The Gemini format's answers: pictures with signatures, captions, usage, and how each fault looks there."""

from __future__ import annotations

import base64
import json

from tests.simulator import drawing
from tests.simulator.gemini_checks import error, refuse, sign
from tests.simulator.gemini_reading import MODELS, read
from tests.simulator.http import Answer, Request
from tests.simulator.prices import Usage, picture_tokens, text_tokens
from tests.simulator.records import About, Call

__all__ = ["answer", "check_key", "constant", "early_fault", "key_of", "listing", "read"]

# Fault -> (finishReason, the text that comes with it; None: no content at all)
FINISHES: dict[str, tuple[str, str | None]] = {
    "image_safety": ("IMAGE_SAFETY", None),
    "no_image": ("NO_IMAGE", "I can describe that picture for you, but I did not draw one."),
    "content_filter": ("SAFETY", None),
    "refusal_field": ("PROHIBITED_CONTENT", None),
    "refusal_text": ("STOP", "I'm sorry, but I can't help with that."),
    "empty_text": ("STOP", ""),
}
SPECS = "type.googleapis.com/google.rpc."


def key_of(request: Request) -> str:
    return request.headers.get("x-goog-api-key") or (request.query.get("key") or [""])[0]


def check_key(request: Request, keys: set[str]) -> None:
    key = key_of(request)
    if not key:
        text = "Method doesn't allow unregistered callers (callers without established identity). Please use API Key."
        raise refuse(text, 403, "PERMISSION_DENIED")
    if key not in keys:
        detail = {"@type": SPECS + "ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        raise refuse("API key not valid. Please pass a valid API key.", details=[detail])


def early_fault(name: str, number: int, retry_after_s: float) -> Answer:
    """The refusals that come before any work."""
    if name == "unauthorized":
        return error(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")
    if name == "overloaded":
        return error(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")
    if name == "error_500":
        return error(500, "An internal error has occurred. Please retry.", "INTERNAL")
    text = "You exceeded your current quota, please check your plan and billing details."
    if name == "rate_limit":
        return error(429, "Resource has been exhausted (e.g. check quota).", "RESOURCE_EXHAUSTED")
    span = "PerDay" if name == "per_day_quota" else "PerMinute"
    limit = 0 if name == "insufficient_quota" else 20
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    wait = f"{retry_after_s:.6g}s"
    violation = {
        "quotaMetric": metric,
        "quotaId": f"GenerateRequests{span}PerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global"},
        "quotaValue": str(limit),
    }
    details = [
        {"@type": SPECS + "Help", "links": [{"description": "Learn more", "url": "https://ai.google.dev/"}]},
        {"@type": SPECS + "QuotaFailure", "violations": [violation]},
        {"@type": SPECS + "RetryInfo", "retryDelay": wait},
    ]
    text += f"\n* Quota exceeded for metric: {metric}, limit: {limit}\nPlease retry in {wait}."
    return error(429, text, "RESOURCE_EXHAUSTED", details)


def answer(call: Call, fault: str, about: About) -> Answer:
    usage = Usage(text_in=text_tokens(*call.texts), image_in=sum(map(picture_tokens, call.inputs)))
    body: dict = {"modelVersion": call.model, "responseId": f"response-{about.number}"}
    if fault == "moderation":
        body["promptFeedback"] = {"blockReason": "PROHIBITED_CONTENT"}
    else:
        finish, parts = "STOP", []
        if fault in FINISHES:
            finish, text = FINISHES[fault]
            parts = [] if text is None else [{"text": text}]
            usage.text_out = text_tokens(text or "")
            # The picture was drawn before it was looked at.
            usage.image_out = call.values["tokens"] if fault in ("image_safety", "content_filter") else 0
        elif call.kind == "gemini picture":
            parts = picture_parts(call, fault, about, usage)
        else:
            text = caption(call)
            limit = call.values.get("max_output_tokens")
            if fault == "length" or (limit and text_tokens(text) > limit):
                finish, text = "MAX_TOKENS", text[: 4 * min(limit or 8, len(text) // 8)]
            parts = [{"text": text, "thoughtSignature": sign(about.seed, call.model, text)}]
            usage.text_out = text_tokens(text)
        if fault == "length" and call.kind == "gemini picture":
            finish, parts, usage.image_out = "MAX_TOKENS", parts[:1] if "text" in parts[0] else [], 0
        candidate = {"index": 0, "finishReason": finish}
        if parts:
            candidate["content"] = {"role": "model", "parts": parts}
        if finish not in ("STOP", "MAX_TOKENS"):
            candidate["finishMessage"] = "Unable to show the generated image." if usage.image_out else "No answer."
        body["candidates"] = [candidate]
    if fault == "data_null":
        body["candidates"] = None
    elif fault == "empty_choices":
        body["candidates"] = []
    body["usageMetadata"] = metadata(usage)
    return Answer(200, json.dumps(body).encode(), cost=about.price(call.model, usage))


def metadata(usage: Usage) -> dict:
    made = {
        "promptTokenCount": usage.text_in + usage.image_in,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.text_in}],
        "totalTokenCount": usage.total,
    }
    if usage.image_in:
        made["promptTokensDetails"].append({"modality": "IMAGE", "tokenCount": usage.image_in})
    out = [("TEXT", usage.text_out), ("IMAGE", usage.image_out)]
    if usage.text_out + usage.image_out:
        made["candidatesTokenCount"] = usage.text_out + usage.image_out
        made["candidatesTokensDetails"] = [{"modality": name, "tokenCount": count} for name, count in out if count]
    return made


def picture_parts(call: Call, fault: str, about: About, usage: Usage) -> list[dict]:
    """[draft], [text], picture. About one prompt in three gets a draft; `draft:yes` and `draft:no` in it decide."""
    prompt = call.values["prompt"]
    size = (call.size[0] // 2, call.size[1]) if fault == "wrong_size" else call.size

    def packed(words: str, size: tuple[int, int]) -> dict:
        form = "jpeg" if fault == "jpeg_for_png" else "png"
        data = base64.b64encode(drawing.encode(drawing.paint(words, size, call.inputs), form)).decode()
        signature = sign(about.seed, call.model, data)
        return {"inlineData": {"mimeType": "image/png", "data": data}, "thoughtSignature": signature}

    parts = []
    lot = drawing.digest("draft", about.seed, prompt)[0] % 3 == 0 and MODELS[call.values["family"]]["thinks"]
    if "draft:yes" in prompt or (lot and "draft:no" not in prompt):
        draft = packed("a draft of " + prompt, (size[0] // 2, size[1] // 2))
        parts.append({"inlineData": draft["inlineData"], "thought": True})
    if call.values["with_text"]:
        text = f"Here is your picture of {size[0]}x{size[1]}."
        parts.append({"text": text, "thoughtSignature": sign(about.seed, call.model, text)})
        usage.text_out = text_tokens(text)
    parts.append(packed(prompt, size))
    usage.image_out = call.values["tokens"]
    return parts


def caption(call: Call) -> str:
    text = drawing.caption(call.texts, call.inputs)
    if call.values.get("response_mime_type") != "application/json":
        return text
    schema = call.values.get("response_schema") or call.values.get("response_json_schema")
    return json.dumps(drawing.conform(schema, text) if schema else {"caption": text})


def listing(request: Request, about: About) -> Answer:
    ids = [*MODELS, "gemini-2.5-flash", "gemini-3-flash", *sorted(about.models)]
    rows = [{"name": f"models/{one}", "supportedGenerationMethods": ["generateContent"]} for one in ids]
    return Answer(200, json.dumps({"models": rows}).encode())


def constant() -> Answer:
    """Fast mode: one caption for all."""
    content = {"role": "model", "parts": [{"text": "A plain view."}]}
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 10, "totalTokenCount": 1010}
    body = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": usage}
    return Answer(200, json.dumps(body).encode())
