"""What came back from an API -> the text that it is, or why it is none. Never lets an error or a refusal pass for a caption."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time

from fastgen.backends.remote.gate import Closed, Gate
from fastgen.types import Failed, Kind, Request

LET_GO = "it was not sent any more"
OUTCOMES = {"rate_limited": "slow down", "unavailable": "down"}
"""Kind of failure -> what the gate is to make of it; "neither" for all others."""
NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")
"""The SDKs' errors before a request has gone out; after any other the service may have done the work, and billed it."""
_CANNOT = r"(can(no|')?t|cannot|couldn'?t|won'?t|will not|(am |are |'m |'re )?(unable to|not able to|not allowed to)|must decline to)"
_REFUSAL = re.compile(
    # "I'm sorry, but ... can't"; without the "I'm" it may be a board game or a dog's mood, so then somebody must speak.
    rf"(i'?m|i am|we'?re|we are) (very |so |truly |terribly )?(sorry|afraid)\b.{{0,60}}(\b{_CANNOT}|\bas an ai\b)"
    rf"|(sorry|unfortunately|(my )?apologies|i apologi[sz]e)\b[^a-z]{{0,3}}(but )?(i|we)( ?{_CANNOT}| am\b|'m\b| do(n't| not)\b)"
    rf"|(sorry|unfortunately)[,.:]? (but )?{_CANNOT}"
    rf"|(i|we) ?{_CANNOT} (directly |really |currently |properly )?"
    r"(help|assist|comply|fulfill|describe|identify|provide|process|do|create|generate|view|see|continue|discuss|caption)\b"
    r"|i (don't|do not|didn't) (see|have|receive) (any|an|the|access|your)\b"
    r"|as an ai\b|error\b ?(code|:|\d)"
    r"|(this|the|your) (request|content|prompt) (was|has been|is) (blocked|rejected|flagged)"
    r"|(this|the|your) image (was|has been) (blocked|rejected|flagged)",
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
            request.id, self.kind, str(self), self.field, backend, model, request.content, int(str(self) != LET_GO),
            retry_after=self.retry_after, cost=self.cost,
        )  # fmt: skip


@contextmanager
def through(gate: Gate) -> Iterator[None]:
    """Let one request pass the gate, and tell the gate how it went. Raises Declined: nobody is let through any more."""
    try:
        ticket = gate.enter()
    except Closed:
        raise Declined("unavailable", LET_GO) from None
    outcome, wait = "neither", 0.0
    try:
        yield
        outcome = "answered"
    except Declined as declined:
        outcome, wait = OUTCOMES.get(declined.kind, "neither"), declined.retry_after
        raise
    finally:
        gate.leave(ticket, outcome, wait)


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
    if _is_refusal(text):
        raise Declined("refused", f"the model declined: {shorten(text)}")
    return text


def _is_refusal(text: str) -> bool:
    return _REFUSAL.match(text.replace("’", "'")) is not None


def _under(schema: str, text: str) -> str:
    import jsonschema

    try:
        value = json.loads(text)
        jsonschema.validate(value, json.loads(schema))
    except ValueError:
        if _is_refusal(text):
            raise Declined("refused", f"the model declined: {shorten(text)}") from None
        raise Declined("malformed", f"the answer is not JSON: {shorten(text)}") from None
    except jsonschema.ValidationError as error:
        raise Declined("malformed", f"the answer does not fit --schema: {shorten(error.message)}") from None
    return json.dumps(value, ensure_ascii=False)


def of_status(status: int, code: str, message: str, retry_after: float = 0.0) -> Declined:
    """What an HTTP status and an OpenAI-style error code mean. `message` is shortened here."""
    said = f"{status} {code}: {shorten(message)}" if code else f"{status}: {shorten(message)}"
    lower = f"{code} {message}".lower()
    if code in ("moderation_blocked", "content_policy_violation", "content_filter") or "by the safety system" in lower:
        return Declined("refused", said)
    if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached") or (status == 429 and _is_final(lower, retry_after)):
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
    return any(words in message for words in ("per day", "perday", "exceeded your current quota")) or retry_after > 3600


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


def clean(said: object, key: str) -> str:
    """What somebody said, fit for a message: without the key, and short."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return shorten(text.replace(key, "...") if key else text)


def shorten(text: object, most: int = 300) -> str:
    """One line, without the data of pictures and without what looks like a key."""
    line = re.sub(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]{16,}", "data:...", " ".join(str(text).split()))
    line = re.sub(r"\b(sk-|AIza|Bearer )[\w-]{6,}", r"\1...", line)
    return line if len(line) <= most else line[:most] + "..."
