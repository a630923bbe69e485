"""Pictures in and out of files, checked. Knows nothing of models; imports Pillow when first used."""

from __future__ import annotations

import io
import json
import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from fastgen.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Larger input pictures are refused before they are decoded."""
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
MIN_SELECTED = 128
"""A mask pixel of at least this (of 255) is to be repainted."""


def locate(text: object, root: str, field: str) -> str:
    """An absolute path for what the row says. A relative path starts at `root` and stays below it."""
    if not isinstance(text, str):
        raise InputError(f"a path is a string, not {json.dumps(text)[:60]}", field)
    if not text.strip():
        raise InputError("the path is empty", field)
    if "\0" in text:
        raise InputError("the path holds a NUL character", field)
    if text.startswith(("http://", "https://", "data:")):
        raise InputError(f"{text[:80]} is not a file; fastgen works offline: download it and give its path", field)
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
    """(width, height) as it will be seen (EXIF orientation applied), from the header alone. Raises InputError."""
    return look(path, field)[0]


def look(path: str, field: str) -> tuple[tuple[int, int], bool]:
    """What `probe` says, and whether EXIF data says that the picture is to be turned or mirrored. Raises InputError."""
    with _open(path, field) as image:
        width, height = image.size
        try:
            # A PNG whose header has no EXIF is decoded whole by getexif(), in search of one at its end.
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        except Exception as error:  # see _open
            raise InputError(f"{path} has damaged EXIF data: {error}; save it again", field) from None
        orientation = exif.get(_EXIF_ORIENTATION, 1)
        return ((height, width) if orientation in _SIDEWAYS else (width, height)), orientation != 1


def load(path: str, field: str) -> Image:
    """The picture as upright RGB; transparency is laid on white. Raises InputError."""
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
                f"{path} is {mask.size[0]}x{mask.size[1]} and its picture is {size[0]}x{size[1]}; "
                "a mask has the shape of its picture",
                field,
            )
        mask = mask.resize(size, Image.Resampling.NEAREST)
    mask = mask.point(lambda value: 255 if value >= MIN_SELECTED else 0)
    if not mask.getbbox():
        raise InputError(f"{path} selects nothing: white (or opaque) is what gets repainted", field)
    return mask


def stitch(pictures: list[Image]) -> Image:
    """Several pictures side by side, brought to the height of the first; no gap."""
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
    """How wide a picture of `size` is once it is brought to `height`."""
    return max(1, round(size[0] * height / size[1]))


def encode(image: Image, format: str, about: dict[str, str]) -> bytes:
    """The picture as a file's bytes: PNG with `about` as text chunks, JPEG (quality 95) or WebP (quality 90)."""
    from PIL.PngImagePlugin import PngInfo

    buffer = io.BytesIO()
    if format == "png":
        info = PngInfo()
        for key, value in about.items():
            info.add_itxt(key, value)
        # Run lengths on PNG's filtered rows: 3 times faster than Pillow's default, with files as small (bench/LOG.md).
        image.save(buffer, "PNG", pnginfo=info, compress_level=1, compress_type=zlib.Z_RLE)
    elif format == "jpeg":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "WEBP", quality=90, method=2)
    return buffer.getvalue()


def _open(path: str, field: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not a picture", field)
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file; check the path and --image-root", field)
    if not os.path.isfile(path):
        raise InputError(f"{path} is not a regular file", field)
    try:
        with warnings.catch_warnings():  # of large pictures; the limit is ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError:
        raise InputError(
            f"{path} is larger than {MAX_PIXELS // 1_000_000} megapixels; scale it down first", field
        ) from None
    except UnidentifiedImageError:
        size = Path(path).stat().st_size
        what = "is empty" if not size else "is not a picture that Pillow can read"
        raise InputError(f"{path} {what}; use PNG, JPEG or WebP", field) from None
    except PermissionError:
        raise InputError(f"{path} is not readable; check its permissions", field) from None
    except Exception as error:  # damaged headers surface as ValueError, SyntaxError, struct.error and more
        raise InputError(f"{path} is damaged: {error}; save it again", field) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise InputError(
            f"{path} is {width}x{height}, more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first", field
        )
    return image


def _decode(image: Image, path: str, field: str) -> Image:
    """The picture decoded and upright."""
    from PIL import ImageOps

    try:
        unknown = image.format == "PNG" and "exif" not in image.info  # probe() sees only the header, so neither do we
        image.load()
        image = _to_8_bits(image, path, field)
        return image if unknown else ImageOps.exif_transpose(image)
    except InputError:
        raise
    except Exception as error:  # see _open
        raise InputError(f"{path} is damaged or cut short: {error}; save it again", field) from None


def _to_8_bits(image: Image, path: str, field: str) -> Image:
    """Grey of 16 bits as 8 bits; Pillow would clip it to white. Other modes as they are."""
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        raise InputError(f"{path} holds floating-point pixels; save it with 8 or 16 bits", field)
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise InputError(f"{path} holds values beyond 16 bits; save it with 8 or 16 bits", field)
    deep = image.mode != "I" or grey.max() > 255  # "I" has 32 bits, whatever the file had
    return Image.fromarray((grey // 256 if deep else grey).astype(np.uint8))
