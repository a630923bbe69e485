"""One try of one request at a paid API: passes each call through the gate, counts its cost, checks and writes what
comes back. Does not know SDKs: they raise, and their backend translates that into `ProviderError`."""

from __future__ import annotations

import io
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from fastgen import providers
from fastgen.backends.base import before_paying
from fastgen.backends.remote import answer_sizes, responses
from fastgen.backends.remote.answer_text import Text
from fastgen.backends.remote.connections import now
from fastgen.backends.remote.deferred import here
from fastgen.backends.remote.failure_words import told
from fastgen.backends.remote.gate import Gate
from fastgen.backends.remote.http_client import up_to
from fastgen.backends.remote.pictures import decoding
from fastgen.backends.remote.responses import ProviderError, through
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, InputError
from fastgen.input import images
from fastgen.output import artifacts
from fastgen.types import Done, FileStamp, ImageParams, Request, Result

Answer = TypeVar("Answer")
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif"}
NAMES = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif"}
"""Pillow's name of a format -> the file extension, which is also the value of `--format`."""
MOST_WAITS = 10
"""How often a half-finished row waits for its next call. A row that has nothing yet goes back to the queue."""


@dataclass(frozen=True)
class Made:
    """An image that an API made, checked to be complete."""

    data: bytes
    kind: str
    """By its own first bytes, not by what was asked for: PNG, JPEG, ..."""
    size: tuple[int, int]

    @classmethod
    def of(cls, data: bytes) -> Made:
        """Raises ProviderError."""
        from PIL import Image, UnidentifiedImageError

        try:
            with decoding, Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > images.MAX_PIXELS:
                    raise Image.DecompressionBombError
                picture.load()
                kind, size = picture.format or "", picture.size
        except Image.DecompressionBombError:  # another try would give the same, and this one is paid for
            said = f"the image in the answer is larger than {images.MAX_PIXELS // 1_000_000} megapixels"
            raise ProviderError("unsupported", said) from None
        except UnidentifiedImageError:
            raise ProviderError("malformed", "what the answer has instead of an image is not an image") from None
        except Exception as error:  # damage raises OSError, SyntaxError, ValueError, struct.error and more
            raise ProviderError("malformed", f"the image in the answer cannot be decoded: {error}") from None
        if kind not in SUFFIXES:
            raise ProviderError("malformed", f"the answer contains a {kind} file; PNG, JPEG or WebP was expected")
        return cls(data, kind, size)

    @property
    def mime(self) -> str:
        return f"image/{NAMES[self.kind]}"


class Attempt:
    """Args: model: the name of the model, if the service chose it."""

    def __init__(self, settings: Settings, request: Request, gate: Gate, model: str = ""):
        self.settings, self.request, self.gate = settings, request, gate
        self.model = model or settings.model.name
        self.usage: dict[str, int] = {}
        self.cost = 0.0
        """USD of the calls that were answered."""
        self.paths: list[str] = []
        self.files: list[FileStamp] = []
        self.warnings: list[str] = []
        self.not_sent: list[str] = []
        """Parameters of the row that the service does not take."""
        self.sent: dict[str, int | float] = {}
        """Those of `seed`, `steps` and `guidance` that the service was given."""
        self.answer = Text("")
        """The text of a caption, with what came around it."""
        self._has_price = providers.price(settings) is not None
        self._started = time.monotonic()

    @classmethod
    def run(
        cls, settings: Settings, request: Request, gate: Gate, work: Callable[[Attempt], None], model: str = ""
    ) -> Result:
        """Run `work`, which keeps what it makes in the attempt. Raises DiskError."""
        attempt = cls(settings, request, gate, model)
        try:
            work(attempt)
            return attempt._done()
        except InputError as error:
            provider_error = ProviderError("input", str(error), error.field)
        except ProviderError as error:
            provider_error = error
        except DiskError:
            raise
        except Exception as error:  # an unexpected error, so it is unknown what was billed
            key = providers.key_of(settings.endpoint.key_name)
            trace = traceback.format_exc()
            print(trace.replace(key, "...") if key else trace, file=sys.stderr)
            left = max(0.0, providers.estimate(settings, request) - attempt.cost)
            provider_error = ProviderError(
                "internal", f"{type(error).__name__}: {responses.clean(error, key)}", cost=left
            )
        provider_error.cost += attempt.cost
        if provider_error.answer and (key := providers.key_of(settings.endpoint.key_name)):
            provider_error.answer = provider_error.answer.replace(key, "...")
        failed = provider_error.failed(request, settings.backend.name, attempt.model)
        return replace(failed, message=told(failed, settings, request.row))

    def call(self, send: Callable[[], Answer], pictures: int = 1) -> Answer:
        """Send one HTTP request, for that many images or a text, when the gate lets it through. Everything that goes
        wrong is a ProviderError."""
        most = answer_sizes.of_answer(self.request, pictures)
        for waits in range(MOST_WAITS + 1):
            begun = bool(self.cost or self.paths)
            try:
                with through(self.gate, begun), up_to(most):
                    if self._has_price:  # otherwise nobody could say what may have been billed
                        now.before_sending = before_paying
                    return send()
            except ProviderError as provider_error:
                # What is already paid for is not thrown away because the service asks for a pause or because the run
                # should end.
                if not (provider_error.kind == "rate_limited" and begun and waits < MOST_WAITS):
                    raise
            finally:
                now.before_sending = None
        raise AssertionError("the last wait raises")

    def bill(self, usage: dict[str, int], at_most: float) -> None:
        """Count what an answer used. If it does not say, it counts as `at_most` USD."""
        for key, tokens in usage.items():
            self.usage[key] = self.usage.get(key, 0) + tokens
        self.cost += providers.cost_of(self.settings, usage) if usage else at_most

    def at_most(self, prompts: tuple[str, ...], n: int = 1) -> float:
        """USD that one call may have cost if its answer never came or cannot be read."""
        params = self.request.params
        params = replace(params, n=n) if isinstance(params, ImageParams) else params
        return providers.estimate(self.settings, replace(self.request, prompts=prompts, params=params))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) that the row asks for; (0, 0) if any size is fine."""
        return self.request.image_params.width, self.request.image_params.height

    def keep(self, made: Made, any_size: bool = False) -> None:
        """Write the next image as it came. Raises DiskError."""
        if here.row is not None and here.row.is_missing_answers:
            return  # images before this one may be missing, so it has no number yet; the row is done over anyway
        wanted = (0, 0) if any_size else self.size
        number = len(self.paths)
        asked = self.settings.image.format
        if NAMES[made.kind] != asked:
            self.warnings.append(f"image {number} came as {NAMES[made.kind]}, not {asked}; it is stored as it came")
        if all(wanted) and made.size != wanted:
            got, want = (f"{width}x{height}" for width, height in (made.size, wanted))
            self.warnings.append(f"image {number} came at {got}, not {want}; it is stored as it came")
        path = artifacts.picture(self.request, number, SUFFIXES[made.kind])
        self.files.append(artifacts.write(Path(self.settings.run.out), path, made.data))
        self.paths.append(path)

    def _done(self) -> Done:
        if self.paths:
            artifacts.sync_images(Path(self.settings.run.out), self.paths)
        settings, request = self.settings, self.request
        return Done(
            id=request.id,
            backend=settings.backend.name,
            model=self.model,
            paths=tuple(self.paths),
            files=tuple(self.files),
            params=replace(request.params, **self.sent) if self.sent else request.params,
            seconds=round(time.monotonic() - self._started, 4),
            text=self.answer.text,
            reasoning=self.answer.reasoning,
            removed=self.answer.removed,
            sent=tuple(self.sent),
            not_sent=tuple(dict.fromkeys(self.not_sent)),
            content=request.content,
            usage=self.usage,
            warnings=tuple(dict.fromkeys(self.warnings)),
            cost=round(self.cost, 8),
        )
