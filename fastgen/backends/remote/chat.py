"""One chat completion in OpenAI's format: sends the parameters of a request and returns a Reply, streamed or not.

It does not use the vendor's SDK, whose own work would be most of the time at hundreds of small answers per second.
Answers of servers that only resemble OpenAI's are read as far as they make sense. Does not know tasks or retries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fastgen import __version__
from fastgen.backends.remote import responses
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Answer, Client
from fastgen.backends.remote.openai_answers import Complaint, error_of
from fastgen.backends.remote.responses import ProviderError

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
STREAM = "text/event-stream"
BEGINNING = 600
"""Bytes of an answer that are quoted in a message."""


@dataclass
class Reply:
    """The text of an answer, and how it ended."""

    content: Any = None
    """A text, or whatever was in its place."""
    pictures: list[str] = field(default_factory=list)
    """Addresses of images that came next to the text."""
    refusal: str | None = None
    finish_reason: str | None = None
    """ also "error" if a stream broke off."""
    usage: dict[str, Any] = field(default_factory=dict)
    nothing: str = ""
    """The beginning of the answer, if it is not a chat completion."""


class Chat:
    """Args: key: of the service, "" for none; clean: removes it from messages."""

    def __init__(self, http: Client, key: str, clean: Callable[[object], str]):
        self.http, self._clean = http, clean
        self.url = f"{http.base_url}/chat/completions"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": f"application/json, {STREAM}",
            "Accept-Encoding": "gzip",
            "User-Agent": f"fastgen/{__version__}",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }

    def send(self, words: dict[str, Any], at_most: float) -> Reply | Complaint:
        """The answer to one request, or the server's complaint about its parameters (status 400).

        Args:
            words: the parameters; a `msgspec.Raw` in them is already JSON.
            at_most: USD that it may have cost, if that is unknown.
        Raises:
            ProviderError: there is no answer, or it cannot be read.
        """
        try:
            answer = self.http.send("POST", self.url, self._headers, _encode(words))
        except Fault as fault:
            raise responses.of_fault(fault, self._clean, at_most) from None
        if answer.status >= 300:
            complaint = complaint_of(answer)
            if answer.status == 400:
                return complaint
            raise error_of(complaint, self._clean, at_most)
        try:
            reply = read(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            beginning = answer.data[:BEGINNING]
            what = f"cannot be read: {type(error).__name__}" if b"{" in beginning[:16] else "is not a chat completion"
            raise ProviderError("malformed", f"the answer {what}: {self._clean(beginning)}", cost=at_most) from None
        reply.nothing = self._clean(reply.nothing) if reply.nothing else ""
        return reply


def read(answer: Answer) -> Reply:
    """The content of a good answer. Raises DecodeError, UnicodeDecodeError."""
    streamed = STREAM in answer.headers.get("content-type", "")
    if streamed or answer.data[:16].lstrip().startswith((b"data:", b"event:", b": ")):
        parts, ended = _events(answer.data)
    else:
        parts, ended = [_decode(answer.data)], True
    reply = _put_together(parts)
    if reply is None:
        usage = next((part["usage"] for part in parts if isinstance(part, dict) and "usage" in part), None)
        beginning = answer.data[:BEGINNING].decode("utf-8", "replace")
        return Reply(usage=usage if isinstance(usage, dict) else {}, nothing=beginning)
    broke_off = any(isinstance(part, dict) and part.get("error") for part in parts)
    if broke_off or (not ended and reply.finish_reason is None):
        reply.finish_reason = "error"
    return reply


def complaint_of(answer: Answer) -> Complaint:
    """An answer of status 300 and above."""
    wait = responses.seconds_of(answer.headers.get("retry-after"), answer.headers.get("retry-after-ms"))
    said = answer.data.decode("utf-8", "replace")
    try:
        body = _decode(answer.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return Complaint(answer.status, "", "", str(error or said), wait)
    code = error.get("code") or error.get("type")
    message = error.get("message") or error.get("detail") or said
    return Complaint(answer.status, str(code or ""), str(error.get("param") or ""), str(message), wait)


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
        any_choice = any_choice or isinstance(said, dict)
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
        if isinstance(said, dict):
            reply.refusal = said.get("refusal") or reply.refusal
            reply.pictures += _addresses(said.get("images"))
            if said.get("content") is not None:
                texts.append(said["content"])
    if not any_choice:
        return None
    if texts and all(isinstance(text, str) for text in texts):
        reply.content = "".join(texts)
    elif texts:
        reply.content, addresses = _of_parts(texts)
        reply.pictures += addresses
    return reply


def _of_parts(texts: list[Any]) -> tuple[Any, list[str]]:
    """The text and the image addresses in contents that are lists of parts; anything else stays as it is."""
    words, addresses = [], []
    for text in texts:
        for part in text if isinstance(text, list) else [text]:
            if isinstance(part, str):
                words.append(part)
            elif isinstance(part, dict) and isinstance(part.get("text"), str):
                words.append(part["text"])
            elif found := _addresses([part]):
                addresses += found
            else:
                return texts[0], addresses
    return "".join(words) or None, addresses


def _addresses(images: Any) -> list[str]:
    """The addresses in a list of {"image_url": {"url": ...}}, {"image_url": ...}, {"url": ...} and {"b64_json":
    ...}."""
    found = []
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict):
            place = image.get("image_url", image.get("url"))
            place = place.get("url") if isinstance(place, dict) else place
            packed = image.get("b64_json")
            image = place or (f"data:image/png;base64,{packed}" if isinstance(packed, str) and packed else None)
        if isinstance(image, str) and image:
            found.append(image)
    return found
