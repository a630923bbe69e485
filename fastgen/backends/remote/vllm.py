"""Captions from a vLLM server, ours or one that is already running, over plain HTTP in OpenAI's chat format.

It does not use the SDK, whose own work would be the limit at a thousand small answers per second. What is sent is built
once, from bytes; the answers are read with msgspec.
"""

from __future__ import annotations

import base64
import threading
import time
from functools import partial

import msgspec

from fastgen import providers
from fastgen.backends.remote import answer_sizes, dialogue, pictures, responses
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.gate import Gate
from fastgen.backends.remote.http_client import Answer, Client, up_to
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.vllm_server import Server
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import EngineError, InputError, ModelError
from fastgen.types import Batch, Done, Request, Result

MOST_RESTARTS = 1
_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


class _Error(msgspec.Struct):
    message: str = ""
    code: str | int | None = None
    type: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error | str | None = None
    message: str = ""


_reply = msgspec.json.Decoder(_Reply).decode
_refusal = msgspec.json.Decoder(_Refusal).decode


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
        self._template = b""

    # Open and close

    def open(self) -> dict:
        started = time.monotonic()
        endpoint = self.settings.endpoint
        if self.server:
            self.server.start()
        key = self.server.key if self.server else providers.key_of(endpoint.key_name)
        self._clean = partial(responses.clean, key=key)
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        base = self.server.url if self.server else endpoint.base_url
        self.http = Client(base, endpoint.timeout_s, self.gate.most, direct=self.server is not None)
        if not self.server and self.model == "auto":
            self.model = self._served()
        return {
            "model": self.model,
            "base_url": self.http.base_url,
            "load_seconds": round(time.monotonic() - started, 1),
            "streams": 1,
        }

    def cancel_pending(self) -> None:
        self.gate.close()

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings
        self._restarts = 0
        if self.server:
            self.server.settings = settings

    def close(self) -> None:
        if self.server:
            self.server.stop()

    def _served(self) -> str:
        """The first model that a running server lists."""
        url = f"{self.http.base_url}/models"
        try:
            reply = self.http.send("GET", url, self._headers)
            if reply.status in (401, 403):
                raise ModelError(
                    f"--base-url: {url}: {self._complaint(reply)}; the key is in {self.settings.endpoint.key_name}"
                )
            return str(msgspec.json.decode(reply.data)["data"][0]["id"])
        except Fault as fault:
            raise EngineError(f"--base-url: {url} does not answer: {self._clean(fault)}") from None
        except (msgspec.DecodeError, KeyError, IndexError, TypeError):
            raise ModelError(f"--base-url: {url} lists no model; name one with --model") from None

    # One request

    def run(self, batch: Batch) -> list[Result]:
        return [self._caption(request) for request in batch.requests]

    def _caption(self, request: Request) -> Result:
        started = time.monotonic()
        notes: list[str] = []
        try:
            body = self._body(request, notes)
            with up_to(answer_sizes.of_answer(request, 0)):
                text, usage = self._ask(body)
        except InputError as error:
            return ProviderError("input", str(error), error.field).failed(request, "vllm", self.model)
        except ProviderError as provider_error:
            return provider_error.failed(request, "vllm", self.model)
        tokens = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else {}
        seconds = round(time.monotonic() - started, 4)
        return Done(
            request.id,
            "vllm",
            self.model,
            (),
            request.params,
            seconds,
            text=text,
            usage=tokens,
            warnings=tuple(notes),
        )

    def _body(self, request: Request, notes: list[str]) -> bytes:
        text, params = self.settings.text, request.text_params

        def address(index: int) -> msgspec.Raw:
            found = pictures.prepare(request.images[index], request.image_field, text.max_pixels)
            notes.extend(found.notes)
            return msgspec.Raw(b'"data:%s;base64,%s"' % (found.mime.encode(), base64.b64encode(found.data)))

        body: dict = {
            "model": self.model,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "seed": params.seed,
            "messages": dialogue.chat(request, text.system, address),
        }
        if text.schema:
            schema = {"name": "caption", "strict": True, "schema": msgspec.Raw(text.schema.encode())}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return _encode(body)

    def _ask(self, body: bytes) -> tuple[str, _Usage | None]:
        with responses.through(self.gate):
            url = f"{self.server.url if self.server else self.http.base_url}/chat/completions"
            return self._read(self._post(url, body))

    def _post(self, url: str, body: bytes) -> Answer:
        try:
            return self.http.send("POST", url, self._headers, body)
        except Fault as fault:
            if self.server and not self.server.alive:
                self._revive(self.server)
            raise responses.of_fault(fault, self._clean) from None

    def _read(self, reply: Answer) -> tuple[str, _Usage | None]:
        if reply.status != 200:
            raise self._complaint(reply)
        try:
            answer = _reply(reply.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProviderError(
                "malformed", f"the answer is not a chat completion: {self._clean(reply.data)}"
            ) from None
        if not answer.choices:
            raise ProviderError("malformed", "the answer holds no choices")
        choice = answer.choices[0]
        text = responses.text_of(
            choice.message.content, choice.finish_reason, choice.message.refusal, self.settings.text.schema
        )
        return text, answer.usage

    def _complaint(self, reply: Answer) -> ProviderError:
        wait = responses.seconds_of(reply.headers.get("retry-after"), reply.headers.get("retry-after-ms"))
        code, message = "", self._clean(reply.data)
        try:
            said = _refusal(reply.data)
            error = said.error
            if isinstance(error, _Error):
                code, message = str(error.code or error.type or ""), error.message
            else:
                message = str(error or said.message)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        code = "" if code == str(reply.status) else code
        return responses.of_status(reply.status, code, self._clean(message), wait)

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
            except EngineError as error:
                raise ProviderError("gone", str(error)) from None
