"""Image files as they are sent to an API: the original bytes if possible, else upright, in sRGB, scaled down and
encoded once.

Decoding takes memory, so only a few pictures are decoded at the same time, whatever the number of requests.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgen.errors import InputError, quoted
from fastgen.input import images
from fastgen.input.color_profiles import is_srgb
from fastgen.input.masks import Mask, load_mask
from fastgen.types import Request

if TYPE_CHECKING:
    from PIL.Image import Image

MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""How a complete file ends. A file with more data after that (some cameras add it) is decoded."""
decoding = threading.BoundedSemaphore((os.cpu_count() or 1) + 1)
"""Held while a picture is decoded, one that came from a service too."""


@dataclass(frozen=True)
class Picture:
    data: bytes
    mime: str
    size: tuple[int, int]
    """(width, height) of what is sent."""
    notes: tuple[str, ...] = ()
    """Notes for the user about it."""

    @property
    def name(self) -> str:
        return "image." + self.mime.partition("/")[2]

    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")


class Recent:
    """Pictures that were encoded last, so that one is decoded once for several questions. Args: most: bytes of them."""

    def __init__(self, most: int):
        self.most, self._size = most, 0
        self._found: OrderedDict[tuple, Picture] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def key(path: str, max_pixels: int) -> tuple:
        """What tells a file from one that had its name before."""
        about = os.stat(path)
        return path, about.st_ino, about.st_size, about.st_mtime_ns, max_pixels

    def get(self, key: tuple) -> Picture | None:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: tuple, picture: Picture) -> None:
        with self._lock:
            if key in self._found or len(picture.data) > self.most:
                return
            self._found[key] = picture
            self._size += len(picture.data)
            while self._size > self.most:
                _, gone = self._found.popitem(last=False)
                self._size -= len(gone.data)


_recent = Recent(32 << 20)


def prepare(path: str, field: str, max_pixels: int = 0) -> Picture:
    """The image, with at most `max_pixels` pixels if that is not 0. Raises InputError."""
    if (found := _as_it_is(path, field, max_pixels)) is not None:
        return found
    key = _recent.key(path, max_pixels)
    if (found := _recent.get(key)) is not None:
        return found
    found = _encoded(path, field, max_pixels)
    _recent.put(key, found)
    return found


def _encoded(path: str, field: str, max_pixels: int) -> Picture:
    from PIL import Image

    with decoding:
        colors = images.load_colors(path, field)
        picture, notes = colors.srgb, tuple(f"{quoted(path)}: {note}" for note in colors.notes)
        width, height = picture.size
        if max_pixels and width * height > max_pixels:
            shrink = (max_pixels / (width * height)) ** 0.5
            picture = picture.resize(
                (max(1, int(width * shrink)), max(1, int(height * shrink))), Image.Resampling.BICUBIC
            )
        written = io.BytesIO()
        # Flat drawings and masks suffer from JPEG and are small as PNG. For photographs it is the other way round.
        if max_pixels and not _is_flat(picture):
            picture.save(written, "JPEG", quality=92, icc_profile=None)
            return Picture(written.getvalue(), MIME["JPEG"], picture.size, notes)
        picture.save(written, "PNG", compress_level=1, icc_profile=None)
        return Picture(written.getvalue(), MIME["PNG"], picture.size, notes)


def as_png(picture: Picture) -> Picture:
    """The same as a PNG."""
    from PIL import Image

    if picture.mime == MIME["PNG"]:
        return picture
    written = io.BytesIO()
    with Image.open(io.BytesIO(picture.data)) as image:
        image.save(written, "PNG", compress_level=1)
    return Picture(written.getvalue(), MIME["PNG"], picture.size)


def _as_it_is(path: str, field: str, max_pixels: int) -> Picture | None:
    """The file's own bytes, if it is small enough, upright, opaque, in sRGB and complete."""
    header = images.look(path, field)
    width, height = header.size
    if max_pixels and width * height > max_pixels:
        return None
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror}", field) from None
    kind = "PNG" if data.startswith(b"\x89PNG") else "JPEG" if data.startswith(b"\xff\xd8") else ""
    if not kind or not data.endswith(_ENDS[kind]):
        return None
    if kind == "PNG" and (data[24] != 8 or data[25] not in (0, 2) or b"tRNS" in data[:4096] or b"eXIf" in data[:4096]):
        return None  # 16 bits, a palette or transparency: servers treat these differently
    if header.turned or header.mode == "CMYK" or not is_srgb(header.profile):
        return None
    return Picture(data, MIME[kind], (width, height))


def _is_flat(picture: Image) -> bool:
    return picture.resize((64, 64)).getcolors(maxcolors=512) is not None


def read_mask(request: Request, size: tuple[int, int]) -> Mask:
    """The mask of an edit whose first image has this size. Raises InputError."""
    return load_mask(
        request.mask,
        size,
        request.mask_field,
        request.mask_convention,
        picture=lambda: images.load(request.images[0], request.image_field),
    )


def mask_for_openai(mask: Image) -> bytes:
    """A mask (white where to repaint) in OpenAI's form: a PNG in which that part is transparent."""
    from PIL import Image, ImageOps

    picture = Image.new("RGBA", mask.size, (255, 255, 255, 255))
    picture.putalpha(ImageOps.invert(mask))
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()
