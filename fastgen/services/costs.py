"""What a request may cost at most, and what an answer did cost, in USD. Where no price is known it is 0."""

from __future__ import annotations

import msgspec

from fastgen.services.known import NAMES, Price, find
from fastgen.services.wishes import shape
from fastgen.settings import Settings
from fastgen.types import ImageParams, Request, TextParams


def price(settings: Settings) -> Price | None:
    """None: it costs nothing, or nobody knows."""
    model = find(settings.backend, settings.model.name) if settings.backend in NAMES else None
    return model.price if model else None


def estimate(settings: Settings, request: Request) -> float:
    """USD that a request may cost at most; 0 where no price is known."""
    known = price(settings)
    if known is None:
        return 0.0
    # No token is shorter than a byte.
    words = sum(len(text.encode()) for text in (*request.prompts, *(text for _, text in request.dialogue)))
    if isinstance(request.params, TextParams):
        words += len(settings.text.system.encode()) + len(settings.text.schema.encode()) + 200
        usage = {"text_in": words, "image_in": len(request.images) * known.per_picture_in}
        return known.usd(usage | {"text_out": request.params.max_tokens})
    turns = len(request.prompts) if request.task == "edit" else 1
    pictures = sum(len(request.images) + bool(request.mask) + turn for turn in range(turns)) if request.images else 0
    asks = request.params.n * (turns if request.images else 1)
    usage = {"text_in": (words + 200) * asks, "image_in": pictures * known.per_picture_in * request.params.n}
    return known.usd(usage) + known.out_of_picture(_shaped(settings, request.params)) * request.samples * turns


def _shaped(settings: Settings, params: ImageParams) -> ImageParams:
    if settings.backend != "gemini":
        return params
    ratio, resolution = shape(settings, params)
    return msgspec.structs.replace(params, aspect_ratio=ratio, resolution=resolution)


def cost_of(settings: Settings, usage: dict[str, int], params: ImageParams | TextParams) -> float:
    """USD of an answer; where the service did not count, of its output at most; 0 where no price is known."""
    known = price(settings)
    if known is None:
        return 0.0
    if usage:
        return known.usd(usage)
    if isinstance(params, TextParams):
        return known.usd({"text_out": params.max_tokens})
    return known.out_of_picture(_shaped(settings, params)) * params.n
