"""What a request costs here: tokens for the usage block, and USD for them.

The counts follow the reference table where it has a formula; input pictures have none there, so they are one token for
32x32 pixels, at most 1536. A client's estimate must not be below these, and its own sum must equal the ledger when it
reads the usage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

# USD for a million tokens: text in, image in, text out, image out.
PRICES: dict[str, tuple[float, float, float, float]] = {
    "gpt-image-1-mini": (2, 2.5, 8, 8),
    "gpt-image-1.5": (5, 8, 32, 32),
    "chatgpt-image-latest": (5, 8, 32, 32),
    "gpt-image": (5, 8, 30, 30),
    "gemini-2.5-flash-image": (0.3, 0.3, 2.5, 30),
    "gemini-3-pro-image": (2, 2, 12, 120),
    "gemini-3.1-flash-image": (0.5, 0.5, 3, 60),
    "gemini-3.1-flash-lite-image": (0.25, 0.25, 1.5, 30),
    "gemini-nano-banana-2.1": (1.5, 1.5, 7.5, 30),
    "gemini": (0.5, 0.5, 3, 30),
    "": (2, 2, 8, 8),
}
EFFORT = {"low": 16, "medium": 48, "high": 96, "xhigh": 112, "max": 128}
GEMINI_TOKENS = {"512": 747, "1K": 1120, "2K": 1680, "4K": 2520}


@dataclass(slots=True)
class Usage:
    text_in: int = 0
    image_in: int = 0
    text_out: int = 0
    image_out: int = 0

    @property
    def total(self) -> int:
        return self.text_in + self.image_in + self.text_out + self.image_out

    def usd(self, model: str, prices: Mapping[str, tuple] | None = None) -> float:
        """By the longest name in the table that the model's id begins with."""
        table = PRICES if prices is None else {**PRICES, **prices}
        name = max((name for name in table if model.startswith(name)), key=len)
        counts = (self.text_in, self.image_in, self.text_out, self.image_out)
        return sum(count * price for count, price in zip(counts, table[name], strict=True)) / 1e6


def text_tokens(*texts: str) -> int:
    return sum(math.ceil(len(text) / 4) for text in texts)


def picture_tokens(picture: Image.Image) -> int:
    return min(1536, math.ceil(picture.width / 32) * math.ceil(picture.height / 32))


def drawn_tokens(size: tuple[int, int], quality: str) -> int:
    """Of one picture of a GPT image model."""
    factor, (short, long) = EFFORT[quality], sorted(size)
    return math.ceil(factor * round(factor * short / long) * (2e6 + size[0] * size[1]) / 4e6)
