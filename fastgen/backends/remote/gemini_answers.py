"""What comes back from Gemini's SDK: blocks and refusals (all with status 200), exceptions, and token counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastgen.backends.remote import responses
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.responses import ProviderError

Clean = Callable[[object], str]
"""A text without the key, shortened."""
REFUSED = {
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
    "MODEL_ARMOR",
}
_DELAY = re.compile(r"\d+(\.\d+)?s")


def finish(answer: Any) -> str:
    reason = answer.candidates[0].finish_reason
    return str(getattr(reason, "value", reason) or "")


def parts_of(answer: Any, thoughts: bool = False) -> list:
    """The parts that are not thoughts, or those that are."""
    content = answer.candidates[0].content
    return [part for part in (content.parts if content else None) or () if bool(part.thought) == thoughts]


def check(answer: Any, clean: Clean) -> None:
    """Raises ProviderError if the answer says that it is not one."""
    blocked = getattr(getattr(answer, "prompt_feedback", None), "block_reason", None)
    if blocked:
        raise ProviderError("refused", f"the prompt was blocked: {getattr(blocked, 'value', blocked)}")
    if not getattr(answer, "candidates", None):
        raise ProviderError("malformed", "the answer has no candidates")
    reason = finish(answer)
    if reason in REFUSED:
        words = " ".join(part.text for part in parts_of(answer) if part.text)
        said = words or answer.candidates[0].finish_message or ""
        raise ProviderError("refused", f"{reason}: {clean(said)}" if said else f"the answer was withheld: {reason}")
    if "MALFORMED" in reason or "TOOL_CALL" in reason or reason == "MISSING_THOUGHT_SIGNATURE":
        raise ProviderError("malformed", f"the answer broke off: {reason}")
    if reason == "NO_IMAGE":  # the model made none, which says nothing about the prompt
        words = " ".join(part.text for part in parts_of(answer) if part.text)
        raise ProviderError("empty", f"the model made no image{': ' + clean(words) if words.strip() else ''}")
    if reason in ("OTHER", "IMAGE_OTHER"):
        raise ProviderError("empty", f"the service gives no answer and no reason: {reason}")


def provider_error(error: Exception, clean: Clean, at_most: float) -> ProviderError:
    """The meaning of an exception of the SDK. `at_most`: USD, if the service may have billed the call."""
    from google.genai import errors

    if isinstance(error, Fault):
        return responses.of_fault(error, clean, at_most)
    if isinstance(error, errors.APIError):
        return _complaint(error, clean, at_most)
    name = type(error).__name__
    if isinstance(error, ValueError):
        return ProviderError("malformed", f"the answer cannot be read: {name}: {clean(error)}", cost=at_most)
    if any(kind.__name__ == "RequestError" for kind in type(error).__mro__):
        return ProviderError("unavailable", f"no answer: {name}: {clean(error)}", cost=at_most)
    return ProviderError("internal", f"{name}: {clean(error)}", cost=at_most)


def _complaint(error: Any, clean: Clean, at_most: float) -> ProviderError:
    status, message = str(error.status or ""), clean(error.message or error)
    body = error.details.get("error") if isinstance(error.details, dict) else None
    details = body.get("details") if isinstance(body, dict) else None
    details = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    said = f"{error.code} {status}: {message}"
    delay = next((one["retryDelay"][:-1] for one in details if _DELAY.fullmatch(str(one.get("retryDelay")))), None)
    wait = responses.seconds_of(delay or (getattr(error.response, "headers", None) or {}).get("retry-after"))
    if error.code == 429:
        # Its words for "per minute" are those that OpenAI uses for "for good", so only the details tell them apart.
        quotas = [one for part in details for one in part.get("violations") or () if isinstance(one, dict)]
        over = any("PerDay" in str(q.get("quotaId")) or str(q.get("quotaValue")) == "0" for q in quotas)
        over = over or "perday" in message.lower() or bool(re.search(r"\blimit: 0\b", str(error.message)))
        if over or wait > responses.PATIENCE_S:
            return ProviderError("quota", said)
        return ProviderError("rate_limited", said, retry_after=wait)
    if any(one.get("reason") == "API_KEY_INVALID" for one in details) or "API key not valid" in message:
        return ProviderError("unauthorized", said)
    if error.code == 400 and status == "FAILED_PRECONDITION":  # billing is off, or the region is not served
        return ProviderError("unauthorized", said)
    if not isinstance(error.code, int) or error.code < 300:
        return ProviderError("malformed", said)
    return responses.of_status(error.code, status, message, wait, at_most)


def tokens(usage: Any, drawing: bool) -> dict[str, int]:
    """The tokens that were used, as far as the answer says. For an image model, tokens that are not itemised count as
    the image."""
    if usage is None:
        return {}

    def pictured(details: Any) -> int:
        return sum(
            one.token_count or 0 for one in details or () if getattr(one.modality, "value", one.modality) == "IMAGE"
        )

    asked, made = usage.prompt_token_count or 0, usage.candidates_token_count or 0
    pictures_in, pictures_out = pictured(usage.prompt_tokens_details), pictured(usage.candidates_tokens_details)
    if drawing and not usage.candidates_tokens_details:
        pictures_out = made
    found = {
        "text_in": asked - pictures_in,
        "image_in": pictures_in,
        "image_out": pictures_out,
        "text_out": made - pictures_out + (usage.thoughts_token_count or 0),
    }
    return {word: tokens for word, tokens in found.items() if tokens > 0}
