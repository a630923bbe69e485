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

IMAGES = "images"
LOGS = "logs"
PARTIAL = ".partial"
"""Temporary files are here, on the same disk. What a killed run left behind is removed at the next start."""


def clear_partial(out: Path) -> None:
    """Remove half-written files of a killed run. Raises OSError."""
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
    (out / PARTIAL).mkdir(exist_ok=True)


def prepare(out: Path) -> None:
    """Make the folders of a run. Raises OSError."""
    for name in (IMAGES, LOGS):
        (out / name).mkdir(exist_ok=True)


def file_name(id: str, number: int, suffix: str) -> str:
    """A file name for image `number` of a row: its id if that is a plain name, else a cleaned id plus a hash. Different
    ids never share a file, not even on file systems that ignore case."""
    stem = re.sub(r"[^a-z0-9._-]+", "_", id.lower()).strip("._-")[:80]
    if stem != id or re.search(r"-[0-9a-f]{12}$", id):  # such an id could equal the cleaned name of another id
        stem = f"{stem}-{blake2b(id.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}".lstrip("-")
    return f"{stem}_{number}.{suffix}"


@contextmanager
def atomic(out: Path, relative: str) -> Iterator[BinaryIO]:
    """A file to write into. It becomes `out/relative` if the block succeeds, and never exists otherwise.

    Raises:
        DiskError: the disk refuses writes.
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
            raise DiskError(f"cannot write {out / relative}: {error.strerror}") from None
        raise


def write(out: Path, relative: str, data: bytes) -> None:
    """Write `out/relative` completely or not at all. Raises DiskError."""
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
