"""The maximum cost of a request, and the actual cost of an answer, in USD; 0 if no price is known."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import blake2b

import msgspec

from fastgen.config.settings import Settings
from fastgen.providers.capabilities import shape
from fastgen.providers.catalog import Price, find
from fastgen.types import Done, ImageParams, Request, TextParams


def price(settings: Settings) -> Price | None:
    """USD per million tokens, as this run pays them; None if it is free or unknown."""
    model = find(settings.backend.provider, settings.model.name) if settings.backend.provider else None
    found = model.price if model else None
    if found is None or not settings.endpoint.batch_api:
        return found
    reduced = {kind: getattr(found, kind) * found.batch for kind in ("text_in", "image_in", "text_out", "image_out")}
    return msgspec.structs.replace(found, **reduced)


def estimate(settings: Settings, request: Request) -> float:
    """The maximum cost of a request in USD; 0 if no price is known."""
    known = price(settings)
    if known is None:
        return 0.0
    # A token has at least one byte; 200 more are for what the service adds.
    if isinstance(request.params, TextParams):
        words = (
            sum(len(text.encode()) for _, text in request.dialogue)
            + len(settings.text.system.encode())
            + len(settings.text.schema.encode())
            + 200
        )
        usage = {"text_in": words, "image_in": len(request.images) * known.per_picture_in}
        return known.usd(usage | {"text_out": request.params.max_tokens})
    n, turns = request.params.n, len(request.prompts)
    words, pictures = sum(len(text.encode()) + 200 for text in request.prompts), 0
    if request.task == "edit":  # a turn may resend everything before it
        words *= turns
        pictures = sum(len(request.images) + bool(request.mask) + turn for turn in range(turns))
    usage = {"text_in": words * n, "image_in": pictures * known.per_picture_in * n}
    return known.usd(usage) + known.out_of_picture(_shaped(settings, request.params)) * turns * n


def _shaped(settings: Settings, params: ImageParams) -> ImageParams:
    service = settings.backend.service
    if service is None or service.takes_sizes:
        return params
    ratio, resolution = shape(settings, params)
    return msgspec.structs.replace(params, aspect_ratio=ratio, resolution=resolution)


def cost_of(settings: Settings, usage: dict[str, int]) -> float:
    """The cost of an answer in USD, from the tokens that the service counted; 0 if no price is known."""
    known = price(settings)
    return known.usd(usage) if known else 0.0


def ask_of(settings: Settings, request: Request) -> str:
    """A short hash of everything that decides what a request costs. Two requests of a row that have the same one are
    the same request, asked twice."""
    told: list = [settings.backend.name, settings.model.name, request.content, request.params]
    for path in request.input_paths:
        with suppress(OSError, ValueError):
            about = os.stat(path)
            told += [about.st_size, about.st_mtime_ns]
    return blake2b(msgspec.json.encode(told), digest_size=6).hexdigest()


def cost_of_another(settings: Settings, request: Request, done: Done) -> float:
    """The maximum cost in USD of the same request, asked another time: its input costs the same again, and so does an
    image of a given size and quality. What a model says or thinks may be longer, up to its limit."""
    known = price(settings)
    if known is None or not done.usage:
        return done.cost
    if isinstance(request.params, TextParams):
        return done.cost + _rest(known, done, text_out=request.params.max_tokens)
    count = len(request.prompts) * request.params.n
    usd = done.cost + _rest(known, done, text_out=known.thinking * count)
    params, service = request.params, settings.backend.service
    chosen = params.quality not in ("", "auto") and params.width and params.height
    if service is not None and service.takes_sizes and not chosen:
        made = known.usd({"image_out": done.usage.get("image_out", 0)})
        most = (known.out_of_picture(params) - known.usd({"text_out": known.thinking})) * count
        usd += max(0.0, most - made)
    return usd


def _rest(known: Price, done: Done, text_out: int) -> float:
    """USD up to so many text tokens."""
    return known.usd({"text_out": max(0, text_out - done.usage.get("text_out", 0))})
