"""Images from a chat: for gateways without images endpoints, and for models that draw while they chat.

The text of the answer contains them as Markdown or bare, as data or as addresses, or they come next to the text. Each
call gives as many as the model makes. Does not know images endpoints, and fetches nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fastgen.backends.remote.answer_text import words_instead
from fastgen.backends.remote.attempt import Attempt, Made
from fastgen.backends.remote.chat import Chat, Reply
from fastgen.backends.remote.openai_answers import error_of, tokens
from fastgen.backends.remote.responses import ProviderError, shorten

Given = list[tuple[str, bytes | str, str]]
"""(name, data or base64, MIME type) of each input image."""
MODALITIES = {"openrouter.ai": ["image", "text"]}
"""Services that draw only if the request says so."""
_DATA = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=_-]+")
_SHOWN = re.compile(r"!\[[^\]]*\]\(\s*<?(https?://[^\s<>\"'()\[\]{}|\\^`]+)")
_LINK = re.compile(r"https?://[^\s<>\"'()\[\]{}|\\^`]+")
_PACKED = re.compile(r"(iVBORw0KGgo|/9j/|UklGR|R0lGOD)[A-Za-z0-9+/\s]{100,}={0,2}")
"""The base64 of a PNG, JPEG, WebP or GIF."""


def addresses(reply: Reply) -> tuple[list[str], list[str]]:
    """Where the images of an answer are: data URLs and addresses that it shows, and those that it only mentions."""
    text = reply.content if isinstance(reply.content, str) else ""
    text = text.replace("\\/", "/")
    shown = [*reply.pictures, *_DATA.findall(text), *_SHOWN.findall(text)]
    if not shown and (packed := _PACKED.fullmatch(text.strip())):
        shown = ["data:image/png;base64," + re.sub(r"\s", "", packed[0])]
    named = [] if shown else _LINK.findall(text)
    return list(dict.fromkeys(shown)), list(dict.fromkeys(address.rstrip(".,;:!?") for address in named))


class ChatPictures:
    """Args: fetch: (address, attempt) -> the data of an image; raises ProviderError."""

    def __init__(
        self,
        chat: Chat,
        model: str,
        stream: bool,
        clean: Callable[[object], str],
        fetch: Callable[[str, Attempt], bytes],
    ):
        self._chat, self._model, self._clean, self._fetch = chat, model, clean, fetch
        self._stream = stream

    def make(self, attempt: Attempt, prompt: str, given: Given) -> list[Made]:
        """The images of one call, checked, each once. Raises ProviderError."""
        at_most = attempt.at_most((prompt,))
        reply = self._ask(attempt, self._words(prompt, given), at_most)
        attempt.bill(tokens(reply.usage), at_most)
        if reply.nothing:
            raise self._chat.no_chat(reply)
        shown, named = addresses(reply)
        found = [Made.of(self._fetch(address, attempt)) for address in shown]
        last: ProviderError | None = None
        for address in named:  # it may be any web page
            try:
                found.append(Made.of(self._fetch(address, attempt)))
            except ProviderError as error:
                last = error
        if not found:
            raise self._none(reply, last)
        return list({made.data: made for made in found}.values())

    def _words(self, prompt: str, given: Given) -> dict[str, Any]:
        parts: list[Any] = []
        for _, data, mime in given:
            url = msgspec.Raw(b'"data:%s;base64,%s"' % (mime.encode(), _packed(data)))
            parts.append({"type": "image_url", "image_url": {"url": url}})
        content = [*parts, {"type": "text", "text": prompt}] if parts else prompt
        words: dict[str, Any] = {"model": self._model, "messages": [{"role": "user", "content": content}]}
        host = urlsplit(self._chat.url).hostname or ""
        if modalities := next((named for ending, named in MODALITIES.items() if host.endswith(ending)), None):
            words["modalities"] = modalities
        return words

    def _ask(self, attempt: Attempt, words: dict[str, Any], at_most: float) -> Reply:
        usual = self._stream
        for stream in (usual, not usual):
            sent = words | ({"stream": True} if stream else {})
            reply = attempt.call(partial(self._chat.send, sent, at_most))
            if isinstance(reply, Reply):
                self._stream = stream
                return reply
            if stream is not usual or not re.search(r"\bstream", f"{reply.param} {reply.message}", re.IGNORECASE):
                raise error_of(reply, self._clean, at_most)
        raise AssertionError("the second way answers or raises")

    def _none(self, reply: Reply, last: ProviderError | None) -> ProviderError:
        """Why there is no image."""
        reason = str(reply.finish_reason or "").lower()
        if reply.refusal:
            return ProviderError("refused", f"the model declined: {shorten(reply.refusal)}")
        if reason in ("content_filter", "safety"):
            return ProviderError("refused", "the service's filter withheld the answer")
        if reason in ("error", "abort"):
            return ProviderError("transient", f"the answer broke off: {reason}")
        if reason in ("length", "max_tokens"):
            return ProviderError("truncated", "the answer was cut off before its image")
        if last is not None:
            return last
        words = reply.content if isinstance(reply.content, str) else ""
        if words.strip():
            return words_instead(words, self._clean)
        return ProviderError("empty", "the answer has no image")


def _packed(data: bytes | str) -> bytes:
    import base64

    return data.encode() if isinstance(data, str) else base64.b64encode(data)
