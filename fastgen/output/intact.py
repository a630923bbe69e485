"""Whether a file of a run folder is still the one that was committed. Knows files and their stamps, but not rows.

`is_intact` is cheap enough for every file at every start: it checks the size and both ends. `fault` reads and decodes
the whole file.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from fastgen.config import stamps
from fastgen.types import FileStamp

_HEAD, _TAIL = 12, 12
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_ENDS = {".png": _IEND, ".jpg": b"\xff\xd9"}
"""How files end whose names say what they are."""


def is_intact(path: str | Path, written: FileStamp | None) -> bool:
    """Whether an image exists, has its size, and ends like an image of its kind.

    A file that never ended like that (a service may add something after the image) is read completely.

    Args:
        written: the stamp of the file as it was written; None if unknown.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # cheaper than a file object; a pipe does not block
        try:
            size = written[0] if written else os.fstat(file).st_size
            tail = os.pread(file, _TAIL + 1, max(0, size - _TAIL))
            if not size or len(tail) != min(size, _TAIL):  # it is shorter, or longer
                return False
            usual = _ENDS.get(os.path.splitext(path)[1])
            if usual and tail.endswith(usual):  # as nearly all do: one read less
                return True
            if _ends_well(os.pread(file, _HEAD, 0), tail, size):
                return True
        finally:
            os.close(file)
    except OSError:
        return False
    return not fault(Path(path), written)


def is_whole(path: str | Path) -> bool:
    """Whether there is an image that may be of value, the committed one or another."""
    return is_intact(path, None)


def fault(path: Path, written: FileStamp | None) -> str:
    """What is wrong with an image, "" if nothing. Reads and decodes all of it."""
    try:
        size = path.stat().st_size
        if not size:
            return "is empty"
        if written and size != written[0]:
            return f"has {size} bytes; {written[0]} were written"
        if written and stamps.hash_file(path) != written[1]:
            return "has changed since it was written: its hash is another one"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return _undecodable(path)


def _undecodable(path: Path) -> str:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
    except Exception as error:  # damage raises OSError, SyntaxError, ValueError, struct.error and more
        return f"cannot be decoded: {error}"
    return ""


def _ends_well(head: bytes, tail: bytes, size: int) -> bool:
    if head.startswith(b"\x89PNG"):
        return tail == _IEND
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(b"RIFF"):
        return size == 8 + int.from_bytes(head[4:8], "little") and any(tail)  # nothing else shows where it ends
    return head.startswith(b"GIF") and tail.endswith(b";")
