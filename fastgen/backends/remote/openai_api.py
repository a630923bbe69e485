"""OpenAI and servers with its format: images and edits with masks through the vendor's SDK. Captions, and images that
come out of chats, are made without it (captions.py, chat_pictures.py).

Sends only what the row asks for, one call at a time; knows the SDK's exceptions, and nothing of retries."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from fastgen import providers
from fastgen.backends.remote import answer_sizes, image_words, pictures, responses
from fastgen.backends.remote.attempt import Attempt, Made
from fastgen.backends.remote.captions import Captions
from fastgen.backends.remote.chat import ABOUT_PARAMETERS, Chat
from fastgen.backends.remote.chat_pictures import ChatPictures
from fastgen.backends.remote.deferred import each
from fastgen.backends.remote.faults import Fault, NotFetched
from fastgen.backends.remote.gate import Gate
from fastgen.backends.remote.http_client import Client, up_to
from fastgen.backends.remote.image_answers import in_usual_form
from fastgen.backends.remote.learned import Learned
from fastgen.backends.remote.openai_answers import LIMITS, Complaint, complaint_of, provider_error, tokens
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.sdk_transport import over
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.types import Batch, Result

VENDOR = "api.openai.com"
MOST_N = 10
PNG_ONLY = "dall-e-2"
"""The model that does not accept JPEG or WebP."""
NO_ENDPOINT = (404, 405, 501)
"""Statuses of a server that does not have the endpoint."""
MOST_FETCHES, FETCH_AGAIN_S = 3, 1.0
"""Tries to fetch an image from its address: it is paid for, so another try costs nothing."""
NO_CHAT = ("gone", "input", "unauthorized")
"""Failures that say that the model is not to be chatted with either."""
_NOT_MANY = re.compile(
    r"(?<!\w)['\"`]?n['\"`]? ?(?:=|:|>|must|should|has to|can|cannot|is (?:not|only|un)|greater|parameter)|"
    r"(?:parameter|argument|field|property|input)s?:? (?:supplied:? )?['\"`]?n['\"`]?(?!\w)|"
    r"(?:only|at most|more than|exactly) (?:one|1|a single) image|(?:multiple|several) images",
    re.IGNORECASE,
)
"""How servers refuse several images in one call."""
INLINE = """have the service send images in its answers: --extra-body '{"response_format": "b64_json"}'"""
"""What helps where images are elsewhere."""


class _Learned(Exception):
    """The same call is to be sent again, without what the server has refused."""


class _OneAtATime(Exception):
    """The server gives one image per call, so the call is to be sent again for one."""


class NoEndpoint(ProviderError):
    """The server has no images endpoint, or not for this model."""


class OpenAIBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.model = settings.model.name
        self.known = providers.find(settings.backend.provider, self.model)
        self.options = settings.backend.service.options if settings.backend.service else ()
        self.gate = Gate(settings.endpoint.max_inflight, settings.endpoint.rpm, first=16)
        host = urlsplit(settings.endpoint.base_url).hostname or VENDOR
        self._is_vendor = host == VENDOR
        self._most_n = (self.known.most_n if self.known else 0) or MOST_N
        self._portion = self._most_n
        """Images that are asked for independently of others; it does not change with what is learned, so that a row
        that is done over makes the same calls."""
        self._takes_only_ours = self._is_vendor or self.known is not None
        """Whether it is known which parameters the service takes, so that it is given no others."""
        self.learned = Learned(self.model, LIMITS[0], image_words.MAY_GO)
        self.through: Callable[[Client], Client] = lambda http: http
        """What stands in for the client, if anything; see batch_api."""
        self._lock = threading.Lock()
        self._client: Any = None
        self._has_images = True
        """Whether the server has images endpoints, as far as is known; if it has none, images come from chats."""

    def open(self) -> dict:
        endpoint = self.settings.endpoint
        self._key = providers.key_of(endpoint.key_name, needed=bool(endpoint.key_name))
        self._clean = partial(responses.clean, key=self._key)
        most = endpoint.max_inflight
        self.http = self.through(
            Client(
                endpoint.base_url or f"https://{VENDOR}/v1", endpoint.timeout_s, most, image_hosts=endpoint.image_hosts
            )
        )
        self.chat = Chat(self.http, self._key, self._clean)
        theirs = self._is_vendor or bool(self.known) or re.match(r"gpt-[5-9]|o\d", self.model) is not None
        self.captions = Captions(self.chat, self.model, self._clean, self.known, theirs, self._more())
        self.drawn = ChatPictures(self.chat, self.model, endpoint.stream, self._clean, self._fetched)
        if self.settings.task != "caption":
            _ = self.client
        return {"base_url": self.http.base_url, "sdk": f"openai {version('openai')}", "streams": most}

    @property
    def client(self) -> Any:
        """The SDK's client, made at the first request for images: its import takes longer than many captions."""
        http = self.http
        with self._lock:
            if self._client is None:
                import openai

                self._client = openai.OpenAI(
                    api_key=self._key or "none",
                    base_url=http.base_url,
                    max_retries=0,
                    timeout=http.timeout_s,
                    http_client=over(http, form=in_usual_form),
                )
            return self._client

    def _more(self) -> dict[str, Any]:
        """What goes with every request for a caption: whether the model thinks, and --extra-body."""
        more: dict[str, Any] = {}
        if (thinking := self.settings.text.thinking) and self._is_vendor:
            more["reasoning_effort"] = "medium" if thinking == "on" else "none"
        elif thinking:
            is_on = thinking == "on"
            more["chat_template_kwargs"] = {"enable_thinking": is_on, "thinking": is_on}
        return more | json.loads(self.settings.rows.extra_body or "{}")

    def cancel_pending(self) -> None:
        self.gate.close()
        self.captions.learned.release()
        self.learned.release()

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings

    def close(self) -> None:
        self.http.close()

    def run(self, batch: Batch) -> list[Result]:
        work = {"t2i": self._draw, "edit": self._edit, "caption": self.captions.make}
        return [Attempt.run(self.settings, one, self.gate, work[one.task]) for one in batch.requests]

    # The three tasks

    def _draw(self, attempt: Attempt) -> None:
        def draw(prompt: str, n: int) -> None:
            for made in self._copies(n, partial(self._images, attempt, self.client.images.generate, prompt)):
                attempt.keep(made)

        portions = list(_portions(attempt.request.image_params.n, self._portion))
        each(partial(draw, prompt, n) for prompt in attempt.request.prompts for n in portions)

    def _edit(self, attempt: Attempt) -> None:
        request = attempt.request
        given = [pictures.prepare(path, request.image_field) for path in request.images]
        if self.model.startswith(PNG_ONLY):
            given = [pictures.as_png(one) for one in given]
        files = [(one.name, one.data, one.mime) for one in given]
        first: dict = {"image": files[0] if len(files) == 1 else files}
        attempt.warnings += [note for one in given for note in one.notes]
        if request.variation:
            self._vary(attempt, files)
            return
        if request.mask:
            mask = pictures.read_mask(request, given[0].size)
            attempt.warnings += mask.warnings
            first["mask"] = ("mask.png", pictures.mask_for_openai(mask.image), "image/png")
        prompt, *later = request.prompts

        def edit(n: int) -> None:
            for made in self._copies(n, partial(self._images, attempt, self._edits, prompt, **first)):
                for then in later:
                    if request.keep_turns:
                        attempt.keep(made)
                    image = ("image." + made.mime.partition("/")[2], made.data, made.mime)
                    made, *_ = self._images(attempt, self._edits, then, 1, image=image)
                attempt.keep(made)

        each(partial(edit, n) for n in _portions(request.image_params.n, 1 if later else self._portion))

    def _vary(self, attempt: Attempt, files: list) -> None:
        if len(files) > 1:
            raise ProviderError("unsupported", "use_variations: works for one image only", "images")
        ask = partial(self._images_of, attempt, self.client.images.create_variation, "", image=files[0])
        for made in self._copies(attempt.request.image_params.n, ask):
            attempt.keep(made)

    def _copies(self, n: int, ask: Callable[[int], list[Made]]) -> Iterator[Made]:
        """`n` images, with as many per call as the server gives."""
        while n > 0:
            images = ask(min(n, self._most_n))
            yield from images
            n -= len(images)

    # Calls

    def _edits(self, **words: Any) -> Any:
        """The SDK's call for an edit. A form cannot be in a file of requests, so there the images are in JSON."""
        if not self.settings.durable:
            return self.client.images.edit(**words)
        from openai.types import ImagesResponse

        more = words.pop("extra_body", {})
        files = words.pop("image")
        words["images"] = [_as_url(file) for file in (files if isinstance(files, list) else [files])]
        if "mask" in words:
            words["mask"] = _as_url(words["mask"])
        return self.client.post("/images/edits", cast_to=ImagesResponse, body=words | more)

    def _images(self, attempt: Attempt, ask: Callable, prompt: str, n: int, **files: Any) -> list[Made]:
        """Up to `n` images from one call, checked; if the server has no images endpoint, from `n` chats."""
        if self._has_images:
            try:
                return self._images_of(attempt, ask, prompt, n, **files)
            except NoEndpoint as none:
                found = self._by_chat(attempt, prompt, n, none, **files)
                self._no_images(none)
                return found
        return self._by_chat(attempt, prompt, n, None, **files)

    def _no_images(self, why: NoEndpoint) -> None:
        if self._has_images:
            self._has_images = False
            print(f"images are asked for by chat: {why}", file=sys.stderr)

    def _by_chat(
        self, attempt: Attempt, prompt: str, n: int, none: NoEndpoint | None, image: Any = (), mask: Any = None
    ) -> list[Made]:
        """Args: none: the reason, if it is not yet known that there is no other way; raised if there is no chat
        either."""
        if mask:
            raise ProviderError("unsupported", "mask: a chat does not support masks; leave it out", "mask")
        gone, warnings = image_words.left_out(attempt.request, self.model)
        attempt.not_sent += gone
        attempt.warnings += warnings
        for word in self.options:
            if getattr(attempt.request.params, word) not in ("", "auto"):
                attempt.warnings.append(f"{word} was left out: a chat does not support it")
        try:
            given = image if isinstance(image, list) else [image] if image else []
            return [made for _ in range(n) for made in self.drawn.make(attempt, prompt, given)]
        except ProviderError as error:
            if none and error.kind in NO_CHAT:
                raise none from None
            if none and error.kind in ("refused", "empty", "truncated"):  # it was a chat
                self._no_images(none)
            raise

    def _images_of(self, attempt: Attempt, ask: Callable, prompt: str, n: int, **files: Any) -> list[Made]:
        """Up to `n` images, at least one, from one call of an images endpoint, checked."""
        params, words = (
            attempt.request.image_params,
            {"model": self.model, **files, **({"prompt": prompt} if prompt else {})},
        )
        size = attempt.size
        words |= {"n": n} if n > 1 else {}
        words |= {"size": f"{size[0]}x{size[1]}"} if all(size) else {}
        words |= {w: v for w in self.options if (v := getattr(params, w)) not in ("", "auto")}
        if (self.known and self.known.formats) or self.settings.image.format != "png":
            words["output_format"] = self.settings.image.format
        at_most = attempt.at_most((prompt,), n)
        try:
            answer = self._answered(attempt, ask, words, n, at_most)
        except _OneAtATime:
            return self._images_of(attempt, ask, prompt, 1, **files)
        attempt.bill(tokens(getattr(answer, "usage", None)), at_most)
        data = getattr(answer, "data", None)
        if not isinstance(data, list) or not data:
            raise ProviderError("malformed", f"the answer has no images: {self._clean(answer)}")
        if len(data) < n:  # those that came are paid for, and the next call would not bring more
            self._most_n = 1
        return [Made.of(self._bytes(one, answer_sizes.of_picture(params))) for one in data[:n]]

    def _answered(self, attempt: Attempt, ask: Callable, words: dict[str, Any], n: int, at_most: float) -> Any:
        """The SDK's answer to a call with what the row says, without what the server has refused."""
        request, more = attempt.request, json.loads(self.settings.rows.extra_body or "{}")
        wanted: dict[str, Any] = {}
        if not self._takes_only_ours:
            words = {**words, "response_format": "b64_json"}
            wanted = image_words.words(request, len(attempt.paths))
        while True:
            with self.learned.asking():
                if n > self._most_n:  # learned while this call waited
                    raise _OneAtATime
                sent = self.learned.fitted(words | wanted)
                own = {word: value for word, value in sent.items() if word in words}
                body = {word: value for word, value in sent.items() if word not in words} | more
                try:
                    answer = attempt.call(partial(self._send, ask, own, body, at_most), n)
                except _Learned:
                    continue
                self.learned.accepted()
                break
        self._note(attempt, words | wanted, sent)
        return answer

    def _note(self, attempt: Attempt, wanted: dict[str, Any], sent: dict[str, Any]) -> None:
        """Record what of the row was sent, and what was not."""
        asked = image_words.asked(attempt.request)
        gone = [name for name in asked if image_words.WORDS[name] not in sent]
        attempt.not_sent += gone
        if self._takes_only_ours:
            attempt.warnings += image_words.left_out(attempt.request, self.model)[1]
        attempt.warnings += self.learned.notes(wanted)[0]
        for name in ("seed", "steps", "guidance"):
            if name not in attempt.sent and (word := image_words.WORDS[name]) in sent:
                attempt.sent[name] = sent[word]

    def _send(self, ask: Callable, words: dict[str, Any], body: dict[str, Any], at_most: float) -> Any:
        """The SDK's answer. Raises ProviderError; _Learned, _OneAtATime if there is a way without what is refused."""
        import openai

        try:
            return ask(**words, **({"extra_body": body} if body else {}))
        except (openai.OpenAIError, Fault, ValueError) as error:  # broken JSON is a ValueError
            found = provider_error(error, self._clean, at_most)
            is_complaint = isinstance(error, openai.APIStatusError) and error.status_code in ABOUT_PARAMETERS
            if is_complaint and self.learned.learn(complaint_of(error), words | body):
                raise _Learned from None
            if is_complaint and words.get("n", 1) > 1 and _refuses_many(complaint_of(error)):
                self._most_n = 1
                raise _OneAtATime from None
            if found.kind == "gone" and not self._is_vendor and getattr(error, "status_code", 0) in NO_ENDPOINT:
                raise NoEndpoint(found.kind, str(found)) from None
            raise found from None

    # Details

    def _fetched(self, address: str, attempt: Attempt) -> bytes:
        return self._bytes(SimpleNamespace(url=address), answer_sizes.of_picture(attempt.request.image_params))

    def _bytes(self, item: Any, most: int) -> bytes:
        """The data of an image, up to `most` bytes if it must be fetched. Raises ProviderError."""
        packed, url = getattr(item, "b64_json", None), getattr(item, "url", None)
        if not packed and isinstance(url, str) and url.startswith("data:"):
            packed = url
        if isinstance(packed, str) and packed:
            try:
                return _unpacked(packed.partition(",")[2] if packed.startswith("data:") else packed)
            except binascii.Error as error:
                raise ProviderError("malformed", f"the image in the answer is not base64: {error}") from None
        if not isinstance(url, str) or not url:
            raise ProviderError("malformed", "the answer has neither an image nor its address")
        for tries_left in reversed(range(MOST_FETCHES)):
            try:
                with up_to(most):
                    return self.http.fetch(url)
            except Fault as fault:
                if tries_left and isinstance(fault, NotFetched) and fault.again:
                    time.sleep(FETCH_AGAIN_S)
                    continue
                said = f"the image is not in the answer and cannot be fetched: {fault}: {url}; {INLINE}"
                raise ProviderError("unsupported", self._clean(said)) from None
        raise AssertionError("the last try raises")


def _unpacked(packed: str) -> bytes:
    """Base64, also in lines, without padding, or in the form for addresses. Raises binascii.Error."""
    plain = "".join(packed.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _refuses_many(complaint: Complaint) -> bool:
    return complaint.param == "n" or _NOT_MANY.search(complaint.message) is not None


def _as_url(file: tuple[str, bytes, str]) -> dict[str, str]:
    """(name, data, type) of an image as JSON has it."""
    _, data, mime = file
    return {"image_url": f"data:{mime};base64,{base64.b64encode(data).decode()}"}


def _portions(n: int, most: int) -> Iterator[int]:
    """`n` split into parts of at most `most`."""
    for done in range(0, n, most):
        yield min(most, n - done)
