"""Images as a browser shows them, and small ones that are made once. Only what is an image is ever given out. Its path
is one that a row of the run has, never a part of a request."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from fastgen.config.cache import cache_folder
from fastgen.errors import InputError
from fastgen.input import images
from fastgen.input.embedded_pictures import kind

THUMBNAIL_PX = 384
"""The longer side of a small image."""
MOST_CACHED_BYTES = 2 << 30
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "avif": "image/avif"}
"""What browsers show, by how a file begins."""
_SMALL_BYTES = 60_000
_AT_ONCE = threading.Semaphore(2)
"""Images decoded at the same time; a run on this machine needs the other cores."""


class Picture(msgspec.Struct, frozen=True):
    data: bytes
    suffix: str
    """png, jpg, webp, gif or avif."""

    @property
    def media_type(self) -> str:
        return _TYPES[self.suffix]


def full(path: str) -> Picture:
    """The image of a file: its bytes if a browser shows them, else as PNG. Raises InputError if it is no image."""
    if (suffix := _begins_as(path)) in _TYPES:
        try:
            images.look(path, "image")  # a file that only begins like an image is none
            return Picture(Path(path).read_bytes(), suffix)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}", "image") from None
    with _AT_ONCE:
        return Picture(images.encode(images.load(path, "image"), "png", {}), "png")


class Thumbnails:
    """Small images, kept in a folder between starts. If it cannot be written, they are made each time.

    Args: folder: where they are kept; by default in fastgen's cache, so that run folders stay as they are.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder or cache_folder() / "thumbnails"
        self.made = 0
        """How many were made, not found."""

    def get(self, path: str) -> Picture:
        """The small image of a file. Raises InputError if it is no image."""
        try:
            about = os.stat(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {getattr(error, 'strerror', error)}", "image") from None
        said = f"{os.path.realpath(path)}\0{about.st_size}\0{about.st_mtime_ns}\0{THUMBNAIL_PX}"
        name = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        place = self.folder / name[:2] / f"{name[2:]}.webp"
        with suppress(OSError):
            return Picture(place.read_bytes(), "webp")
        if about.st_size < _SMALL_BYTES and _begins_as(path) in _TYPES:
            size = images.look(path, "image").size
            if max(size) <= THUMBNAIL_PX:
                return full(path)
        picture = thumbnail(path)
        self.made += 1
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            partial.write_bytes(picture.data)
            os.replace(partial, place)
        return picture

    def prune(self, most_bytes: int = MOST_CACHED_BYTES) -> None:
        """Delete the oldest ones until the rest takes at most so many bytes."""
        found = []
        with suppress(OSError):
            for path in self.folder.glob("??/*"):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        size = sum(entry[1] for entry in found)
        for _, bytes_, path in sorted(found):
            if size <= most_bytes:
                return
            with suppress(OSError):
                path.unlink()
                size -= bytes_


def thumbnail(path: str) -> Picture:
    """Raises InputError."""
    with _AT_ONCE:
        image = images.load(path, "image")
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), reducing_gap=2.0)
        return Picture(images.encode(image, "webp", {}, compression="82"), "webp")


def _begins_as(path: str) -> str:
    """What kind of image a file begins as; "" for none that is known. Raises InputError if it is no plain file."""
    images.check_file(path, "image")
    try:
        with open(path, "rb") as file:
            return kind(file.read(32))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "image") from None
