"""Captions as chat completions in OpenAI's format, from a vLLM server, OpenAI, or any other server with that format.
What a server refuses is left out from then on. Knows no images endpoint and nothing of retries."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec

from fastgen import providers
from fastgen.backends.remote import dialogue, pictures
from fastgen.backends.remote.answer_text import NotJson, text_of
from fastgen.backends.remote.attempt import Attempt
from fastgen.backends.remote.chat import Chat, Reply
from fastgen.backends.remote.learned import Learned
from fastgen.backends.remote.openai_answers import LIMITS, MAY_GO, Complaint, error_of, tokens
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.schema_form import is_strict


class Captions:
    """Args:
    known: the model's entry in the catalog, if it has one.
    theirs: whether it is a model of the vendor's.
    more: parameters that go with every request.
    count: the usage that an answer states -> the usage in a result.
    raising: a complaint about a row -> how the limit that it is about is raised; "" if it is about none.
    """

    def __init__(
        self,
        chat: Chat,
        model: str,
        clean: Callable[[object], str],
        known: providers.Model | None = None,
        theirs: bool = False,
        more: dict[str, Any] | None = None,
        count: Callable[[Any], dict[str, int]] | None = None,
        raising: Callable[[str], str] | None = None,
    ):
        self._chat, self._model, self._known, self._clean = chat, model, known, clean
        self._more, self._count, self._raising = more or {}, count, raising
        self.learned = Learned(model, LIMITS[theirs], (*MAY_GO, *self._more))

    def make(self, attempt: Attempt) -> None:
        """The caption of one request. Raises ProviderError, InputError."""
        settings, text = attempt.settings, attempt.settings.text
        words = self._words(attempt)
        reply = self._ask(attempt, words)
        attempt.bill((self._count or tokens)(reply.usage), attempt.at_most(()))
        if reply.nothing:
            raise self._chat.no_chat(reply)
        warnings, gone = self.learned.notes(words)
        attempt.warnings += warnings
        attempt.not_sent += gone
        accept = settings.run.accept_refusals
        try:
            attempt.answer = text_of(
                reply.content, reply.finish_reason, reply.refusal, text.schema, reply.reasoning, accept
            )
        except NotJson:
            self.learned.answered(is_json=False)
            raise
        if text.schema:
            self.learned.answered(is_json=True)

    def _words(self, attempt: Attempt) -> dict[str, Any]:
        """The parameters that the row asks for."""
        settings, request, text = attempt.settings, attempt.request, attempt.settings.text
        params = request.text_params

        def address(index: int) -> msgspec.Raw:
            found = pictures.prepare(request.images[index], request.image_field, text.max_pixels)
            attempt.warnings += found.notes
            return msgspec.Raw(b'"data:%s;base64,%s"' % (found.mime.encode(), base64.b64encode(found.data)))

        words: dict[str, Any] = {"model": self._model, "messages": dialogue.chat(request, text.system, address)}
        words |= {LIMITS[0]: params.max_tokens, "temperature": params.temperature, "seed": params.seed}
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
        return words | self._more

    def _ask(self, attempt: Attempt, words: dict[str, Any]) -> Reply:
        """Send a call without what the server has refused. Remembers if it refuses more."""
        at_most = attempt.at_most(())
        while True:
            with self.learned.asking():
                sent = self.learned.fitted(words)

                def send(sent: dict[str, Any] = sent) -> Reply | Complaint:
                    return self._chat.send(sent, at_most)

                reply = attempt.call(send)
                if isinstance(reply, Reply):
                    self.learned.accepted(sent)
                    return reply
                if not self.learned.learn(reply, sent):
                    raise self._error(reply, at_most)

    def _error(self, complaint: Complaint, at_most: float) -> ProviderError:
        found = error_of(complaint, self._clean, at_most)
        if found.kind == "input" and self._raising and (how := self._raising(complaint.message)):
            return ProviderError("input", f"{found}; {how}", found.field, cost=found.cost)
        return found
