"""Whether a text that came as an answer is none: a refusal, the text of an error, the call of a tool, or a word for
nothing.

Forms come first (web pages, tracebacks, JSON, repetitions), then words (text_classifier.py). Only what is none as a
whole counts: a description of a screenshot with an error, a postcard that says sorry, and a caption with one sentence
of caution are answers. Fields, codes and finish reasons come before all of it, and are read elsewhere.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

from fastgen.backends.remote import text_classifier

Kind = Literal["", "refusal", "error", "nothing"]
MOST_CHARACTERS = 1500
"""Refusals and messages are short; of a longer text only the form is looked at."""
LEAST_ODDS, LONG, MORE_IF_LONG = 0.4, 150, 0.006
"""Log-odds above which a text is none, and how much more for each character beyond LONG: the more a refusal says, the
clearer it is. A paid answer should rather be kept than lost."""
_ONE_WORD = re.compile(
    r"(?:sorry|apologies|timeout|forbidden|unauthori[sz]ed|blocked|denied|refused|rejected|censored|redacted|withheld|"
    r"unavailable|overloaded|fehler|gesperrt|blockiert|abgelehnt|erreur|bloqué|refusé|indisponible|bloqueado|rechazado|"
    r"denegado|ошибка|заблокировано|отказано|недоступно|таймаут|désolée?|пожалуйста|извините|простите)\W*"
)
"""The only single words that are no answers. Which word answers a question can be any other."""
LEAST_DESCRIPTION, SURELY_AN_ANSWER = 40, -1.0
"""Characters and log-odds of what is a description after a first sentence that is none."""
_SENTENCE_END = re.compile(
    r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。!?])(?=\S)|\n+|, (?:but|however|although) (?=(?:the|it|there|this|here|an?|in) )"
)
_NOTHING = re.compile(
    r"(?:null|none|nil|n/?a|nan|undefined|\[?object object\]?|unknown error|error|failed|\{\s*\}|\[\s*\]|\"\"|''|"
    r"-+|\.{2,}|…|\?+|_+|!{3,}|no (?:output|response|answer|content|caption|description)"
    r"(?: (?:available|provided|given))?|"
    r"no response from (?:the )?model|none (?:provided|given|available)|empty(?: response)?|"
    r"<(?:caption|description|answer|text|image|none|empty)>|"
    r"\[(?:caption|description|image|answer|text|insert [^\]]*)\]|无|空|暂无|なし|없음|нет ответа|"
    r"\(?(?:empty|blank|no text)\)?)\.?"
)
_REPEATED = re.compile(r"(\S)\1{19,}|(\S{1,12}?)\2{15,}|(?:(\S{1,12}) )(?:\3 ){15,}")
_PAGE = re.compile(r"<(?:!doctype|html|head|body|title|center|h1|\?xml|error|errors|response)\b", re.IGNORECASE)
_TRACEBACK = re.compile(r"traceback \(most recent call last\):?\s|(?:error|exception)[^\n]{0,200}\n\s+at [\w.$<>]+\(")
_CALL = re.compile(
    r"<\W?(?:tool|function|invoke)[\w▁ -]*\b|\[tool_?calls?\]|<\|python_tag\|>|<\|?tool[▁_]call"
    r"|(?:thought:.{0,400}?\n)?action: *\w+\s*\n+ *action input:",
    re.IGNORECASE | re.DOTALL,
)
"""How models' templates write the call of a tool."""
_CALL_KEYS = {"name", "type", "id", "index", "tool", "tool_name", "function", "action", "recipient_name"}
_ARGUMENT_KEYS = {"arguments", "parameters", "args", "kwargs", "tool_input", "action_input", "input", "tool_calls"}
_WRONG_KEYS = {
    *("error", "errors", "error_message", "error_msg", "errormessage", "error_code", "errorcode", "errmsg", "errcode"),
    *("detail", "traceback", "exception", "stack", "fault"),
}
_ERROR_KEYS = {
    *("message", "msg", "code", "status", "status_code", "statuscode", "type", "param", "request_id", "requestid"),
    *("success", "ok", "object", "path", "timestamp", "data", "result", "reason", "title", "instance"),
    *_WRONG_KEYS,
}


def kind_of(text: str) -> Kind:
    """What a text is that came as an answer; "" for an answer."""
    if kind := by_form(text):
        return kind
    value = _json_in(text)
    said = plain(text if value is None else max(strings(value), key=len, default=""))
    if len(said) > MOST_CHARACTERS:
        return ""
    if _is_one_word(said) and not _ONE_WORD.fullmatch(said):
        return ""
    refusal, error = text_classifier.log_odds(said)
    least = LEAST_ODDS + MORE_IF_LONG * max(0, min(len(said), text_classifier.MOST_CHARACTERS) - LONG)
    if max(refusal, error) < least or _goes_on_as_an_answer(said):
        return ""
    return "refusal" if refusal >= error else "error"


def _is_one_word(said: str) -> bool:
    """Whether a text is one word, in a language with spaces between them."""
    return re.fullmatch(r"[^\W\d_]+(?:['\-][^\W\d_]+)?\W*", said) is not None and said < "\u2e80"


def _goes_on_as_an_answer(said: str) -> bool:
    """Whether a text begins with a caution and then describes."""
    rest = _SENTENCE_END.split(said, maxsplit=1)[1:]
    return len("".join(rest)) >= LEAST_DESCRIPTION and max(text_classifier.log_odds(rest[0])) < SURELY_AN_ANSWER


def by_form(text: str) -> Kind:
    """The same as far as the form of a text says it, whatever its words are."""
    said = plain(text)
    if not said or _NOTHING.fullmatch(said):
        return "nothing"
    value = _json_in(text)
    if _PAGE.match(text.lstrip()) or _TRACEBACK.match(said) or _is_error_object(value, text):
        return "error"
    if _CALL.match(text.lstrip()) or _is_call(value):
        return "nothing"
    return "nothing" if len(said) > 40 and _is_repeated(said) else ""


def plain(text: str) -> str:
    """The text in lower case, without emphasis, quotes around it, and marks at its beginning."""
    text = unicodedata.normalize("NFKC", text[: 4 * MOST_CHARACTERS]).replace("’", "'").replace("‘", "'").lower()
    text = text.replace("“", '"').replace("”", '"')
    text = re.sub(r"[*`]+|^#+ |^> |__+", "", text, flags=re.MULTILINE).strip()
    text = re.sub(r"^[^\w\"'<\[{(«「『„.…\-?!_]+", "", text)
    for opening, closing in ('""', "''", "«»", "「」", "『』", '„"'):
        inside = text[1:-1].strip()
        if len(text) > 2 and text[0] == opening and text[-1] == closing and not {opening, closing} & set(inside):
            text = inside
    if text.startswith("[") and text.endswith("]") and not text.startswith(("[object", "[caption", "[insert")):
        inside = text[1:-1].strip()
        text = inside if re.match(r"[^\W\d]", inside) and "," not in inside else text
    return re.sub(r"^(?:assistant|caption|description|answer|response|output|model|ai)\s*: *", "", text)


def _is_repeated(said: str) -> bool:
    found = _REPEATED.search(said)
    return found is not None and len(found[0]) > 0.8 * len(said)


def _json_in(text: str) -> Any:
    """The JSON object or list that a text is; None if it is none."""
    text = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_error_object(value: Any, text: str) -> bool:
    """Whether a text is the JSON of an error, or begins as one that was cut or printed by Python."""
    if value is None:
        begins = r"\s*\{\s*['\"](error|errors|detail|error_message|error_code)['\"]\s*:"
        return re.match(begins, text, re.IGNORECASE) is not None
    if not isinstance(value, dict) or not value:
        return False
    wrong = any(value[key] not in (None, "", [], False, 0) for key in value if str(key).lower() in _WRONG_KEYS)
    failed = value.get("success") is False or value.get("ok") is False or value.get("status") in ("error", "failed")
    failed = failed or (bool(value.get("code")) and isinstance(value.get("message") or value.get("msg"), str))
    return _has_only(value, _ERROR_KEYS) and (wrong or failed)


def strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def _has_only(value: dict[str, Any], keys: set[str]) -> bool:
    return {str(key).lower() for key in value} <= keys


def _is_call(value: Any) -> bool:
    """Whether a JSON value is the call of a tool."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_call, value))
    if not isinstance(value, dict):
        return False
    keys = {str(key).lower() for key in value}
    return (
        bool(keys & _ARGUMENT_KEYS)
        and bool(keys & _CALL_KEYS or keys == {"tool_calls"})
        and (keys <= _CALL_KEYS | _ARGUMENT_KEYS)
    )
