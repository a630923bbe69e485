"""Errors that come with status 200: gateways answer with an `error` object, a web page or a stream of one event where
the answer should be. Finds the status that such an answer should have had. Does not know what a status means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from fastgen.backends.remote.http_client import Answer

MOST_BYTES = 1 << 17
"""A longer answer is no error."""
NO_ANSWER, NOT_AN_API = 502, 404
"""For what is no answer and says no status: of a service that has answered before, and of one that never has."""
_RESULTS = ("choices", "data", "candidates", "output", "images")
_WHY = ("error", "errors", "detail", "base_resp", "error_msg", "error_message", "errmsg")
"""Fields that say why there is no answer."""
_CODES = ("code", "status", "status_code", "http_code", "error_code", "errcode")
_STATUS = re.compile(r"(?<![\d.])([45]\d\d)(?![\d.])")
_TITLE = re.compile(rb"<(title|h1|h2|center)[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
_WORDS = (
    (429, r"rate.?limit|too many requests|throttl|slow down|\b[rt]p[md]\b|concurren|限流|请求过于频繁"),
    (402, r"quota|insufficient|balance|billing|credits?\b|payment|arrears|余额|欠费"),
    (401, r"api.?key|unauthori[sz]ed|authenticat|credentials|invalid token"),
    (403, r"forbidden|permission|not allowed to"),
    (404, r"(model|endpoint|deployment|route).{0,60}(not (be )?found|does not exist|not exist|unknown)|not.found"),
    (400, r"moderation|content.?(policy|filter)|safety|sensitive|inappropriate|data_inspection"),
    (400, r"bad request|invalid|unsupported|not supported|must be|required|malformed|context.{0,9}length"),
    (504, r"time.?d?.?out|deadline"),
    (503, r"overload|unavailable|busy|capacity|try again|maintenance"),
)
_STATUS_BY_WORDS = tuple((status, re.compile(words, re.IGNORECASE)) for status, words in _WORDS)


def unmasked(answer: Answer, worked: bool) -> Answer:
    """The answer with the status of the error in it, if it is one; else as it is.

    Args:
        worked: whether the service has given a good answer before. A web page from one that never has means that its
            address is wrong.
    """
    data = answer.data
    if answer.status >= 300 or len(data) > MOST_BYTES:
        return answer
    beginning = data[:512].lstrip()
    if beginning.startswith(b"<"):
        return replace(answer, status=_of_page(data) or (NO_ANSWER if worked else NOT_AN_API))
    if beginning.startswith((b"data:", b"event:", b":")):
        found = _of_events(data)
        return replace(answer, status=found[0], data=found[1]) if found else answer
    if not beginning.startswith(b"{"):
        return answer
    status = status_in(_decoded(data))
    return replace(answer, status=status) if status else answer


def status_in(body: Any) -> int:
    """The status of the error that a decoded answer is; 0 if it is none."""
    if not isinstance(body, dict):
        return 0
    if _has_result(body):
        return 0
    error = _error_of_choice(body) or next((body[name] for name in _WHY if body.get(name)), None)
    says_so = body.get("object") == "error" or body.get("success") is False
    if error is None and not says_so and not ("message" in body and _own_code([body])):
        return 0
    told = [part for part in (error, *(error if isinstance(error, list) else ())) if isinstance(part, dict)]
    return _own_code([*told, body]) or _by_words(f"{error} {body.get('message', '')} {body.get('type', '')}") or 500


def message_in(body: dict) -> Any:
    """What a body without `error` object says, and the object that says it."""
    return _error_of_choice(body) or next((body[name] for name in _WHY if body.get(name)), body)


def _has_result(body: dict) -> bool:
    for name in _RESULTS:
        value = body.get(name)
        if name == "choices" and isinstance(value, list):
            if any(_says_something(choice) for choice in value) or (value and not body.get("error")):
                return not _error_of_choice(body)
        elif value:
            return True
    return bool(body.get("promptFeedback") or body.get("prompt_feedback"))


def _says_something(choice: Any) -> bool:
    said = (choice.get("message") or choice.get("delta")) if isinstance(choice, dict) else None
    if not isinstance(said, dict):
        return False
    return any(said.get(name) for name in ("content", "refusal", "images", "reasoning_content", "reasoning"))


def _error_of_choice(body: dict) -> Any:
    """The `error` in the place of a choice, as OpenRouter has it."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("error") if isinstance(first, dict) and not _says_something(first) else None


def _own_code(parts: Iterable[dict]) -> int:
    """The HTTP status that an error names."""
    for part in parts:
        for name in _CODES:
            value = part.get(name)
            text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
            if re.fullmatch(r"[45]\d\d", text.strip()):
                return int(text)
    return 0


def _by_words(text: str) -> int:
    if found := re.search(r"\b(?:status|code|error|http)\D{0,12}([45]\d\d)\b", text, re.IGNORECASE):
        return int(found[1])
    return next((status for status, words in _STATUS_BY_WORDS if words.search(text)), 0)


def _of_page(data: bytes) -> int:
    """The status that the title of a web page names, or its words."""
    text = b" ".join(words for _, words in _TITLE.findall(data)) or re.sub(rb"<[^>]*>", b" ", data)[:400]
    told = text.decode("utf-8", "replace")
    found = _STATUS.search(told)
    return int(found[1]) if found else _by_words(told)


def _of_events(data: bytes) -> tuple[int, bytes] | None:
    """The status and the body of a stream that has an error and no answer."""
    bodies = [_decoded(line[5:].strip()) for line in data.split(b"\n") if line.startswith(b"data:")]
    said = [body for body in bodies if isinstance(body, dict)]
    if any(_has_result(body) for body in said):
        return None
    for body in said:
        if status := status_in(body):
            return status, msgspec.json.encode(body)
    return None


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
