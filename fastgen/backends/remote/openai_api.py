"""OpenAI and whoever speaks its format, through the vendor's SDK: images, edits with masks, chat completions with
pictures.

Sends only what the row asks for, one call at a time; knows the SDK's exceptions, and nothing of retries."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fastgen import providers
from fastgen.backends.remote import answer_sizes, dialogue, pictures, responses
from fastgen.backends.remote.attempt import Attempt, Made
from fastgen.backends.remote.faults import Fault, NotFetched
from fastgen.backends.remote.gate import Gate
from fastgen.backends.remote.http_client import Client, up_to
from fastgen.backends.remote.openai_answers import LIMITS, provider_error, refused_word, tokens
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.sdk_transport import over
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.types import Batch, Result

VENDOR = "api.openai.com"
MOST_N = 10
MOST_FETCHES, FETCH_AGAIN_S = 3, 1.0
"""Of a picture that lies at an address: it is paid for, so that another try costs nothing."""


class OpenAIBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.model = settings.model.name
        self.known = providers.find(settings.backend.provider, self.model)
        self.options = settings.backend.service.options if settings.backend.service else ()
        self.gate = Gate(settings.endpoint.max_inflight, settings.endpoint.rpm, first=16)
        self._unknown: set[str] = set()
        """Words that this model has refused."""
        host = urlsplit(settings.endpoint.base_url).hostname or VENDOR
        theirs = host == VENDOR or bool(self.known) or re.match(r"gpt-[5-9]|o\d", self.model) is not None
        self._limit = LIMITS[theirs]
        self._most_n = (self.known.most_n if self.known else 0) or MOST_N
        self._lock = threading.Lock()

    def open(self) -> dict:
        import openai

        endpoint = self.settings.endpoint
        key = providers.key_of(endpoint.key_name, needed=bool(endpoint.key_name))
        self._clean = partial(responses.clean, key=key)
        most = endpoint.max_inflight
        self.http = Client(endpoint.base_url or f"https://{VENDOR}/v1", endpoint.timeout_s, most)
        self.client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.http.base_url,
            max_retries=0,
            timeout=endpoint.timeout_s,
            http_client=over(self.http),
        )
        return {"base_url": str(self.client.base_url), "sdk": f"openai {openai.__version__}", "streams": most}

    def cancel_pending(self) -> None:
        self.gate.close()

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings

    def close(self) -> None:
        self.client.close()

    def run(self, batch: Batch) -> list[Result]:
        work = {"t2i": self._draw, "edit": self._edit, "caption": self._caption}
        return [Attempt.run(self.settings, one, self.gate, work[one.task]) for one in batch.requests]

    # The three tasks

    def _draw(self, attempt: Attempt) -> str:
        for prompt in attempt.request.prompts:
            for n in _portions(attempt.request.params.n, self._most_n):
                for made in self._images(attempt, self.client.images.generate, prompt, n):
                    attempt.keep(made)
        return ""

    def _edit(self, attempt: Attempt) -> str:
        request = attempt.request
        given = [pictures.prepare(path, request.image_field) for path in request.images]
        files = [(one.name, one.data, one.mime) for one in given]
        first: dict = {"image": files[0] if len(files) == 1 else files}
        if request.mask:
            first["mask"] = ("mask.png", pictures.mask_for_openai(request.mask, given[0].size), "image/png")
        prompt, *later = request.prompts
        for n in _portions(request.params.n, 1 if later else self._most_n):
            for made in self._images(attempt, self.client.images.edit, prompt, n, **first):
                for then in later:
                    image = ("image." + made.mime.partition("/")[2], made.data, made.mime)
                    (made,) = self._images(attempt, self.client.images.edit, then, 1, image=image)
                attempt.keep(made)
        return ""

    def _caption(self, attempt: Attempt) -> str:
        request, text = attempt.request, self.settings.text

        def address(index: int) -> str:
            found = pictures.prepare(request.images[index], request.image_field, text.max_pixels)
            return f"data:{found.mime};base64,{found.base64()}"

        words: dict[str, Any] = {"model": self.model, "messages": dialogue.chat(request, text.system, address)}
        words |= {"temperature": request.params.temperature, "seed": request.params.seed}
        if self.known and self.known.reasoning:
            words["reasoning_effort"] = self.known.reasoning
        if text.schema:
            schema = json.loads(text.schema)
            form = {"name": "caption", "strict": _is_strict(schema), "schema": schema}
            words["response_format"] = {"type": "json_schema", "json_schema": form}
        answer = self._chat(attempt, words)
        attempt.bill(tokens(answer), attempt.at_most(()))
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices or getattr(choices[0], "message", None) is None:
            raise ProviderError("malformed", f"the answer is no chat completion: {self._clean(answer)}")
        said = choices[0].message
        for gone in sorted(self._unknown - set(LIMITS)):
            attempt.warnings.append(f"{self.model} knows no {gone}; it was left out")
        return responses.text_of(
            getattr(said, "content", None), choices[0].finish_reason, getattr(said, "refusal", None), text.schema
        )

    # Calls

    def _images(self, attempt: Attempt, ask: Callable, prompt: str, n: int, **files: Any) -> list[Made]:
        """`n` pictures, which are checked, from one call."""
        params, words = attempt.request.params, {"model": self.model, "prompt": prompt, **files}
        size = attempt.size
        words |= {"n": n} if n > 1 else {}
        words |= {"size": f"{size[0]}x{size[1]}"} if all(size) else {}
        words |= {w: v for w in self.options if (v := getattr(params, w)) not in ("", "auto")}
        if (self.known and self.known.formats) or self.settings.image.format != "png":
            words["output_format"] = self.settings.image.format
        at_most = attempt.at_most((prompt,), n)
        answer = attempt.call(lambda: self._send(ask, words, at_most), n)
        attempt.bill(tokens(answer), at_most)
        data = getattr(answer, "data", None)
        if not isinstance(data, list) or not data:
            raise ProviderError("malformed", f"the answer holds no pictures: {self._clean(answer)}")
        if len(data) < n:
            raise ProviderError("malformed", f"{n} pictures were asked for, {len(data)} came")
        return [Made.of(self._bytes(one, answer_sizes.of_picture(params))) for one in data[:n]]

    def _chat(self, attempt: Attempt, words: dict[str, Any]) -> object:
        """Ask, without the words that the model has refused; a refusal of another one is taken note of."""
        import openai

        at_most = attempt.at_most(())
        while True:
            limit, unknown = self._limit, set(self._unknown)
            sent = {word: value for word, value in words.items() if word not in unknown}
            sent[limit] = attempt.request.params.max_tokens

            def send(sent=sent) -> object:
                return self._send(self.client.chat.completions.create, sent, at_most, plain=openai.BadRequestError)

            answer = attempt.call(send)
            if not isinstance(answer, openai.BadRequestError):
                return answer
            word = refused_word(answer, sent)
            with self._lock:
                if word in LIMITS and LIMITS[word == LIMITS[0]] not in self._unknown:
                    self._unknown.add(word)
                    self._limit = LIMITS[word == LIMITS[0]]
                elif word and word not in LIMITS:
                    self._unknown.add(word)
                elif limit == self._limit:  # else another thread has learned it meanwhile
                    raise provider_error(answer, self._clean, at_most)

    def _send(self, ask: Callable, words: dict[str, Any], at_most: float, plain: tuple | type = ()) -> Any:
        """The SDK's answer. Errors become ProviderError; those in `plain` are returned."""
        import openai

        try:
            return ask(**words)
        except plain as error:
            return error
        except (openai.OpenAIError, Fault, ValueError) as error:  # broken JSON is a ValueError
            raise provider_error(error, self._clean, at_most) from None

    # Small things

    def _bytes(self, item: Any, most: int) -> bytes:
        """A picture's data, `most` bytes where it is to be fetched. Raises ProviderError."""
        packed, url = getattr(item, "b64_json", None), getattr(item, "url", None)
        if not packed and isinstance(url, str) and url.startswith("data:"):
            packed = url
        if isinstance(packed, str) and packed:
            try:
                return base64.b64decode(
                    packed.partition(",")[2] if packed.startswith("data:") else packed, validate=True
                )
            except binascii.Error as error:
                raise ProviderError("malformed", f"the picture in the answer is no base64: {error}") from None
        if not isinstance(url, str) or not url:
            raise ProviderError("malformed", "the answer holds neither a picture nor its address")
        for tries_left in reversed(range(MOST_FETCHES)):
            try:
                with up_to(most):
                    return self.http.fetch(url)
            except Fault as fault:
                if tries_left and isinstance(fault, NotFetched) and fault.again:
                    time.sleep(FETCH_AGAIN_S)
                    continue
                said = f"the picture is not in the answer, and cannot be fetched: {fault}: {url}"
                raise ProviderError("unsupported", self._clean(said)) from None
        raise AssertionError("the last try raises")


def _portions(n: int, most: int) -> Iterator[int]:
    """`n` in parts of `most` at most."""
    for done in range(0, n, most):
        yield min(most, n - done)


def _is_strict(schema: object) -> bool:
    """Whether every object in a schema is closed and wants all its keys: OpenAI's strict mode takes no others."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    named = schema.get("properties")
    closed = schema.get("additionalProperties") is False and not set(named or ()) - set(schema.get("required") or ())
    if (isinstance(named, dict) or schema.get("type") == "object") and not closed:
        return False
    return all(map(_is_strict, schema.values()))
