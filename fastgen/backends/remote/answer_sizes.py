"""How many bytes an answer may have, depending on what was asked for. No more is read, whatever a server sends. The
limits are generous, since a cut-off answer was paid for."""

from __future__ import annotations

from fastgen import providers
from fastgen.types import ImageParams, Request, TextParams

ANY_PIXELS = 3840 * 2160
"""Pixels of an image whose size the service decides."""
LEAST_PIXELS = 2048 * 2048
"""Some servers make larger images than they were asked for."""
AROUND = 4 << 20
"""For what comes with images: signatures, texts, the rewritten prompt."""


def of_picture(params: ImageParams) -> int:
    """Bytes of one image file: four per pixel, as in an uncompressed image of noise."""
    asked = params.width * params.height or providers.PIXELS.get(params.resolution, ANY_PIXELS)
    return 4 * max(LEAST_PIXELS, asked * 3 // 2) + (1 << 20)


def of_answer(request: Request, pictures: int) -> int:
    """Bytes of an answer with that many images in base64, or with the text of a caption."""
    params = request.params
    if isinstance(params, TextParams):
        return (1 << 20) + 256 * params.max_tokens  # in any known vocabulary a token has at most 128 bytes
    return AROUND + pictures * of_picture(params) * 4 // 3
