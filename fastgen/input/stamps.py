"""Whether the images and LoRAs that a row names are still those that its result was made from. Does not decode them.

Size and change time are compared first; the whole file is read only if they differ. The change time (ctime) and not the
modification time, because a program can set the latter back to what it was.
"""

from __future__ import annotations

import os
import stat
import zlib
from functools import lru_cache

from fastgen.types import InputStamp, Request

PIECE = 1 << 20
UNKNOWN: InputStamp = (0, 0, 0)
"""The stamp of a file that could not be read; it is ignored later."""


def of_request(request: Request) -> tuple[InputStamp, ...]:
    """One stamp per image and LoRA that a request reads, in the order of `Request.read_paths`."""
    return tuple(of_file(path) for path in request.read_paths)


def of_file(path: str) -> InputStamp:
    """(size, ctime in ns, CRC-32 of the content); `UNKNOWN` for anything that is not a readable file."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would never end
            return UNKNOWN
        return about.st_size, about.st_ctime_ns, _checksum(path, about.st_size, about.st_ctime_ns)
    except (OSError, ValueError):
        return UNKNOWN


def changed(path: str, before: InputStamp) -> bool:
    """Whether the content of a file differs from its stamp. A file that is gone or cannot be read has not changed."""
    try:
        about = os.stat(path)
        if before == UNKNOWN or not stat.S_ISREG(about.st_mode):
            return False
        if (about.st_size, about.st_ctime_ns) == before[:2]:
            return False
        return about.st_size != before[0] or _checksum(path, about.st_size, about.st_ctime_ns) != before[2]
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=1024)  # many rows may name the same image
def _checksum(path: str, size: int, ctime_ns: int) -> int:
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            found = zlib.crc32(piece, found)
    return found
