"""What a server refuses of what every request says: parameters, their names, the system role. It is learned from the
first requests and left out or moved from then on. Does not know what a refusal of anything else means.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from fastgen.backends.remote.openai_answers import LIMITS, Complaint, refused_word
from fastgen.backends.remote.schema_form import put_into, simplified

ALONE_S, FEW_S, FEW = 0.25, 5.0, 4
"""For so long the first request is alone, and for so long there are at most so many, so that a refusal costs few. A
complaint about parameters comes before the work begins."""
_SYSTEM = re.compile(
    r"\bsystem\b.{0,30}\b(role|message|prompt|instruction)|\brole\b.{0,40}\bsystem\b|only user and assistant|"
    r"developer instruction|roles must alternate|messages\[0\]\.role",
    re.IGNORECASE,
)
_ALTERNATE = re.compile(
    r"roles must alternate|alternat\w+ (user|between)|consecutive (user|messages|roles)", re.IGNORECASE
)

_SCHEMA = re.compile(
    r"schema|grammar|response_format|json.?mode|response_mime_type|structured|guided|keyword|multipleOf|uniqueItems",
    re.IGNORECASE,
)
_WHOLE, _SIMPLE, _SAID = range(3)
"""How the schema is sent: as it is, without what grammars lack, or in the prompt alone."""


class Learned:
    """Of one model at one address. Thread-safe.

    Args:
        limit: the name of the limit on tokens that is tried first.
        may_go: the parameters that a request can do without.
    """

    def __init__(self, model: str, limit: str, may_go: Collection[str]):
        self._model, self._limit, self._may_go = model, limit, may_go
        self._refused: set[str] = set()
        self._has_system = True
        self._alternates = False
        self._schemas = _WHOLE
        self._takes_schemas = False
        """Whether a request with a schema was accepted. Later complaints are about their rows."""
        self._obeys = False
        """Whether an answer was JSON as a schema asked."""
        self._ignores = False
        self._changed = threading.Condition()
        self._is_known = False
        self._asking = 0
        self._first_at = 0.0

    @property
    def refused(self) -> frozenset[str]:
        """The parameters that the server does not take."""
        with self._changed:
            return frozenset(self._refused)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Inside the block one request is sent. Until one was accepted, only a few are, so that a fault of the settings
        costs a few requests and not as many as there are threads."""
        with self._changed:
            while not self._is_known and (left := self._wait_s(time.monotonic() - self._first_at)) > 0:
                self._changed.wait(left)
            if not self._asking:
                self._first_at = time.monotonic()
            self._asking += 1
        try:
            yield
        finally:
            with self._changed:
                self._asking -= 1
                self._changed.notify_all()

    def _wait_s(self, since_first_s: float) -> float:
        """How long another request waits at most, before one was accepted."""
        if not self._asking or (since_first_s >= ALONE_S and self._asking < FEW):
            return 0.0
        return (ALONE_S if since_first_s < ALONE_S else FEW_S) - since_first_s

    def accepted(self, sent: Collection[str] = ()) -> None:
        """A request was answered, so its parameters are fine.

        Args:
            sent: their names.
        """
        self._takes_schemas = self._takes_schemas or "response_format" in sent
        if not self._is_known:
            self.release()

    def answered(self, is_json: bool) -> None:
        """A request with a schema has an answer. If the first answers are no JSON, the server takes `response_format`
        and does nothing with it; then the schema is said in the prompt too."""
        with self._changed:
            self._obeys = self._obeys or is_json
            self._ignores = self._ignores or not self._obeys

    def release(self) -> None:
        """No request waits for another one any more."""
        with self._changed:
            self._is_known = True
            self._changed.notify_all()

    def fitted(self, words: dict[str, Any]) -> dict[str, Any]:
        """The parameters in the form that this server takes. The limit on tokens is `max_tokens` here."""
        with self._changed:
            sent = {word: value for word, value in words.items() if word not in self._refused or word in LIMITS}
            if LIMITS[0] in sent:
                sent[self._limit] = sent.pop(LIMITS[0])
            has_system, alternates = self._has_system, self._alternates
            schemas, ignores = self._schemas, self._ignores
        if form := _form(sent):
            sent["response_format"] = form if schemas == _WHOLE else _simple(form)
            if schemas == _SAID:
                del sent["response_format"]
            if schemas == _SAID or ignores:
                sent["messages"] = put_into(sent["messages"], form)
        if "messages" in sent:
            sent["messages"] = sent["messages"] if has_system else _without_system(sent["messages"])
            sent["messages"] = _merged(sent["messages"]) if alternates else sent["messages"]
        return sent

    def learn(self, complaint: Complaint, sent: dict[str, Any]) -> bool:
        """Whether the same request, fitted again, may be accepted.

        Args:
            sent: the parameters that the server complains about.
        """
        word = refused_word(complaint, sent, self._may_go)
        form = _form(sent)
        word = "" if form and word == "response_format" else word  # a schema is not left out, but said
        said = f"{complaint.param} {complaint.message}"
        with self._changed:
            if word in LIMITS:
                other = LIMITS[word == LIMITS[0]]
                if other in self._refused:
                    return False
                self._refused.add(word)
                self._limit = other
                return True
            if word:
                self._refused.add(word)
                return True
            roles = [message["role"] for message in sent.get("messages", ()) if isinstance(message, dict)]
            if "system" in roles and _SYSTEM.search(said):
                self._has_system = False
                return True
            if _ALTERNATE.search(said) and any(a == b for a, b in pairwise(roles)):
                self._alternates = True
                return True
            if form and _SCHEMA.search(said) and not self._takes_schemas:
                self._schemas = max(self._schemas, _SIMPLE if _simple(form) != form else _SAID)
                return True
        return False

    def notes(self, words: dict[str, Any]) -> tuple[list[str], list[str]]:
        """(warnings, names of parameters that were not sent) for a row whose request has these parameters."""
        with self._changed:
            gone = sorted(word for word in self._refused - {*LIMITS, "stream_options"} if word in words)
            system, alternates = self._has_system, self._alternates
            schemas, ignores = self._schemas, self._ignores
        said = [f"{self._model} does not support {word}; it was left out" for word in gone]
        roles = [message["role"] for message in words.get("messages", ())]
        if not system and "system" in roles:
            said.append(f"{self._model} takes no system role; its text is at the beginning of the first user turn")
        if alternates and any(a == b for a, b in pairwise(roles)):
            said.append(f"{self._model} wants roles to alternate; turns of one role in a row were joined")
        form = _form(words)
        if form and schemas == _SAID:
            said.append(
                f"{self._model} takes no response_format; --schema is in the prompt, and the answer checked here"
            )
            gone = sorted({*gone, "response_format"})
        elif form and ignores:
            said.append(f"{self._model} does not keep to response_format; --schema is in the prompt too")
        elif schemas == _SIMPLE and _simple(form) != form:
            said.append(f"{self._model} takes no such --schema; a simpler one was sent, and the answer checked here")
        return said, gone


def _without_system(messages: list[dict]) -> list[dict]:
    """The system's text at the beginning of the first user turn."""
    said = "\n\n".join(str(_text(message["content"])) for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    first = next((i for i, message in enumerate(others) if message["role"] == "user"), None)
    if not said or first is None:
        return others
    content = others[first]["content"]
    put = f"{said}\n\n{content}" if isinstance(content, str) else [{"type": "text", "text": said}, *content]
    return [*others[:first], {"role": "user", "content": put}, *others[first + 1 :]]


def _form(words: dict[str, Any]) -> dict[str, Any]:
    """The `response_format` of an answer in JSON; {} for none. Images have one of another kind."""
    form = words.get("response_format")
    return form if isinstance(form, dict) else {}


def _simple(form: dict[str, Any]) -> dict[str, Any]:
    """A `response_format` with a schema that few grammars refuse."""
    if "json_schema" not in form:
        return form
    wrapper = form["json_schema"]
    return {**form, "json_schema": {**wrapper, "schema": simplified(wrapper["schema"])}}


def _merged(messages: list[dict]) -> list[dict]:
    """Turns of one role in a row as one."""
    found: list[dict] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {"role": message["role"], "content": _parts(found[-1]["content"]) + _parts(message["content"])}
        else:
            found.append(message)
    return found


def _parts(content: str | list) -> list:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _text(content: str | list) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)
