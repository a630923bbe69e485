"""What comes back from OpenAI's SDK: its exceptions, the words that a server refuses, the tokens that it counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastgen.backends.remote import responses
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.responses import ProviderError

LIMITS = ("max_tokens", "max_completion_tokens")
"""Two words for one thing; which one a server knows depends on it."""
MAY_GO = (*LIMITS, "temperature", "seed", "reasoning_effort")
"""What a caption can do without, where the model knows no such word."""
FIELDS = ("prompt", "images", "mask", "size", "quality", "background", "n")
"""Of a row, by the names that they have here too."""


def provider_error(error: Exception, clean: Callable[[object], str], at_most: float) -> ProviderError:
    """What an exception of the SDK means. `at_most`: USD, if the service may have billed it."""
    import openai

    if isinstance(fault := error if isinstance(error, Fault) else error.__cause__, Fault):
        return responses.of_fault(fault, clean, at_most)
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        wait = responses.seconds_of(headers.get("retry-after"), headers.get("retry-after-ms"))
        said = error.body.get("message") if isinstance(error.body, dict) else None
        code = error.code or error.type
        code = "" if code is None or str(code) == str(error.status_code) else str(code)
        found = responses.of_status(error.status_code, code, clean(said or error.message), wait, at_most)
        if found.kind == "input" and error.param == "model":  # as true for every other row
            return ProviderError("gone", str(found))
        if found.kind == "input" and isinstance(error.param, str):
            named = re.sub(r"^image\b.*", "images", error.param)
            found.field = named if named in FIELDS else ""
        return found
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        what = f"{type(cause).__name__}: {clean(cause)}" if cause is not None else clean(error)
        return ProviderError("unavailable", f"no answer: {what}", cost=at_most)
    return ProviderError(
        "malformed", f"the answer cannot be read: {type(error).__name__}: {clean(error)}", cost=at_most
    )


def refused_word(error: Any, sent: dict[str, Any]) -> str:
    """Which of the words that can be done without a 400 is about; "" for none."""
    said = str(error.message)
    if error.code not in ("unsupported_parameter", "unknown_parameter", "unsupported_value") and not re.search(
        r"unsupported|not support|unknown|unrecognized|unexpected|extra (inputs|fields)|not permitted",
        said,
        re.IGNORECASE,
    ):
        return ""
    named = [word for word in MAY_GO if word in sent and re.search(rf"(?<!\w){word}(?!\w)", f"{error.param} {said}")]
    return error.param if error.param in named else named[0] if named else ""


def tokens(answer: Any) -> dict[str, int]:
    """What was used, as far as the answer says."""
    usage = getattr(answer, "usage", None)

    def count(name: str, of: Any = usage) -> int:
        value = getattr(of, name, None)
        return value if isinstance(value, int) and value > 0 else 0

    if taken := count("prompt_tokens"):
        return {"text_in": taken, "text_out": count("completion_tokens")}
    taken, made = count("input_tokens"), count("output_tokens")
    if not taken + made:
        return {}
    pictures_in = count("image_tokens", getattr(usage, "input_tokens_details", None))
    words_out = count("text_tokens", getattr(usage, "output_tokens_details", None))
    found = {"text_in": max(0, taken - pictures_in), "image_in": pictures_in, "text_out": words_out}
    return {word: value for word, value in (found | {"image_out": max(0, made - words_out)}).items() if value}
