"""How many bytes an answer may have, by what was asked for: no more is read, whatever a server sends. Generous, since
what is cut off was paid for."""

from __future__ import annotations

from fastgen import providers
from fastgen.types import ImageParams, Request, TextParams

ANY_PIXELS = 3840 * 2160
"""Of a picture whose size the service decides."""
LEAST_PIXELS = 2048 * 2048
"""Some servers make larger pictures than they were asked for."""
AROUND = 4 << 20
"""For what comes with pictures: signatures, words, the prompt as it was rewritten."""


def of_picture(params: ImageParams) -> int:
    """Bytes of one picture's file: four a pixel is what one of noise has that is not compressed."""
    asked = params.width * params.height or providers.PIXELS.get(params.resolution, ANY_PIXELS)
    return 4 * max(LEAST_PIXELS, asked * 3 // 2) + (1 << 20)


def of_answer(request: Request, pictures: int) -> int:
    """Bytes of an answer with that many pictures in base64, or with the text of a caption."""
    params = request.params
    if isinstance(params, TextParams):
        return (1 << 20) + 256 * params.max_tokens  # a token has 128 bytes at most in any known vocabulary
    return AROUND + pictures * of_picture(params) * 4 // 3
