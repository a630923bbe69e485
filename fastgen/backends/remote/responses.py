"""Why there is no result: what statuses, error codes and missing answers mean for a row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time

from fastgen.backends.remote.faults import Fault, NoAnswer
from fastgen.backends.remote.gate import Closed, Gate, Outcome
from fastgen.types import Failed, Kind, Request

LET_GO = "it was no longer sent"
OUTCOMES: dict[str, Outcome] = {"rate_limited": "slow down", "unavailable": "down"}
"""Kind of failure -> its meaning for the gate; "neither" for all others, and for an answer that had begun: the service
is there, and only this answer is slow."""
PATIENCE_S, A_DAY_S = 3600.0, 86_400.0
"""A service that asks for a longer wait has nothing left to give."""
GAVE_UP = (504, 524)
"""Statuses of a gateway that stopped waiting for the service, which may have done the work and billed it."""
_BLOCKED_CODES = ("moderation_blocked", "content_policy_violation", "content_filter", "data_inspection_failed")
_BLOCKED_WORDS = re.compile(
    r"safety system|content (management )?policy|inappropriate content|(input|prompt|request|image|content) "
    r"(was|has been|is) flagged|\b(input|output|content) (new_|is )?sensitive|"
    r"\bsensitive (content|information|words?)\b|敏感|违规"
)
"""The same without a code, as gateways report it."""
_LIMIT = re.compile(r"\blimit:? (\d[\d,]*)\b.{0,80}?\brequested:? (\d[\d,]*)\b")
"""OpenAI's words for a limit on tokens or images per minute: "Limit 30000, Used 29000, Requested 2000"."""


class ProviderError(Exception):
    """There is no result; says why.

    Args:
        retry_after: seconds that the service asked to wait; 0 if it did not say.
        cost: USD that the attempt cost, or may have cost.
    """

    def __init__(self, kind: Kind, message: str, field: str = "", retry_after: float = 0.0, cost: float = 0.0):
        super().__init__(message)
        self.kind, self.field, self.retry_after, self.cost = kind, field, retry_after, cost
        self.answer = ""
        """The text that came instead of an answer."""
        self.begun = False
        """Whether an answer had begun."""

    def failed(self, request: Request, backend: str, model: str) -> Failed:
        return Failed(
            request.id,
            self.kind,
            str(self),
            self.field,
            backend,
            model,
            request.content,
            int(str(self) != LET_GO),
            retry_after=self.retry_after,
            cost=self.cost,
            answer=self.answer,
        )


@contextmanager
def through(gate: Gate, begun: bool = False) -> Iterator[None]:
    """Let one request through the gate, and tell the gate how it went. Raises ProviderError if the gate is closed,
    except for a row that has `begun`."""
    try:
        ticket = gate.enter(begun)
    except Closed:
        raise ProviderError("unavailable", LET_GO) from None
    outcome: Outcome = "neither"
    wait = 0.0
    try:
        yield
        outcome = "answered"
    except ProviderError as provider_error:
        if not provider_error.begun:
            outcome = OUTCOMES.get(provider_error.kind, "neither")
        wait = provider_error.retry_after
        raise
    finally:
        gate.leave(ticket, outcome, wait)


def of_status(status: int, code: str, message: str, retry_after: float = 0.0, at_most: float = 0.0) -> ProviderError:
    """The meaning of an HTTP status and an OpenAI-style error code. `message` is shortened here. `at_most`: USD that
    the request cost if the service did the work."""
    said = f"{status} {code}: {shorten(message)}" if code else f"{status}: {shorten(message)}"
    lower = f"{code} {message}".lower()
    if code in _BLOCKED_CODES or (status in (400, 403, 422) and _BLOCKED_WORDS.search(lower)):
        return ProviderError("refused", said)
    if status in (413, 429) and _is_beyond_limit(lower):
        return ProviderError(
            "unsupported", f"{said} (the limit of this account is lower than what this single request needs)"
        )
    if (
        status == 402
        or code in ("insufficient_quota", "billing_hard_limit_reached")
        or (status == 429 and _is_final(lower, retry_after))
    ):
        return ProviderError("quota", said)
    if status == 429:
        return ProviderError("rate_limited", said, retry_after=retry_after)
    if status in (401, 403, 407):
        return ProviderError("unauthorized", said)
    # The model or path is missing, or somewhere else; the row is not the reason.
    if status < 400 or status in (404, 405, 410) or code in ("model_not_found", "model_deprecated"):
        return ProviderError("gone", said)
    if status in (408, 409, 425) or status >= 500:
        cost = at_most if status in GAVE_UP else 0.0
        return ProviderError("unavailable", said, retry_after=min(retry_after, PATIENCE_S), cost=cost)
    return ProviderError("input", said)


def of_fault(fault: Fault, clean: Callable[[object], str], at_most: float = 0.0) -> ProviderError:
    """The meaning of a missing answer. `at_most`: USD that the request cost if the service did the work."""
    said = clean(fault)
    said = f"no answer: {said}" if isinstance(fault, NoAnswer) else said
    error = ProviderError(fault.kind, said, cost=at_most if fault.paid else 0.0)
    error.begun = isinstance(fault, NoAnswer) and fault.begun
    return error


def _is_beyond_limit(message: str) -> bool:
    """Whether a single request asks for more than the limit per minute, so that waiting cannot help."""
    if "request too large" in message:
        return True
    found = _LIMIT.search(message)
    return found is not None and int(found[2].replace(",", "")) > int(found[1].replace(",", ""))


def _is_final(message: str, retry_after: float) -> bool:
    return (
        any(words in message for words in ("per day", "perday", "exceeded your current quota"))
        or retry_after > PATIENCE_S
    )


def seconds_of(retry_after: str | None, in_ms: str | None = None) -> float:
    """Retry-After (seconds or a date) and retry-after-ms -> seconds, at most a day; 0 if neither is set."""
    for said, scale in ((in_ms, 0.001), (retry_after, 1.0)):
        try:
            seconds = float(said or "") * scale
        except ValueError:
            continue
        return min(max(0.0, seconds), A_DAY_S) if math.isfinite(seconds) else 0.0
    try:
        return min(max(0.0, parsedate_to_datetime(retry_after or "").timestamp() - time()), A_DAY_S)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def clean(said: object, key: str) -> str:
    """A text of the service, made fit for a message: short, and without the key."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return shorten(text.replace(key, "...") if key else text)


def shorten(text: object, most: int = 300) -> str:
    """One line, without image data, without anything that looks like a key, and without lone surrogates, which no file
    accepts."""
    text = str(text).encode("utf-8", "replace").decode()
    line = re.sub(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]{16,}", "data:...", " ".join(text.split()))
    line = re.sub(r"\b(sk-|AIza|Bearer )[\w-]{6,}", r"\1...", line)
    return line if len(line) <= most else line[:most] + "..."
