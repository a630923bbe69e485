"""Captions from OpenAI and servers with its format, as chat completions. Parameters that a server refuses are left out
from then on. Knows no images endpoint and nothing of retries."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from fastgen import providers
from fastgen.backends.remote import dialogue, pictures, responses
from fastgen.backends.remote.attempt import Attempt
from fastgen.backends.remote.chat import Chat, Reply
from fastgen.backends.remote.openai_answers import LIMITS, Complaint, error_of, refused_word, tokens
from fastgen.backends.remote.responses import ProviderError
from fastgen.types import TextParams


class Captions:
    """Args: known: the model's entry in the catalog, if it has one; theirs: whether it is a model of the vendor's."""

    def __init__(
        self,
        chat: Chat,
        model: str,
        known: providers.Model | None,
        theirs: bool,
        clean: Callable[[object], str],
    ):
        self._chat, self._model, self._known, self._clean = chat, model, known, clean
        self._limit = LIMITS[theirs]
        self._unknown: set[str] = set()
        """Parameters that this model has refused."""
        self._lock = threading.Lock()

    def make(self, attempt: Attempt) -> str:
        """The caption of one request. Raises ProviderError, InputError."""
        settings, request, text = attempt.settings, attempt.request, attempt.settings.text
        params = request.params
        assert isinstance(params, TextParams)

        def address(index: int) -> msgspec.Raw:
            found = pictures.prepare(request.images[index], request.image_field, text.max_pixels)
            attempt.warnings += found.notes
            return msgspec.Raw(b'"data:%s;base64,%s"' % (found.mime.encode(), base64.b64encode(found.data)))

        words: dict[str, Any] = {"model": self._model, "messages": dialogue.chat(request, text.system, address)}
        words |= {"temperature": params.temperature, "seed": params.seed}
        if self._known and self._known.reasoning:
            words["reasoning_effort"] = self._known.reasoning
            if self._known.reasoning != "none":  # models that think take no temperature
                del words["temperature"]
        if text.schema:
            schema = json.loads(text.schema)
            form = {"name": "caption", "strict": is_strict(schema), "schema": schema}
            words["response_format"] = {"type": "json_schema", "json_schema": form}
        if settings.endpoint.stream:
            words["stream"] = True
            if providers.price(settings):
                words["stream_options"] = {"include_usage": True}
        reply = self._ask(attempt, words, params.max_tokens)
        attempt.bill(tokens(reply.usage), attempt.at_most(()))
        if reply.nothing:
            raise ProviderError("malformed", f"the answer is not a chat completion: {reply.nothing}")
        for gone in sorted(self._unknown - {*LIMITS, "stream_options"}):
            attempt.warnings.append(f"{self._model} does not support {gone}; it was left out")
        return responses.text_of(reply.content, reply.finish_reason, reply.refusal, text.schema)

    def _ask(self, attempt: Attempt, words: dict[str, Any], max_tokens: int) -> Reply:
        """Send a call without the parameters that the model has refused. Remembers if it refuses another one."""
        at_most = attempt.at_most(())
        while True:
            limit, unknown = self._limit, set(self._unknown)
            sent = {word: value for word, value in words.items() if word not in unknown}
            sent[limit] = max_tokens

            def send(sent: dict[str, Any] = sent) -> Reply | Complaint:
                return self._chat.send(sent, at_most)

            reply = attempt.call(send)
            if isinstance(reply, Reply):
                return reply
            word = refused_word(reply, sent)
            with self._lock:
                if word in LIMITS and LIMITS[word == LIMITS[0]] not in self._unknown:
                    self._unknown.add(word)
                    self._limit = LIMITS[word == LIMITS[0]]
                elif word and word not in LIMITS:
                    self._unknown.add(word)
                elif limit == self._limit:  # else another thread has already noticed it
                    raise error_of(reply, self._clean, at_most)


def is_strict(schema: object) -> bool:
    """Whether every object in a schema is closed and requires all its keys: OpenAI's strict mode accepts no others."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    named = schema.get("properties")
    closed = schema.get("additionalProperties") is False and not set(named or ()) - set(schema.get("required") or ())
    if (isinstance(named, dict) or schema.get("type") == "object") and not closed:
        return False
    return all(map(is_strict, schema.values()))
