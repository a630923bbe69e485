"""Reads images from files and encodes them. They are upright and in sRGB, and damaged or dangerous ones are refused.

Does not know models, masks or rows; imports Pillow on first use.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from fastgen.errors import InputError, SettingsError, quoted
from fastgen.input import color_profiles, storage
from fastgen.input.color_profiles import Colors
from fastgen.input.embedded_pictures import NAME, Store, decoded, in_text, is_url, url_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from fastgen.input.geometry import Box, Size

MAX_PIXELS = 100_000_000
"""Larger input images are refused before they are decoded."""
UNFETCHED = "is fetched by the run"
"""Of a URL, in a plan."""
_EXIF_ORIENTATION = 0x0112
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
FILE = ("file:///", "file://localhost/")
"""How the address of a file of this machine begins."""
_SIDEWAYS = (5, 6, 7, 8)
_TURNED = ("TIFF",)
"""Formats that Pillow rotates itself; it reports the upright size from the start."""
_NOT_TURNED = ("JPEG", "MPO", "PNG", "WEBP", "AVIF")
"""Formats that it does not rotate. For all others (mostly plug-ins) the image is decoded to find out."""
_RUN_PROGRAMS = ("EPS", "WMF")
"""Formats that are programs, or that Pillow reads with another program."""
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Places:
    """Where the images of rows are."""

    root: str
    """The folder where relative paths start, on a disk or in object storage."""
    other: str = ""
    """The folder where those start that lead to nothing from `root`; it may be in object storage, too."""
    out: str = ""
    """The run folder, which keeps images that are inside the rows; "": they only get their names."""
    unfetched: dict[str, str] = field(default_factory=dict)
    """URL -> why its image is not there."""

    def locate(self, value: object, name: str) -> str:
        """The absolute path of an image: a path, a data URI, base64, or {"bytes", "path"} as in Hugging Face's data
        sets. Raises InputError."""
        inside = isinstance(value, dict) and value.get("bytes")
        if isinstance(value, dict):
            value = inside or value.get("path") or value.get("url") or value
        if not isinstance(value, str):
            return locate(value, self.root, name)
        if NAME.fullmatch(value) and self.out and os.path.exists(os.path.join(self.out, value)):
            return os.path.join(self.out, value)
        if url := self.address(value, name):
            path = os.path.join(self.out or self.root, url_name(url))
            if self.out and not os.path.exists(path):
                reason = self.unfetched.get(url)
                raise InputError(
                    f"{quoted(value)} cannot be fetched: {reason}; give an address that can, or a file"
                    if reason
                    else f"{quoted(value)} {UNFETCHED}",
                    name,
                )
            return path
        try:
            data = decoded(value) if inside else in_text(value)
        except ValueError as error:
            raise InputError(f"{quoted(value[:40])}: {error}; give the path of an image", name) from None
        if data is not None:
            try:
                return os.path.join(self.out or self.root, Store(self.out).keep(data))
            except OSError as error:
                raise InputError(f"its image cannot be written to {self.out}: {error.strerror}", name) from None
        path = locate(os.path.expanduser(value) if value.startswith("~") else value, self.root, name)
        if self.other and not os.path.exists(path) and not os.path.isabs(value):
            elsewhere = locate(value, self.other, name)
            return elsewhere if os.path.exists(elsewhere) else path
        return path

    def address(self, value: str, name: str = "") -> str:
        """Where an image is fetched from; "" if it is on a disk, or inside the row. Raises InputError."""
        if is_url(value):
            return value
        if storage.is_address(value):
            try:
                return storage.address(value)
            except SettingsError as error:
                raise InputError(str(error), name) from None
        start = next((place for place in (self.root, self.other) if storage.is_address(place)), "")
        if not start or NAME.fullmatch(value) or value.startswith(("/", "~")):
            return ""
        with suppress(ValueError):
            if _ADDRESS.match(value) or in_text(value) is not None:
                return ""
        if start == self.other and os.path.exists(os.path.join(self.root, value)):
            return ""
        scheme, _, root = start.partition("://")
        path = posixpath.normpath(f"{root}/{value}")
        if not value.strip() or not path.startswith(f"{root}/"):
            raise InputError(
                f"{quoted(value)} leads out of {quoted(start)}, where relative paths start; give an address or "
                "another --image-root",
                name,
            )
        return f"{scheme}://{path}"


def locate(text: object, root: str, field: str) -> str:
    """The absolute path for a row's path. A relative path starts at `root` and must stay below it."""
    if not isinstance(text, str):
        raise InputError(f"use a path as a string, not {quoted(text)}", field)
    if not text.strip():
        raise InputError("the path is empty; give the path of an image", field)
    if "\0" in text:
        raise InputError("the path holds a NUL character; leave it out", field)
    if text.startswith(FILE):
        text = _of_address(text)
    if _ADDRESS.match(text):
        raise InputError(
            f"{quoted(text)} is not a file; fastgen works offline, so download it and give its path", field
        )
    if os.path.isabs(text):
        return text
    path = os.path.normpath(os.path.join(root, text))
    if os.path.commonpath([path, root]) != root:
        raise InputError(
            f"{quoted(text)} leads out of {quoted(root)}, where relative paths start; give an absolute path or "
            "another --image-root",
            field,
        )
    return path


def _of_address(text: str) -> str:
    """The path in the address of a file, which may be written as it is, as for Qwen-VL, or with signs such as %20."""
    path = text[text.index("/", len("file://")) :]
    return path if os.path.exists(path) else unquote(path)


@dataclass(frozen=True)
class Header:
    """What a file says about its image before it is decoded."""

    size: Size
    """(width, height) after EXIF orientation."""
    turned: bool
    """Whether EXIF data asks to rotate or mirror the image."""
    profile: bytes
    """Its colour profile, or b""."""
    mode: str
    """Pillow's word for its kind of pixels: "RGB", "L", "CMYK", ..."""


def probe(path: str, field: str) -> Size:
    """(width, height) after EXIF orientation, from the header alone. Raises InputError."""
    return look(path, field).size


def look(path: str, field: str) -> Header:
    """The header of an image. Raises InputError."""
    with _open(path, field) as image:
        size, kind, mode = image.size, image.format, image.mode
        profile = image.info.get("icc_profile") or b""
        try:
            # If the header of a PNG has no EXIF, getexif() decodes the whole file to look for one at its end.
            exif = image.getexif() if kind != "PNG" or "exif" in image.info else {}
        except Exception as error:  # see _open
            raise InputError(f"{quoted(path)} has damaged EXIF data: {quoted(error)}; save it again", field) from None
        orientation = exif.get(_EXIF_ORIENTATION, 1)
        if orientation in _SIDEWAYS and kind not in _TURNED:
            size = (size[1], size[0]) if kind in _NOT_TURNED else _decode(image, path, field).size
        return Header(size, orientation != 1, profile, mode)


def load(path: str, field: str) -> Image:
    """The image as upright RGB in sRGB; transparency is placed on white. Raises InputError."""
    return load_colors(path, field).srgb


def load_colors(path: str, field: str) -> Colors:
    """The image as from `load`, and with the colour values of its file. Raises InputError."""
    from PIL import Image

    with _open(path, field) as image:
        image = _decode(image, path, field)
        try:
            profile = image.info.get("icc_profile") or b""
            if has_alpha(image):
                grey = image.mode in ("LA", "La")
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                image = image.convert("L" if grey else "RGB")
            return color_profiles.read(image, profile)
        except Exception as error:  # modes that Pillow cannot convert
            raise InputError(
                f"{quoted(path)} has colours that Pillow cannot read ({quoted(error)}); save it as RGB", field
            ) from None


def load_decoded(path: str, field: str) -> Image:
    """The image, upright and with 8 bits per channel, otherwise as in its file. Raises InputError."""
    with _open(path, field) as image:
        return _decode(image, path, field)


def has_alpha(image: Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def stitch(pictures: list[Image], size: Size, places: tuple[Box, ...]) -> Image:
    """The images on one white sheet of `size`, each scaled to its place."""
    from PIL import Image

    sheet = Image.new("RGB", size, "white")
    for picture, (left, top, width, height) in zip(pictures, places, strict=True):
        sheet.paste(scaled(picture, (width, height)), (left, top))
    return sheet


def scaled(picture: Image, size: Size) -> Image:
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def encode(image: Image, format: str, about: dict[str, str], profile: bytes = b"", compression: str = "") -> bytes:
    """The bytes of an image file: PNG with `about` as text chunks, JPEG (quality 95) or WebP (quality 90), if
    `compression` is not another quality or "lossless". `profile` is the colour profile of its values, b"" for sRGB."""
    from PIL.PngImagePlugin import PngInfo

    buffer, icc = io.BytesIO(), profile or None
    if format == "png":
        info = PngInfo()
        for key, value in about.items():
            info.add_itxt(key, value)
        # Run-length coding of PNG's filtered rows: 3 times faster than Pillow's default, and the files are as small
        # (bench/LOG.md).
        image.save(buffer, "PNG", pnginfo=info, compress_level=1, compress_type=zlib.Z_RLE, icc_profile=icc)
    elif format == "jpeg":
        image.save(buffer, "JPEG", quality=int(compression or 95), subsampling=0, icc_profile=icc)
    elif compression == "lossless":
        image.save(buffer, "WEBP", lossless=True, quality=70, method=2, exact=True, icc_profile=icc)
    else:
        image.save(buffer, "WEBP", quality=int(compression or 90), method=2, icc_profile=icc)
    return buffer.getvalue()


@cache
def _with_plug_ins() -> None:
    """Pillow reads HEIC only with a plug-in."""
    try:
        import pillow_heif
    except ImportError:  # a platform without a wheel; the row that needs it says so
        return
    pillow_heif.register_heif_opener()


def _open(path: str, field: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    name = quoted(path)
    check_file(path, field)
    _with_plug_ins()
    try:
        with warnings.catch_warnings():  # of large images; we have our own limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError:
        raise InputError(
            f"{name} is larger than {MAX_PIXELS // 1_000_000} megapixels; scale it down first", field
        ) from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image that Pillow can read; use PNG, JPEG or WebP", field) from None
    except PermissionError:
        raise InputError(f"{name} is not readable; check its permissions", field) from None
    except Exception as error:  # damaged headers raise ValueError, SyntaxError, struct.error and more
        raise InputError(f"{name} is damaged: {quoted(error)}; save it again", field) from None
    width, height = image.size
    problem = ""
    if image.format in _RUN_PROGRAMS:
        problem = f"{name} is a drawing in {image.format}, which is not run here; save it as PNG"
    elif width * height > MAX_PIXELS:
        problem = f"{name} is {width}x{height}, more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first"
    if problem:
        image.close()
        raise InputError(problem, field)
    return image


def check_file(path: str, field: str) -> None:
    """Refuse what cannot be a file with an image, without opening it: opening a pipe may wait forever, and reading a
    device may do anything. Raises InputError."""
    name = quoted(path)
    try:
        found = os.stat(path)
    except PermissionError:
        raise InputError(f"{name} is not readable; check its permissions", field) from None
    except (OSError, ValueError):
        hint = "; write it with / instead of \\" if "\\" in path and os.path.exists(path.replace("\\", "/")) else ""
        raise InputError(f"{name}: no such file; check the path and --image-root{hint}", field) from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{name} is a folder, not an image; give the path of an image in it", field)
    # The kernel's files claim to be regular ones.
    if not stat.S_ISREG(found.st_mode) or os.path.realpath(path).startswith(("/proc/", "/sys/")):
        raise InputError(f"{name} is not a regular file; give the path of an image file", field)
    if not found.st_size:
        raise InputError(f"{name} is empty; use PNG, JPEG or WebP", field)
    if found.st_size > MAX_BYTES:
        raise InputError(f"{name} has more than {MAX_BYTES >> 20:,} MiB; scale it down first", field)


def _decode(image: Image, path: str, field: str) -> Image:
    """The image, decoded and upright."""
    from PIL import ImageOps

    try:
        unknown = image.format == "PNG" and "exif" not in image.info  # probe() sees only the header, so do we
        image.load()
        upright = image if unknown else ImageOps.exif_transpose(image)
        return _to_8_bits(upright, path, field)
    except InputError:
        raise
    except Exception as error:  # see _open
        raise InputError(f"{quoted(path)} is damaged or cut short: {quoted(error)}; save it again", field) from None


def _to_8_bits(image: Image, path: str, field: str) -> Image:
    """Converts 16-bit grey to 8 bits, which Pillow would clip to white. Other modes stay as they are."""
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        raise InputError(f"{quoted(path)} holds floating-point pixels; save it with 8 or 16 bits", field)
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise InputError(f"{quoted(path)} holds values beyond 16 bits; save it with 8 or 16 bits", field)
    deep = image.mode != "I" or grey.max() > 255  # mode "I" has 32 bits even if the file has 16
    made = Image.fromarray((grey // 256 if deep else grey).astype(np.uint8))
    made.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
    return made
