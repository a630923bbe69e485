"""One chat completion in OpenAI's format: sends the parameters of a request and returns a Reply, streamed or not.

It does not use the vendor's SDK, whose own work would be most of the time at hundreds of small answers per second.
Answers of servers that only resemble OpenAI's are read as far as they make sense. Does not know tasks or retries.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fastgen import __version__
from fastgen.backends.remote import responses
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Answer, Client
from fastgen.backends.remote.openai_answers import Complaint, error_of
from fastgen.backends.remote.responses import ProviderError, shorten
from fastgen.backends.remote.unmasked import message_in, unmasked

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
STREAM = "text/event-stream"
ABOUT_PARAMETERS = (400, 422)
"""Statuses of a complaint about what a request says."""
KEPT = 20_000
"""Bytes that are kept of an answer that is none."""


@dataclass
class Reply:
    """The text of an answer, and how it ended."""

    content: Any = None
    """A text, or whatever was in its place."""
    pictures: list[str] = field(default_factory=list)
    """Addresses of images that came next to the text."""
    refusal: str | None = None
    reasoning: str = ""
    """What the model thought, where the server tells that from its answer."""
    finish_reason: str | None = None
    """ also "error" if a stream broke off."""
    usage: dict[str, Any] = field(default_factory=dict)
    nothing: str = ""
    """The beginning of the answer, if it is not a chat completion."""


class Chat:
    """Args:
    key: of the service, "" for none.
    clean: removes it from messages.
    on_fault: called if there is no usable answer; may raise ProviderError.
    """

    def __init__(
        self, http: Client, key: str, clean: Callable[[object], str], on_fault: Callable[[], None] = lambda: None
    ):
        self.http, self._clean, self._on_fault = http, clean, on_fault
        self._worked = False
        """Whether there was a good answer."""
        self.url = f"{http.base_url}/chat/completions"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": f"application/json, {STREAM}",
            "Accept-Encoding": "gzip",
            "User-Agent": f"fastgen/{__version__}",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }

    def send(self, words: dict[str, Any], at_most: float) -> Reply | Complaint:
        """The answer to one request, or the server's complaint about its parameters (status 400 or 422).

        Args:
            words: the parameters; a `msgspec.Raw` in them is already JSON.
            at_most: USD that it may have cost, if that is unknown.
        Raises:
            ProviderError: there is no answer, or it cannot be read.
        """
        try:
            answer = self.http.send("POST", self.url, self._headers, _encode(words))
        except Fault as fault:
            self._on_fault()
            raise responses.of_fault(fault, self._clean, at_most) from None
        came_as, answer = answer.status, unmasked(answer, self._worked)
        if answer.status >= 300:
            complaint = complaint_of(answer, came_as)
            if answer.status in ABOUT_PARAMETERS:
                return complaint
            raise error_of(complaint, self._clean, at_most)
        try:
            reply = read(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            beginning = answer.data[:KEPT]
            what = f"cannot be read: {type(error).__name__}" if b"{" in beginning[:16] else "is not a chat completion"
            found = ProviderError("malformed", f"the answer {what}: {self._clean(beginning)}", cost=at_most)
            found.answer = shorten(beginning.decode("utf-8", "replace"), KEPT)
            raise found from None
        self._worked = self._worked or not reply.nothing
        return reply

    def no_chat(self, reply: Reply) -> ProviderError:
        """Of a reply that is nothing."""
        error = ProviderError("malformed", f"the answer is not a chat completion: {self._clean(reply.nothing)}")
        error.answer = shorten(reply.nothing, KEPT)
        return error


def read(answer: Answer) -> Reply:
    """The content of a good answer. Raises DecodeError, UnicodeDecodeError."""
    streamed = STREAM in answer.headers.get("content-type", "")
    if streamed or answer.data[:16].lstrip().startswith((b"data:", b"event:", b": ")):
        parts, ended = _events(answer.data)
    else:
        parts, ended = [_decode(answer.data.removeprefix(BOM_UTF8))], True
    reply = _put_together(parts)
    if reply is None:
        usage = next((part["usage"] for part in parts if isinstance(part, dict) and "usage" in part), None)
        beginning = answer.data[:KEPT].decode("utf-8", "replace")
        return Reply(usage=usage if isinstance(usage, dict) else {}, nothing=beginning)
    broke_off = any(isinstance(part, dict) and part.get("error") for part in parts)
    if broke_off or (not ended and reply.finish_reason is None):
        reply.finish_reason = "error"
    return reply


def complaint_of(answer: Answer, came_as: int = 0) -> Complaint:
    """An answer of status 300 and above. `came_as`: the status that it came with, if that was another one."""
    wait = responses.seconds_of(answer.headers.get("retry-after"), answer.headers.get("retry-after-ms"))
    said = answer.data.decode("utf-8", "replace")
    if said.lstrip().startswith("<"):
        said = f"a web page: {' '.join(re.sub(r'<(style|script).*?</.1>|<[^>]*>', ' ', said, flags=re.DOTALL).split())}"
    note = f" (with status {came_as})" if came_as and came_as != answer.status else ""
    try:
        body = _decode(answer.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    error = message_in(body) if isinstance(body, dict) else None
    if isinstance(error, list) and error and isinstance(error[0], dict):
        error = error[0]
    if not isinstance(error, dict):
        return Complaint(answer.status, "", "", f"{error or said}{note}", wait)
    code = error.get("code") or error.get("type")
    message = error.get("message") or error.get("detail") or error.get("status_msg") or error.get("error_msg") or said
    return Complaint(answer.status, str(code or ""), str(error.get("param") or ""), f"{message}{note}", wait)


def _events(data: bytes) -> tuple[list[Any], bool]:
    """The JSON of each event of a stream, and whether the stream says that it ends."""
    found, ended = [], False
    for line in data.split(b"\n"):
        if line.startswith(b"data:") and (value := line[5:].strip()):
            ended = value == b"[DONE]"
            if not ended:
                found.append(_decode(value))
    return found, ended


def _put_together(parts: list[Any]) -> Reply | None:
    """A Reply from one complete answer, or from the pieces of a stream; None if they contain none."""
    reply, texts, any_choice = Reply(), [], False
    thoughts: list[str] = []
    for part in parts:
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("usage"), dict):
            reply.usage = part["usage"]
        choices = part.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            continue
        said = choice.get("message") or choice.get("delta")
        if said is None and isinstance(choice.get("text"), str):  # the form of completions, which are no chats
            said = {"content": choice["text"]}
        any_choice = any_choice or isinstance(said, dict)
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
        if isinstance(said, dict):
            reply.refusal = said.get("refusal") or reply.refusal
            reply.pictures += _addresses(said.get("images"))
            thoughts.append(_thought(said))
            if said.get("content") is not None:
                texts.append(said["content"])
    if not any_choice:
        return None
    reply.reasoning = "".join(thoughts)
    if texts and all(isinstance(text, str) for text in texts):
        reply.content = "".join(texts)
    elif texts:
        _read_parts(texts, reply)
    return reply


def _thought(said: dict) -> str:
    """The reasoning that a message has in a field of its own."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(said.get(name), str) and said[name]:
            return said[name]
    details = said.get("reasoning_details")
    return "".join(_text_in(part) for part in details if isinstance(part, dict)) if isinstance(details, list) else ""


def _text_in(part: dict) -> str:
    """The text of a part, whatever it is called."""
    for name in ("text", "thinking", "reasoning", "summary", "content"):
        value = part.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return "".join(_text_in(one) for one in value if isinstance(one, dict))
    return ""


def _read_parts(texts: list[Any], reply: Reply) -> None:
    """Take text, image addresses, reasoning and refusals from contents that are lists of parts, and nothing from parts
    of other kinds (references, calls of tools). A content that has none of it stays as it is."""
    words: list[str] = []
    is_read = False
    for text in texts:
        text = text["parts"] if isinstance(text, dict) and isinstance(text.get("parts"), list) else text
        for part in text if isinstance(text, list) else [text]:
            kind = str(part.get("type") or "") if isinstance(part, dict) else ""
            if isinstance(part, str):
                words.append(part)
            elif re.search(r"think|thought|reason", kind):
                reply.reasoning += _text_in(part)
            elif kind == "refusal":
                reply.refusal = str(part.get("refusal") or _text_in(part)) or reply.refusal
            elif isinstance(part, dict) and isinstance(said := _value(part.get("text")), str):
                words.append(said)
            elif found := _addresses([part]):
                reply.pictures += found
            else:
                continue
            is_read = True
    reply.content = "".join(words) or None if is_read or not any(texts) else texts[0]


def _value(text: Any) -> Any:
    """A text, also from within an object, as in the Assistants API."""
    return text.get("value") if isinstance(text, dict) else text


def _addresses(images: Any) -> list[str]:
    """The addresses in a list of {"image_url": {"url": ...}}, {"image_url": ...}, {"url": ...} and {"b64_json":
    ...}."""
    found = []
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict):
            place = image.get("image_url", image.get("url"))
            place = place.get("url") if isinstance(place, dict) else place
            packed = image.get("b64_json") or image.get("image_base64")
            image = place or (f"data:image/png;base64,{packed}" if isinstance(packed, str) and packed else None)
        if isinstance(image, str) and image:
            found.append(image)
    return found
