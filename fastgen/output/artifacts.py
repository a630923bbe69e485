"""Files of a run folder, written so that a reader never sees half of one: temporary file, fsync, rename.

results.jsonl   failures.jsonl   journal.jsonl   run.json   images/   logs/
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from fastgen.errors import DiskError
from fastgen.output import reserve

IMAGES = "images"
LOGS = "logs"
PARTIAL = ".partial"
"""Temporary files live here, on the same disk; whatever a killed run left is removed at the next start."""


def clear_partial(out: Path) -> None:
    """Remove what a killed run left half-written. Raises OSError."""
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
    (out / PARTIAL).mkdir(exist_ok=True)


def prepare(out: Path) -> None:
    """Make the folders of a run. Raises OSError."""
    for name in (IMAGES, LOGS):
        (out / name).mkdir(exist_ok=True)


def file_name(id: str, number: int, suffix: str) -> str:
    """A file name for picture `number` of a row: its id where that is a plain name, else a cleaned one plus a hash,
    so that different ids never share a file, on file systems that ignore case too."""
    stem = re.sub(r"[^a-z0-9._-]+", "_", id.lower()).strip("._-")[:80]
    if stem != id or re.search(r"-[0-9a-f]{12}$", id):  # the latter could be the cleaned name of another id
        stem = f"{stem}-{blake2b(id.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}".lstrip("-")
    return f"{stem}_{number}.{suffix}"


@contextmanager
def atomic(out: Path, relative: str) -> Iterator[BinaryIO]:
    """A file to write into that becomes `out/relative` when the block ends well, and never exists otherwise.

    Raises:
        DiskError: the disk takes no more.
    """
    temporary = out / PARTIAL / f"{os.getpid()}-{relative.replace('/', '-')}"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, out / relative)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise DiskError(f"cannot write {out / relative}: {error.strerror}") from error
        raise


def write(out: Path, relative: str, data: bytes) -> None:
    """Write `out/relative` whole or not at all; a full disk takes it once more if space was set aside.

    Raises:
        DiskError: the disk takes no more.
    """
    reserved = reserve.is_there(out)
    try:
        with atomic(out, relative) as file:
            file.write(data)
    except DiskError as error:
        if not (reserved and isinstance(error.__cause__, OSError) and error.__cause__.errno in reserve.FULL):
            raise
        reserve.give_back(out)  # perhaps another thread has done so meanwhile
        with atomic(out, relative) as file:
            file.write(data)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines()[-lines:] if line.strip())
