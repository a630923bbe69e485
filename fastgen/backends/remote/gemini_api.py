"""Gemini, through the vendor's SDK: images, edits as a conversation, captions. Refusals come with status 200.

Its format has no masks and only one image per call. So a mask is sent as one more image, and applied here afterwards;
several images take several calls. Knows the SDK's exceptions, but not retries."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastgen import providers
from fastgen.backends.remote import image_words, pictures, responses
from fastgen.backends.remote.answer_text import words_instead
from fastgen.backends.remote.attempt import Attempt, Made
from fastgen.backends.remote.deferred import each
from fastgen.backends.remote.gate import Gate
from fastgen.backends.remote.gemini_answers import check, finish, parts_of, provider_error, tokens
from fastgen.backends.remote.gemini_captions import GeminiCaptions
from fastgen.backends.remote.http_client import Client
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.sdk_transport import over
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.input import images
from fastgen.types import Batch, Request, Result

VENDOR = "https://generativelanguage.googleapis.com"
OLDER = "v1beta"
"""Served by gateways that do not know the SDK's own API version yet."""
MASK = (
    "The last picture is a mask of the first one. Change only what is white in the mask, keep all else as it is, and "
    "answer with the whole first picture, changed: "
)


class GeminiBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.model = settings.model.name
        self.gate = Gate(settings.endpoint.max_inflight, settings.endpoint.rpm, first=16)
        self.through: Callable[[Client], Client] = lambda http: http
        """What stands in for the client, if anything; see batch_api."""
        self.captions = GeminiCaptions(self.model, self._ask)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def open(self) -> dict:
        from google import genai

        endpoint = self.settings.endpoint
        self._key = providers.key_of(endpoint.key_name, needed=bool(endpoint.key_name))
        self._clean = partial(responses.clean, key=self._key)
        self.http = self.through(Client(endpoint.base_url or VENDOR, endpoint.timeout_s, endpoint.max_inflight))
        self.base_url, self.version = providers.gemini_endpoint(self.http.base_url if endpoint.base_url else "")
        self._may_change = not self.version
        self._client(self.version)
        return {
            "base_url": self.http.base_url,
            "sdk": f"google-genai {genai.__version__}",
            "streams": endpoint.max_inflight,
        }

    def _client(self, version: str) -> Any:
        """One client per API version; the SDK closes the connections of clients that nobody references."""
        from google import genai
        from google.genai import types

        with self._lock:
            if version not in self._clients:
                endpoint = self.settings.endpoint
                options = types.HttpOptions(
                    base_url=self.base_url or None,
                    api_version=version or None,
                    timeout=round(endpoint.timeout_s * 1000),
                    retry_options=types.HttpRetryOptions(attempts=1),
                    httpx_client=over(self.http),
                )
                self._clients[version] = genai.Client(api_key=self._key or "none", vertexai=False, http_options=options)
            return self._clients[version]

    def cancel_pending(self) -> None:
        self.gate.close()
        self.captions.learned.release()

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def run(self, batch: Batch) -> list[Result]:
        work = {"t2i": self._draw, "edit": self._edit, "caption": self.captions.make}
        return [Attempt.run(self.settings, one, self.gate, work[one.task]) for one in batch.requests]

    # The three tasks

    def _draw(self, attempt: Attempt) -> None:
        config = self._drawing(attempt)

        def draw(prompt: str) -> None:
            answer = self._ask(attempt, [self._turn(prompt)], config, attempt.at_most((prompt,)))
            attempt.keep(self._picture(attempt, answer))

        copies = range(attempt.request.image_params.n)
        each(partial(draw, prompt) for prompt in attempt.request.prompts for _ in copies)

    def _edit(self, attempt: Attempt) -> None:
        request = attempt.request
        config = self._drawing(attempt)
        given = [pictures.prepare(path, request.image_field) for path in request.images]
        blobs = [(one.data, one.mime) for one in given]
        first, mask = request.prompts[0], None
        attempt.warnings += [note for one in given for note in one.notes]
        if request.mask:
            read = pictures.read_mask(request, given[0].size)
            mask = read.image
            attempt.warnings += read.warnings
            written = io.BytesIO()
            mask.save(written, "PNG")
            blobs.append((written.getvalue(), "image/png"))
            first = MASK + first

        def edit() -> None:
            # All turns are sent each time; the model's turns keep the signatures that they came with.
            contents: list = []
            for turn, prompt in enumerate(request.prompts):
                contents.append(self._turn(prompt) if contents else self._turn(first, blobs))
                at_most = attempt.at_most(request.prompts[: turn + 1]) - attempt.at_most(request.prompts[:turn])
                answer = self._ask(attempt, list(contents), config, at_most)
                made = self._picture(attempt, answer)
                contents.append(answer.candidates[0].content)
                if not request.keep_turns and turn + 1 < len(request.prompts):
                    continue
                if mask is not None:
                    attempt.keep(self._pasted(made, request, mask), any_size=True)
                else:
                    attempt.keep(made)

        each(edit for _ in range(request.image_params.n))

    # What is sent

    def _turn(self, prompt: str, blobs: Sequence[tuple[bytes, str]] = ()) -> Any:
        from google.genai import types

        parts = [types.Part.from_bytes(data=data, mime_type=mime) for data, mime in blobs]
        return types.Content(role="user", parts=[*parts, types.Part.from_text(text=prompt)])

    def _drawing(self, attempt: Attempt) -> Any:
        from google.genai import types

        request = attempt.request
        gone, warnings = image_words.left_out(request, self.model)
        attempt.not_sent += gone
        attempt.warnings += warnings
        ratio, size = providers.shape(self.settings, request.image_params)
        image = types.ImageConfig(aspect_ratio=ratio or None, image_size=size or None) if ratio or size else None
        return types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"], image_config=image)

    def _ask(self, attempt: Attempt, contents: list, config: Any, at_most: float) -> Any:
        """One answer with content, billed. `at_most`: USD that it may cost. Raises ProviderError."""
        from google.genai import errors

        def send() -> Any:
            version, may_change = self.version, self._may_change
            try:
                try:
                    answer = self._client(version).models.generate_content(
                        model=self.model, contents=contents, config=config
                    )
                except errors.APIError as error:
                    if not (may_change and error.code == 404 and self.model not in str(error.details)):
                        raise
                    version = OLDER
                    answer = self._client(version).models.generate_content(
                        model=self.model, contents=contents, config=config
                    )
            except Exception as error:  # APIError, JSON errors, and the classes of two versions of one library
                raise provider_error(error, self._clean, at_most) from None
            self.version, self._may_change = version, False
            return answer

        answer = attempt.call(send)
        attempt.bill(tokens(getattr(answer, "usage_metadata", None), bool(config.response_modalities)), at_most)
        check(answer, self._clean)
        return answer

    # What comes back

    def _picture(self, attempt: Attempt, answer: Any) -> Made:
        """The image in an answer, checked. Raises ProviderError."""
        parts = parts_of(answer)
        found = [part.inline_data.data for part in parts if part.inline_data and part.inline_data.data]
        if not found:
            words = " ".join(part.text for part in parts if part.text)
            if finish(answer) == "MAX_TOKENS":
                raise ProviderError("truncated", "the answer was cut off before its image")
            if words.strip():
                raise words_instead(words, self._clean)
            raise ProviderError("empty", "the answer has no image")
        if len(found) > 1:  # gateways that drop the mark of thoughts show the drafts too
            attempt.warnings.append(f"{len(found)} images came instead of one; the last is used")
        return Made.of(found[-1])

    def _pasted(self, made: Made, request: Request, mask: Any) -> Made:
        """The result where the mask is white, the input elsewhere, because the model may have changed everything."""
        from PIL import Image

        colors = images.load_colors(request.images[0], request.image_field)
        before = colors.own
        with Image.open(io.BytesIO(made.data)) as answered:
            after = colors.as_own(images.scaled(answered.convert("RGB"), before.size))
        whole = Image.composite(after, before, mask)
        format = self.settings.image.format
        return Made(images.encode(whole, format, {}, colors.profile), format.upper(), whole.size)
