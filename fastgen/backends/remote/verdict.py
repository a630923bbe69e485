"""What came back from an API -> the text that it is, or why it is none. Never lets an error or a refusal pass for a caption."""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from time import time

from fastgen.types import Failed, Kind, Request

OUTCOMES = {"rate_limited": "slow down", "unavailable": "down"}
"""Kind of failure -> what the gate is to make of it; "neither" for all others."""
_REFUSAL = re.compile(
    r"(i'?m |i am |we'?re )?(very |so |terribly )?(sorry|afraid)\b.{0,60}\b(can(no|')?t|cannot|unable|not able|won'?t|couldn'?t)"
    r"|i (can(no|')t|cannot|am unable|am not able|won'?t|will not|must decline)\b.{0,40}\b"
    r"(help|assist|comply|fulfill|describe|identify|provide|process|do|create|generate|view|see|continue|discuss|caption)"
    r"|as an ai\b|error\b ?(code|:|\d)|sorry, (but )?i\b|(this|the|your) (request|image|content) (was|has been|is) (blocked|rejected|flagged)",
    re.IGNORECASE | re.DOTALL,
)


class Declined(Exception):
    """There is no result, and why.

    Args:
        retry_after: seconds that the service asked to wait; 0 if it did not say.
        cost: USD that the attempt cost, or may have cost.
    """

    def __init__(self, kind: Kind, message: str, field: str = "", retry_after: float = 0.0, cost: float = 0.0):
        super().__init__(message)
        self.kind, self.field, self.retry_after, self.cost = kind, field, retry_after, cost

    def failed(self, request: Request, backend: str, model: str) -> Failed:
        return Failed(
            request.id, self.kind, str(self), self.field, backend, model, request.content,
            retry_after=self.retry_after, cost=self.cost,
        )  # fmt: skip


def text_of(content: object, finish_reason: str | None, refusal: str | None, schema: str = "") -> str:
    """The caption in an answer; under a schema, its JSON. Raises Declined: refused, truncated, empty, malformed."""
    if refusal:
        raise Declined("refused", f"the model declined: {shorten(refusal)}")
    if finish_reason in ("content_filter", "safety"):
        raise Declined("refused", "the service's filter withheld the answer")
    if finish_reason in ("length", "max_tokens"):
        raise Declined("truncated", "the answer was cut at --max-tokens; raise it")
    if content is None or (isinstance(content, str) and not content.strip()):
        raise Declined("empty", "the answer holds no text")
    if not isinstance(content, str):
        raise Declined("malformed", f"the answer's content is {type(content).__name__}, not text")
    text = content.strip()
    if schema:
        return _under(schema, text)
    if _REFUSAL.match(text):
        raise Declined("refused", f"the model declined: {shorten(text)}")
    return text


def _under(schema: str, text: str) -> str:
    import jsonschema

    try:
        value = json.loads(text)
        jsonschema.validate(value, json.loads(schema))
    except ValueError:
        raise Declined("malformed", f"the answer is not JSON: {shorten(text)}") from None
    except jsonschema.ValidationError as error:
        raise Declined("malformed", f"the answer does not fit --schema: {shorten(error.message)}") from None
    return json.dumps(value, ensure_ascii=False)


def of_status(status: int, code: str, message: str, retry_after: float = 0.0) -> Declined:
    """What an HTTP status and an OpenAI-style error code mean. `message` is shortened here."""
    said = f"{status} {code}: {shorten(message)}" if code else f"{status}: {shorten(message)}"
    lower = f"{code} {message}".lower()
    if code in ("moderation_blocked", "content_policy_violation", "content_filter"):
        return Declined("refused", said)
    if code in ("insufficient_quota", "billing_hard_limit_reached") or (status == 429 and _is_final(lower, retry_after)):
        return Declined("quota", said)
    if status == 429:
        return Declined("rate_limited", said, retry_after=retry_after)
    if status in (401, 403):
        return Declined("unauthorized", said)
    if status == 404 or code in ("model_not_found", "model_deprecated"):
        return Declined("gone", said)
    if status in (408, 409) or status >= 500:
        return Declined("unavailable", said, retry_after=retry_after)
    return Declined("input", said)


def _is_final(message: str, retry_after: float) -> bool:
    return "per day" in message or "perday" in message or "quota" in message and "exceeded your current quota" in message or retry_after > 3600


def seconds_of(retry_after: str | None, in_ms: str | None = None) -> float:
    """Retry-After (seconds or a date) and retry-after-ms -> seconds; 0 if neither says."""
    try:
        if in_ms:
            return max(0.0, float(in_ms) / 1000)
        if retry_after:
            return max(0.0, float(retry_after))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
        except (TypeError, ValueError):
            pass
    return 0.0


def shorten(text: object, most: int = 300) -> str:
    """One line, without the data of pictures and without what looks like a key."""
    line = re.sub(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]{16,}", "data:...", " ".join(str(text).split()))
    line = re.sub(r"\b(sk-|AIza|Bearer )[\w-]{6,}", r"\1...", line)
    return line if len(line) <= most else line[:most] + "..."
