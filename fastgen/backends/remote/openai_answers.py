"""What comes back from OpenAI, with or without its SDK: complaints, parameters that a server refuses, and token
counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fastgen.backends.remote import responses
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.responses import ProviderError

LIMITS = ("max_tokens", "max_completion_tokens")
"""Two names of one parameter; servers differ in which one they know."""
MAY_GO = (*LIMITS, "temperature", "seed", "reasoning_effort", "stream_options", "chat_template_kwargs")
"""Parameters that a caption can do without if the model does not know them."""
FIELDS = ("prompt", "images", "mask", "size", "quality", "background", "n")
"""Fields of a row that have the same names here."""


@dataclass(frozen=True)
class Complaint:
    """An answer of status 300 and above, as far as it explains itself."""

    status: int
    code: str
    param: str
    """The parameter that it is about."""
    message: str
    retry_after: float = 0.0
    """Seconds that the service asked to wait; 0 if it did not say."""


def error_of(complaint: Complaint, clean: Callable[[object], str], at_most: float) -> ProviderError:
    """The meaning of a complaint for its row. `at_most`: USD, if the service may have billed the call."""
    code = "" if complaint.code == str(complaint.status) else complaint.code
    found = responses.of_status(complaint.status, code, clean(complaint.message), complaint.retry_after, at_most)
    if found.kind == "input" and complaint.param == "model":  # this is true for every other row too
        return ProviderError("gone", str(found))
    if found.kind == "input" and complaint.param:
        named = re.sub(r"^image\b.*", "images", complaint.param)
        found.field = named if named in FIELDS else ""
    return found


def provider_error(error: Exception, clean: Callable[[object], str], at_most: float) -> ProviderError:
    """The meaning of an exception of the SDK. `at_most`: USD, if the service may have billed the call."""
    import openai

    if isinstance(fault := error if isinstance(error, Fault) else error.__cause__, Fault):
        return responses.of_fault(fault, clean, at_most)
    if isinstance(error, openai.APIStatusError):
        return error_of(complaint_of(error), clean, at_most)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        what = f"{type(cause).__name__}: {clean(cause)}" if cause is not None else clean(error)
        return ProviderError("unavailable", f"no answer: {what}", cost=at_most)
    return ProviderError(
        "malformed", f"the answer cannot be read: {type(error).__name__}: {clean(error)}", cost=at_most
    )


def complaint_of(error: Any) -> Complaint:
    """The SDK's APIStatusError."""
    headers = error.response.headers
    wait = responses.seconds_of(headers.get("retry-after"), headers.get("retry-after-ms"))
    said = error.body  # the SDK reads messages only in OpenAI's own form; gateways have others
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail") or said
    param = error.param if isinstance(error.param, str) else ""
    return Complaint(error.status_code, str(error.code or error.type or ""), param, str(said or error.message), wait)


_REFUSES = re.compile(
    r"unsupported|not (be )?support|unknown|unrecogni[sz]ed|unexpected|extra|"
    r"not (be )?(enabled|permitted|allowed|accepted|recogni[sz]ed)|"
    r"forbidden|additional propert|does not (accept|take|exist|have|know)|"
    r"invalid (parameter|argument|field|param)|no such|"
    r"cannot (be )?(use|set|specif)|only the default|only works|deprecated|"
    r"not (a )?valid|not available|use '?max_|不支持|不允许|未知",
    re.IGNORECASE,
)
_REFUSING_CODES = ("unsupported_parameter", "unknown_parameter", "unsupported_value", "extra_forbidden")


def refused_word(error: Complaint, sent: Collection[str], may_go: Collection[str] = MAY_GO) -> str:
    """The dispensable parameter that a complaint is about; "" for none."""
    said = error.message
    if error.code not in _REFUSING_CODES and not _REFUSES.search(said):
        return ""
    about = f"{error.param} {said}"
    named = [
        word for word in may_go if word in sent and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", about, re.IGNORECASE)
    ]
    return error.param if error.param in named else named[0] if named else ""


def tokens(usage: Any) -> dict[str, int]:
    """The tokens that were used, as far as the `usage` of an answer says; it may have the SDK's types or plain ones."""

    def of(usage: Any, name: str) -> Any:
        return usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)

    def count(name: str, usage: Any = usage) -> int:
        value = of(usage, name)
        is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12
        return int(value) if is_count else 0

    if taken := count("prompt_tokens"):
        return {"text_in": taken, "text_out": count("completion_tokens")}
    taken, made = count("input_tokens"), count("output_tokens")
    if not taken + made:
        return {}
    pictures_in = count("image_tokens", of(usage, "input_tokens_details"))
    words_out = count("text_tokens", of(usage, "output_tokens_details"))
    found = {"text_in": max(0, taken - pictures_in), "image_in": pictures_in, "text_out": words_out}
    return {word: value for word, value in (found | {"image_out": max(0, made - words_out)}).items() if value}
