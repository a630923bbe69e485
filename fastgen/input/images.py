"""Reads images from files and encodes them, with checks. Does not know models; imports Pillow on first use."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from fastgen.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Larger input images are refused before they are decoded."""
_EXIF_ORIENTATION = 0x0112
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_SIDEWAYS = (5, 6, 7, 8)
MIN_SELECTED = 128
"""A mask pixel of at least this (of 255) is to be repainted."""


def locate(text: object, root: str, field: str) -> str:
    """The absolute path for a row's path. A relative path starts at `root` and must stay below it."""
    if not isinstance(text, str):
        raise InputError(f"a path is a string, not {json.dumps(text)[:60]}", field)
    if not text.strip():
        raise InputError("the path is empty", field)
    if "\0" in text:
        raise InputError("the path holds a NUL character", field)
    if _ADDRESS.match(text):
        raise InputError(f"{text[:80]} is not a file; fastgen works offline, so download it and give its path", field)
    if os.path.isabs(text):
        return text
    path = os.path.normpath(os.path.join(root, text))
    if os.path.commonpath([path, root]) != root:
        raise InputError(
            f"{text} leads out of {root}, where relative paths start; give an absolute path or another --image-root",
            field,
        )
    return path


def probe(path: str, field: str) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header alone. Raises InputError."""
    return look(path, field)[0]


def look(path: str, field: str) -> tuple[tuple[int, int], bool]:
    """The size as from `probe`, and whether EXIF data asks to rotate or mirror the image. Raises InputError."""
    with _open(path, field) as image:
        width, height = image.size
        try:
            # If the header of a PNG has no EXIF, getexif() decodes the whole file to look for one at its end.
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        except Exception as error:  # see _open
            raise InputError(f"{path} has damaged EXIF data: {error}; save it again", field) from None
        orientation = exif.get(_EXIF_ORIENTATION, 1)
        return ((height, width) if orientation in _SIDEWAYS else (width, height)), orientation != 1


def load(path: str, field: str) -> Image:
    """The image as upright RGB; transparency is placed on white. Raises InputError."""
    from PIL import Image

    with _open(path, field) as image:
        image = _decode(image, path, field)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


def load_mask(path: str, size: tuple[int, int], field: str = "mask") -> Image:
    """The mask as mode "L" with 255 where to repaint and 0 elsewhere, at `size` (width, height).

    White repaints; in a mask with a transparency channel that varies, opaque repaints. Raises InputError.
    """
    from PIL import Image

    with _open(path, field) as image:
        image = _decode(image, path, field)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            alpha = image.convert("RGBA").getchannel("A")
            low, _ = alpha.getextrema()
            mask = alpha if low < 255 else image.convert("RGB").convert("L")
        else:
            mask = image.convert("L")
    if mask.size != size:
        have, want = mask.size[0] / mask.size[1], size[0] / size[1]
        if abs(have / want - 1) > 0.02:
            raise InputError(
                f"{path} is {mask.size[0]}x{mask.size[1]} and its image is {size[0]}x{size[1]}; a mask must have the "
                "shape of its image",
                field,
            )
        mask = mask.resize(size, Image.Resampling.NEAREST)
    mask = mask.point(lambda value: 255 if value >= MIN_SELECTED else 0)
    if not mask.getbbox():
        raise InputError(f"{path} selects nothing: only white (or opaque) pixels are repainted", field)
    return mask


def stitch(pictures: list[Image]) -> Image:
    """Several images side by side without gaps, scaled to the height of the first."""
    from PIL import Image

    height = pictures[0].height
    row = [
        p if p.height == height else p.resize((stitched_width(p.size, height), height), Image.Resampling.LANCZOS)
        for p in pictures
    ]
    sheet = Image.new("RGB", (sum(p.width for p in row), height))
    left = 0
    for picture in row:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet


def stitched_width(size: tuple[int, int], height: int) -> int:
    """The width of an image of `size` after it is scaled to `height`."""
    return max(1, round(size[0] * height / size[1]))


def encode(image: Image, format: str, about: dict[str, str]) -> bytes:
    """The bytes of an image file: PNG with `about` as text chunks, JPEG (quality 95) or WebP (quality 90)."""
    from PIL.PngImagePlugin import PngInfo

    buffer = io.BytesIO()
    if format == "png":
        info = PngInfo()
        for key, value in about.items():
            info.add_itxt(key, value)
        # Run-length coding of PNG's filtered rows: 3 times faster than Pillow's default, and the files are as small
        # (bench/LOG.md).
        image.save(buffer, "PNG", pnginfo=info, compress_level=1, compress_type=zlib.Z_RLE)
    elif format == "jpeg":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "WEBP", quality=90, method=2)
    return buffer.getvalue()


def _open(path: str, field: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not an image", field)
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file; check the path and --image-root", field)
    if not os.path.isfile(path):
        raise InputError(f"{path} is not a regular file", field)
    try:
        with warnings.catch_warnings():  # of large images; we have our own limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError:
        raise InputError(
            f"{path} is larger than {MAX_PIXELS // 1_000_000} megapixels; scale it down first", field
        ) from None
    except UnidentifiedImageError:
        size = Path(path).stat().st_size
        what = "is empty" if not size else "is not an image that Pillow can read"
        raise InputError(f"{path} {what}; use PNG, JPEG or WebP", field) from None
    except PermissionError:
        raise InputError(f"{path} is not readable; check its permissions", field) from None
    except Exception as error:  # damaged headers raise ValueError, SyntaxError, struct.error and more
        raise InputError(f"{path} is damaged: {error}; save it again", field) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise InputError(
            f"{path} is {width}x{height}, more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first", field
        )
    return image


def _decode(image: Image, path: str, field: str) -> Image:
    """The image, decoded and upright."""
    from PIL import ImageOps

    try:
        unknown = image.format == "PNG" and "exif" not in image.info  # probe() sees only the header, so do we
        image.load()
        image = _to_8_bits(image, path, field)
        return image if unknown else ImageOps.exif_transpose(image)
    except InputError:
        raise
    except Exception as error:  # see _open
        raise InputError(f"{path} is damaged or cut short: {error}; save it again", field) from None


def _to_8_bits(image: Image, path: str, field: str) -> Image:
    """Converts 16-bit grey to 8 bits, which Pillow would clip to white. Other modes stay as they are."""
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        raise InputError(f"{path} holds floating-point pixels; save it with 8 or 16 bits", field)
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise InputError(f"{path} holds values beyond 16 bits; save it with 8 or 16 bits", field)
    deep = image.mode != "I" or grey.max() > 255  # mode "I" has 32 bits even if the file has 16
    return Image.fromarray((grey // 256 if deep else grey).astype(np.uint8))
