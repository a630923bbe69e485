"""The maximum cost of a request, and the actual cost of an answer, in USD; 0 if no price is known."""

from __future__ import annotations

import msgspec

from fastgen.config.settings import Settings
from fastgen.providers.capabilities import shape
from fastgen.providers.catalog import Price, find
from fastgen.types import ImageParams, Request, TextParams


def price(settings: Settings) -> Price | None:
    """None if it is free or unknown."""
    model = find(settings.backend.provider, settings.model.name) if settings.backend.provider else None
    return model.price if model else None


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
