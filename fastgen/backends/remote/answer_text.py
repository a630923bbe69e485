"""The answer to a question about images -> its text, or why there is none: it was cut, is empty, is only reasoning, is
a refusal or an error text. Does not know how it was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from fastgen.backends.remote import markup, no_answers
from fastgen.backends.remote.responses import ProviderError, shorten
from fastgen.types import Kind

ENDS_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
ENDS_WITHHELD = ("content_filter", "safety", "refusal", "sensitive")
ENDS_BROKEN = ("abort", "error", "insufficient_system_resource", "network_error")

_NO_REFUSAL = re.compile(
    r"\W*(?:(?:sure|certainly|of course|okay|ok|absolutely|great|here(?:'s| is| are| you)|"
    r"i(?:'ll| will|'m going to| am going to|'ve| have)|"
    r"(?:creating|generating|drawing|rendering)|let me|a |an |the |this |step |好的|当然|はい|네|"
    r"natürlich|bien sûr|claro|конечно))",
    re.IGNORECASE,
)
"""How a model begins that announces or describes an image and makes none; another try may give it."""


class NotJson(ProviderError):
    """An answer to a request with a schema that is no JSON."""


@dataclass(frozen=True)
class Text:
    """An answer, and what came with it."""

    text: str
    reasoning: str = ""
    removed: tuple[str, ...] = ()


def text_of(
    content: object,
    finish_reason: str | None,
    refusal: str | None,
    schema: str = "",
    reasoning: str = "",
    accept_refusals: bool = False,
) -> Text:
    """The text of an answer; under a schema, its JSON.

    Args:
        content: the text, or what was in its place.
        reasoning: what the model thought, from a field of its own.
        accept_refusals: whether a text that refuses is taken as any other.

    Raises:
        ProviderError: refused, truncated, empty, malformed, transient, unsupported. Its `answer` has what came.
    """
    said = content if isinstance(content, str) else "" if content is None else str(content)
    try:
        return _text(content, str(finish_reason or "").lower(), refusal, schema, reasoning, accept_refusals)
    except ProviderError as error:
        error.answer = printable(said or refusal or "") or printable(reasoning)
        raise


def _text(
    content: object, reason: str, refusal: str | None, schema: str, reasoning: str, accept_refusals: bool
) -> Text:
    if refusal and accept_refusals and not schema and not (isinstance(content, str) and content.strip()):
        content, refusal = refusal, None
    if refusal and not accept_refusals:
        raise ProviderError("refused", f"the model declined: {shorten(refusal)}")
    if reason in ENDS_WITHHELD:
        raise ProviderError("refused", "the service's filter withheld the answer")
    if reason in ENDS_CUT:
        raise ProviderError("truncated", "the answer was cut at --max-tokens; raise it")
    if reason == "repetition":
        raise ProviderError("truncated", "the answer was cut where the model began to repeat itself")
    if reason in ENDS_BROKEN:  # the text up to then may come with it
        raise ProviderError("transient", f"the answer broke off: {reason}")
    if content is None or (isinstance(content, str) and not content.strip()):
        if reasoning:
            raise ProviderError(
                "empty", "the model only thought and gave no answer; raise --max-tokens, or use --thinking off"
            )
        raise ProviderError("empty", "the answer has no text")
    if not isinstance(content, str):
        # Another try would give the same, and this one is paid for.
        raise ProviderError("unsupported", f"the answer's content is {type(content).__name__}, not text")
    found = markup.split(content)
    reasoning = printable("\n".join(filter(None, (reasoning.strip(), found.reasoning))))
    if found.is_cut:
        raise ProviderError(
            "truncated", "the answer ends inside the model's reasoning; raise --max-tokens, or use --thinking off"
        )
    if not found.text:
        raise ProviderError("empty", "the answer is only markup or reasoning, and no text")
    text = _under(schema, found, accept_refusals) if schema else found.text
    if not _is_unicode(text):
        raise ProviderError("malformed", f"the answer contains half of a character: {shorten(text)}")
    if not schema:
        _refuse(text, accept_refusals)
    return Text(text, reasoning, tuple(map(printable, found.removed)))


def _refuse(text: str, accept_refusals: bool) -> None:
    """Raise ProviderError if a text is no answer."""
    if accept_refusals:
        return
    match no_answers.kind_of(text):
        case "refusal":
            raise ProviderError("refused", f"the model declined: {shorten(text)}")
        case "error":
            raise ProviderError("transient", f"the answer is the text of an error: {shorten(text)}")
        case "nothing":
            raise ProviderError("empty", f"the answer says nothing: {shorten(text)}")


def _under(schema: str, found: markup.Answer, accept_refusals: bool) -> str:
    import jsonschema

    value: object = found.text
    text, wrong, error = found.text, "", ProviderError
    try:
        value = markup.json_in(found.text, found.removed)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        jsonschema.validate(value, json.loads(schema))
    except (ValueError, RecursionError):
        wrong, error = f"is not JSON: {shorten(found.text)}", NotJson
    except jsonschema.ValidationError as problem:
        wrong = f"does not fit --schema: {shorten(problem.message)}"
    # A refusal may come as an object, if no other form is allowed.
    longest = max(no_answers.strings(value), key=len, default="")
    if not accept_refusals and no_answers.kind_of(longest) == "refusal":
        raise ProviderError("refused", f"the model declined: {shorten(longest)}")
    if wrong:
        raise error("malformed", f"the answer {wrong}")
    return text


def words_instead(words: str, clean: Callable[[object], str]) -> ProviderError:
    """Why a model answered with words instead of an image: it declines, or it only talks about it."""
    kind: Kind = "empty" if _NO_REFUSAL.match(words) and no_answers.kind_of(words) != "refusal" else "refused"
    error = ProviderError(kind, f"the model answered with words instead of an image: {clean(words)}")
    error.answer = printable(words)
    return error


def printable(text: str) -> str:
    """A text that every file accepts: without halves of characters."""
    return text.encode("utf-8", "replace").decode()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
