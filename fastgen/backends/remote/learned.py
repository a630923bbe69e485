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
from fastgen.backends.remote.schema_form import simplified

ALONE_S = 5.0
"""For so long the first request is alone. A complaint about parameters comes before the work begins."""
_SYSTEM = re.compile(
    r"\bsystem\b.{0,30}\b(role|message|prompt|instruction)|\brole\b.{0,40}\bsystem\b|only user and assistant|"
    r"developer instruction|roles must alternate|messages\[0\]\.role",
    re.IGNORECASE,
)
_ALTERNATE = re.compile(
    r"roles must alternate|alternat\w+ (user|between)|consecutive (user|messages|roles)", re.IGNORECASE
)

_SCHEMA = re.compile(r"schema|grammar|response_format|structured|guided|keyword|multipleOf|uniqueItems", re.IGNORECASE)


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
        self._has_whole_schemas = True
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
        """Inside the block one request is sent. Until one was accepted, only one is, so that a fault of the settings
        costs one request and not as many as there are threads."""
        with self._changed:
            while not self._is_known and self._asking and (left := self._first_at + ALONE_S - time.monotonic()) > 0:
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

    def accepted(self) -> None:
        """A request was answered, so its parameters are fine."""
        if not self._is_known:
            self.release()

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
            has_system, alternates, whole = self._has_system, self._alternates, self._has_whole_schemas
        if not whole and "response_format" in sent:
            sent["response_format"] = _simple(sent["response_format"])
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
            form = sent.get("response_format")
            if form and _SCHEMA.search(said) and _simple(form) != form:
                self._has_whole_schemas = False
                return True
        return False

    def notes(self, words: dict[str, Any]) -> tuple[list[str], list[str]]:
        """(warnings, names of parameters that were not sent) for a row whose request has these parameters."""
        with self._changed:
            gone = sorted(word for word in self._refused - {*LIMITS, "stream_options"} if word in words)
            system, alternates, whole = self._has_system, self._alternates, self._has_whole_schemas
        said = [f"{self._model} does not support {word}; it was left out" for word in gone]
        roles = [message["role"] for message in words.get("messages", ())]
        if not system and "system" in roles:
            said.append(f"{self._model} takes no system role; its text is at the beginning of the first user turn")
        if alternates and any(a == b for a, b in pairwise(roles)):
            said.append(f"{self._model} wants roles to alternate; turns of one role in a row were joined")
        if not whole and _simple(form := words.get("response_format")) != form:
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


def _simple(form: Any) -> Any:
    """A `response_format` with a schema that few grammars refuse."""
    if not isinstance(form, dict) or "json_schema" not in form:
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
