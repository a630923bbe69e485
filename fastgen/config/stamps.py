"""Tells a file from another one of the same name: by its size and a hash of its content. Does not know what files mean.

The hash of a large file is stored in the user's cache with the size and the times of the file, so that it is read once
and not at every start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from fastgen.config.cache import cache_folder

END = 1 << 20
PIECE = 16 << 20
"""Bytes that one thread hashes at a time."""
KEPT_FROM = 4 << 20
"""The hash is stored for files of at least this many bytes; smaller ones are hashed each time."""
SETTLED_S = 2.0
"""A file that was written more recently than this may change without changing its times, so its hash is not stored."""
_BLOB = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")
"""How the hub's cache names files: by a hash of their content."""
_OF_ENDS = re.compile(r".* \(\d+-[0-9a-f]{16}\)", re.DOTALL)


def digest(data: bytes) -> str:
    """The hash that is used for files, 32 hex digits."""
    return blake2b(data, digest_size=16).hexdigest()


def hash_file(path: Path) -> str:
    """`digest` of the content of a file. Raises OSError."""
    hashed = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            hashed.update(piece)
    return hashed.hexdigest()


def stamp(path: Path) -> str:
    """SIZE-HASH of a whole file, computed with several threads and stored in the cache. Raises OSError."""
    path = Path(path).absolute()
    about = os.stat(path)
    now = {
        "path": str(path),
        "size": about.st_size,
        "mtime_ns": about.st_mtime_ns,
        "ctime_ns": about.st_ctime_ns,
    }
    kept = cache_folder() / "stamps" / f"{digest(os.fsencode(path))}.json"
    if about.st_size >= KEPT_FROM:
        with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):  # missing or damaged
            found = json.loads(kept.read_text("utf-8"))
            hashed = found.pop("hash")
            if found == now and re.fullmatch("[0-9a-f]{32}", hashed):
                return f"{about.st_size}-{hashed}"
    hashed = _hash_pieces(path, about.st_size)
    if about.st_size >= KEPT_FROM and time.time() - max(about.st_mtime, about.st_ctime) > SETTLED_S:
        _keep(kept, now | {"hash": hashed})
    return f"{about.st_size}-{hashed}"


def of_folder(folder: Path, told_by: Callable[[Path], str] | None = None) -> str:
    """A hash of the names and contents of all files in a model's folder; text files (.md) change no image.

    Args:
        told_by: tells files of one name apart; None: their whole content. With `ends` it is what version 0.1 made, and
            shorter.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md")
    said = "".join(f"{p.relative_to(folder)}:{(told_by or _content)(p)};" for p in files)
    return hashlib.sha256(said.encode()).hexdigest()[: 16 if told_by is ends else 32]


def is_folder_by_ends(stamp: object) -> bool:
    """Whether `of_folder` made it with `ends`."""
    return isinstance(stamp, str) and bool(re.fullmatch("[0-9a-f]{16}", stamp))


def _content(path: Path) -> str:
    """`stamp` of a file. In the hub's cache its name says as much, and it need not be read."""
    target = os.path.realpath(path) if path.is_symlink() else ""
    name = os.path.basename(target)
    if os.path.basename(os.path.dirname(target)) == "blobs" and _BLOB.fullmatch(name):
        return f"{os.stat(target).st_size}-{name}"
    return stamp(path)


def ends(path: Path) -> str:
    """SIZE-HASH of the first and last megabyte of a file: enough if files are replaced but never changed."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        hashed = blake2b(file.read(END), digest_size=8)
        file.seek(max(0, size - END))
        hashed.update(file.read(END))
    return f"{size}-{hashed.hexdigest()}"


def has_ends(file: object) -> bool:
    """Whether a file in run.json, "PATH (STAMP)", has a stamp from `ends`. In version 0.1 LoRAs have it too."""
    return isinstance(file, str) and bool(_OF_ENDS.fullmatch(file))


def _hash_pieces(path: Path, size: int) -> str:
    """The hash of the hashes of all pieces."""

    def one(start: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(start)
            return blake2b(file.read(PIECE), digest_size=16).digest()

    starts = range(0, size, PIECE)
    if len(starts) < 2:
        return digest(b"".join(map(one, starts)))
    with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1, 8)) as pool:
        return digest(b"".join(pool.map(one, starts)))


def _keep(path: Path, value: dict) -> None:
    """Store the hash if possible; without it the file is read again."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value), "utf-8")
        os.replace(temporary, path)
