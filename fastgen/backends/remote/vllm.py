"""Captions from a vLLM server, ours or one that is already running, over plain HTTP in OpenAI's chat format.

It does not use the SDK, whose own work would be the limit at a thousand small answers per second. What is asked and
read is in captions.py; this file opens and revives the server.
"""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from typing import Any

import msgspec

from fastgen import providers
from fastgen.backends.base import warn
from fastgen.backends.remote import responses
from fastgen.backends.remote.attempt import Attempt
from fastgen.backends.remote.captions import Captions
from fastgen.backends.remote.chat import Chat, complaint_of
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.gate import Gate
from fastgen.backends.remote.http_client import Client
from fastgen.backends.remote.openai_answers import error_of, tokens
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.vllm_command import raising
from fastgen.backends.remote.vllm_health import Health
from fastgen.backends.remote.vllm_server import Server
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import EngineError, ModelError
from fastgen.types import Batch, Result

MOST_RESTARTS = 1
THINKS_UNASKED = re.compile(
    r"qwen-?3[._]?[5-9]|qwen3(?!.*instruct).*think|glm-?4[._]?[1-9]\d*v|glm-?5|kimi-?k[23]|kimi-vl.*think|step-?3|"
    r"minimax-?m[23]|ernie-?4[._]5.*think|"
    r"mimo|intern-?(vl|s)-?[3-9]",
    re.IGNORECASE,
)
"""Names of models that think before they answer unless they are told not to."""


class VllmBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.server = None if settings.endpoint.base_url else Server(settings, device)
        self.model = settings.model.name
        endpoint = settings.endpoint
        workers = max(1, len(settings.placement.devices))
        self.gate = Gate(-(-endpoint.max_inflight // workers), -(-endpoint.rpm // workers))
        self._restarts = 0
        self._revival = threading.Lock()
        self._health: Health | None = None

    # Open and close

    def open(self) -> dict:
        started = time.monotonic()
        endpoint = self.settings.endpoint
        if self.server:
            self.server.start()
        key = self.server.key if self.server else providers.key_of(endpoint.key_name)
        self._clean = partial(responses.clean, key=key)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        base = self.server.url if self.server else endpoint.base_url
        self.http = Client(base, endpoint.timeout_s, self.gate.most, direct=self.server is not None)
        if not self.server and self.model == "auto":
            self.model = self._served()
        self.chat = Chat(self.http, key, self._clean, self._look_after)
        more, limits = self._more(), partial(raising, is_ours=self.server is not None)
        self.captions = Captions(self.chat, self.model, self._clean, more=more, count=_usage, raising=limits)
        if self.server:
            self.chat.url = f"{self.server.url}/chat/completions"
            self._watch(self.server)
            if not self.settings.text.schema:  # whether its grammar has all of it is known after the first row
                self.captions.learned.release()
        return {
            "model": self.model,
            "base_url": self.http.base_url,
            "load_seconds": round(time.monotonic() - started, 1),
            "streams": 1,
        }

    def cancel_pending(self) -> None:
        self.gate.close()
        self.captions.learned.release()

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings
        self._restarts = 0
        if self.server:
            self.server.settings = settings
            self._watch(self.server)

    def close(self) -> None:
        if self._health:
            self._health.stop()
        if self.server:
            self.server.stop()

    def _served(self) -> str:
        """The first model that a running server lists."""
        url = f"{self.http.base_url}/models"
        try:
            reply = self.http.send("GET", url, self._headers)
            said = error_of(complaint_of(reply), self._clean, 0.0) if reply.status >= 300 else ""
            if reply.status in (401, 403):
                raise ModelError(f"--base-url: {url}: {said}; the key is in {self.settings.endpoint.key_name}")
            return str(msgspec.json.decode(reply.data)["data"][0]["id"])
        except Fault as fault:
            raise EngineError(f"--base-url: {url} does not answer: {self._clean(fault)}") from None
        except (msgspec.DecodeError, KeyError, IndexError, TypeError):
            raise ModelError(f"--base-url: {url} lists no model; name one with --model") from None

    # One request

    def run(self, batch: Batch) -> list[Result]:
        return [Attempt.run(self.settings, one, self.gate, self.captions.make, self.model) for one in batch.requests]

    def _more(self) -> dict[str, Any]:
        """What goes with every request: whether the model thinks, and --extra-body."""
        thinking = self.settings.text.thinking
        if not thinking and (self.server or THINKS_UNASKED.search(self.settings.model.path or self.model)):
            thinking = "off"
        more: dict[str, Any] = {}
        if thinking:
            is_on = thinking == "on"
            more["chat_template_kwargs"] = {"enable_thinking": is_on, "thinking": is_on}
        return more | msgspec.json.decode(self.settings.rows.extra_body or "{}")

    def _look_after(self) -> None:
        """Restart our server if it has ended or is being ended. Raises ProviderError if it is lost."""
        if self.server and (self._revival.locked() or not self.server.alive):
            self._revive(self.server)

    def _watch(self, server: Server) -> None:
        """From now on notice if our server hangs."""
        if self._health:
            self._health.stop()
        url, hangs = server.url.removesuffix("/v1"), partial(self._end_hung, server, server.starts)
        gate = self.gate
        self._health = Health(url, self.settings.endpoint.timeout_s, lambda: gate.inflight, lambda: gate.answers, hangs)

    def _end_hung(self, server: Server, start: int, why: str) -> None:
        """End our server, which hangs. The requests that it has fail, and the first of them starts it again."""
        with self._revival:
            if server.starts == start and server.alive:
                again = "; it is started again" if self._restarts < MOST_RESTARTS else ""
                warn(f"vLLM's server hangs ({why}), so it was ended{again}")
                server.stop()

    def _revive(self, server: Server) -> None:
        """Restart our server, once. Raises ProviderError if it is lost."""
        with self._revival:
            if server.alive:
                return
            words = server.last_words()
            if self._restarts >= MOST_RESTARTS:
                raise ProviderError("gone", f"vLLM ended again after it was restarted{words}")
            self._restarts += 1
            try:
                server.start()
                self.chat.url = f"{server.url}/chat/completions"
                self._watch(server)
            except EngineError as error:
                raise ProviderError("gone", str(error)) from None


def _usage(usage: Any) -> dict[str, int]:
    """The tokens of an answer under vLLM's names."""
    found = tokens(usage)
    return {"prompt_tokens": found["text_in"], "completion_tokens": found["text_out"]} if found else {}
