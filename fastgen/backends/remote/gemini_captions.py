"""Captions by Gemini and Gemma. What the model refuses (a system instruction, JSON, a seed) is left out or moved from
then on. Knows the SDK's types, but nothing of images that are made, and of retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastgen.backends.remote import dialogue, pictures
from fastgen.backends.remote.answer_text import NotJson, text_of
from fastgen.backends.remote.attempt import Attempt
from fastgen.backends.remote.gemini_answers import finish, parts_of
from fastgen.backends.remote.learned import Learned
from fastgen.backends.remote.openai_answers import LIMITS, Complaint
from fastgen.backends.remote.responses import ProviderError

MAY_GO = ("seed", "temperature", "thinking")
_ROLES = {"assistant": "model"}
_ABOUT_PARAMETERS = 400
_ANSWERED = ("refused", "empty", "truncated", "malformed")
"""Kinds of failures after which the parameters are known to be fine."""


class GeminiCaptions:
    """Args:
    ask: sends contents with a config -> the SDK's answer, billed. Raises ProviderError.
    """

    def __init__(self, model: str, ask: Callable[[Attempt, list, Any, float], Any]):
        self._ask = ask
        self.learned = Learned(model, LIMITS[0], MAY_GO)

    def make(self, attempt: Attempt) -> None:
        """The caption of one request. Raises ProviderError, InputError."""
        text, accept = attempt.settings.text, attempt.settings.run.accept_refusals
        words = self._words(attempt)
        answer = self._answered(attempt, words)
        warnings, gone = self.learned.notes(words)
        attempt.warnings += warnings
        attempt.not_sent += gone
        said = "".join(part.text for part in parts_of(answer) if isinstance(part.text, str))
        thoughts = "".join(part.text for part in parts_of(answer, thoughts=True) if isinstance(part.text, str))
        reason = "length" if finish(answer) == "MAX_TOKENS" else None
        try:
            attempt.answer = text_of(said, reason, None, text.schema, thoughts, accept)
        except NotJson:
            self.learned.answered(is_json=False)
            raise
        if text.schema:
            self.learned.answered(is_json=True)

    def _words(self, attempt: Attempt) -> dict[str, Any]:
        """What the row asks for, in OpenAI's form; an image is a part with the SDK's own."""
        from google.genai import types

        request, text = attempt.request, attempt.settings.text

        def picture(index: int) -> dict[str, Any]:
            found = pictures.prepare(request.images[index], request.image_field, text.max_pixels)
            attempt.warnings += found.notes
            return {"type": "image", "part": types.Part.from_bytes(data=found.data, mime_type=found.mime)}

        turns = dialogue.messages(request, text.system, lambda said: {"type": "text", "text": said}, picture)
        words: dict[str, Any] = {"messages": [{"role": role, "content": parts} for role, parts in turns]}
        words["seed"] = request.params.seed % 2**31  # the field has 32 bits, including the sign
        words["temperature"] = request.text_params.temperature
        if text.thinking == "off":
            words["thinking"] = 0
        if text.schema:
            words["response_format"] = {"json_schema": {"schema": json.loads(text.schema)}}
        return words

    def _answered(self, attempt: Attempt, words: dict[str, Any]) -> Any:
        """The answer to a call without what the model has refused. Remembers if it refuses more."""
        most = attempt.request.text_params.max_tokens
        while True:
            with self.learned.asking():
                sent = self.learned.fitted(words)
                try:
                    answer = self._ask(attempt, *_as_theirs(sent, most), attempt.at_most(()))
                except ProviderError as error:
                    complaint = Complaint(_ABOUT_PARAMETERS, "", "", str(error))
                    if error.kind == "input" and self.learned.learn(complaint, sent):
                        continue
                    if error.kind in _ANSWERED:
                        self.learned.accepted(sent)
                    raise
                self.learned.accepted(sent)
                return answer


def _as_theirs(sent: dict[str, Any], most: int) -> tuple[list, Any]:
    """(contents, config) of the SDK for words in OpenAI's form."""
    from google.genai import types

    def parts(content: str | list) -> list:
        given = [{"text": content}] if isinstance(content, str) else content
        return [one["part"] if "part" in one else types.Part.from_text(text=one["text"]) for one in given]

    turns = [(one["role"], parts(one["content"])) for one in sent["messages"]]
    system = [part for role, found in turns if role == "system" for part in found]
    contents = [types.Content(role=_ROLES.get(role, role), parts=found) for role, found in turns if role != "system"]
    form = {}
    if "response_format" in sent:
        schema = sent["response_format"]["json_schema"]["schema"]
        form = {"response_mime_type": "application/json", "response_json_schema": schema}
    return contents, types.GenerateContentConfig(
        system_instruction=types.Content(parts=system) if system else None,
        seed=sent.get("seed"),
        max_output_tokens=most,
        temperature=sent.get("temperature"),
        thinking_config=types.ThinkingConfig(thinking_budget=sent["thinking"]) if "thinking" in sent else None,
        **form,
    )
