"""Whether the pictures that a row names are those that its result was made from. Looks at files, not into them.

Size and time of change are compared first; only where those differ the whole file is read.
"""

from __future__ import annotations

import os
import stat
import zlib
from functools import lru_cache

from fastgen.types import InputStamp, Request

PIECE = 1 << 20
UNKNOWN: InputStamp = (0, 0, 0)
"""Of a file that could not be read; nothing is said of it later."""


def of_request(request: Request) -> tuple[InputStamp, ...]:
    """One for each picture that a request reads, in the order of `Request.input_paths`."""
    return tuple(of_file(path) for path in request.input_paths)


def of_file(path: str) -> InputStamp:
    """(size, mtime in ns, CRC-32 of all of it), `UNKNOWN` of what is no file that can be read."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # a pipe would never end
            return UNKNOWN
        return about.st_size, about.st_mtime_ns, _checksum(path, about.st_size, about.st_mtime_ns)
    except (OSError, ValueError):
        return UNKNOWN


def changed(path: str, before: InputStamp) -> bool:
    """Whether a file says something else than it did. One that is gone or cannot be read has not changed."""
    try:
        about = os.stat(path)
        if before == UNKNOWN or not stat.S_ISREG(about.st_mode):
            return False
        if (about.st_size, about.st_mtime_ns) == before[:2]:
            return False
        return about.st_size != before[0] or _checksum(path, about.st_size, about.st_mtime_ns) != before[2]
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=1024)  # many rows may name one picture
def _checksum(path: str, size: int, mtime_ns: int) -> int:
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            found = zlib.crc32(piece, found)
    return found
