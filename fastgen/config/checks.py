"""Checks of single values of flags and rows: ranges, sizes, names. A value that does not fit is refused with the
reason."""

from __future__ import annotations

from fastgen.config.model_cards import ModelCard
from fastgen.errors import SettingsError, quoted

FORMATS = ("png", "jpeg", "webp")
DTYPES = ("float32", "bfloat16", "float16")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", **{d: d for d in DTYPES}}
MAX_SEED = 2**53 - 1
"""Every JSON reader keeps integers up to this exact."""
MAX_SIDE = 8192
MAX_STEPS = 1000
MAX_N = 256


def number(flag: str, value: int, least: int, most: int) -> int:
    """`value` if it is a whole number from `least` to `most`. Raises SettingsError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingsError(f"{flag} {quoted(value)}: must be a whole number from {least} to {most}")
    return value


def real(flag: str, value: float) -> float:
    """`value` as a float if it is a number from 0 to 100. Raises SettingsError."""
    # A comparison with NaN is false, and a comparison with an integer of any length is exact.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise SettingsError(f"{flag} {quoted(value)}: must be a number from 0 to 100")
    return float(value)


def parse_size(text: str) -> tuple[int, int]:
    """ "512x768" as (512, 768), width first. Raises ValueError."""
    text = text.replace("×", "x")
    width, x, height = text.lower().partition("x")
    if not (x and text.isascii() and width.strip().isdigit() and height.strip().isdigit()):
        raise ValueError("write it as WIDTHxHEIGHT in pixels, such as 1024x768")
    return int(width), int(height)


def check_size(width: int, height: int, card: ModelCard) -> None:
    """Raise ValueError if the model cannot make an image of that size; the message has the nearest size."""
    grid = card.grid
    if width < grid or height < grid:
        raise ValueError(f"each side must be at least {grid} pixels")
    if max(width, height) > MAX_SIDE or width * height > card.defaults.max_pixels:
        raise ValueError(
            f"{width}x{height} is {width * height / 1e6:,.1f} megapixels; the most is "
            f"{card.defaults.max_pixels / 1e6:.1f} megapixels and {MAX_SIDE} pixels per side"
        )
    if width % grid or height % grid:
        near = "x".join(str(max(grid, round(side / grid) * grid)) for side in (width, height))
        raise ValueError(f"{width}x{height} is not divisible by {grid}; the nearest size is {near}")
