"""Files of a run folder, written so that a reader never sees half of one: temporary file, fsync, rename.

results.jsonl   failures.jsonl   journal.jsonl   run.json   images/   logs/

An image file is named after its row. It can only overwrite what an earlier attempt at the same row left without a
committed result; `Request.stem` ensures that.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from fastgen.config import stamps
from fastgen.errors import DiskError
from fastgen.output import reserve
from fastgen.types import FileStamp, Request

IMAGES = "images"
LOGS = "logs"
PARTIAL = ".partial"
"""Temporary files are here, on the same disk. What a killed run left behind is removed at the next start."""


def clear_partial(out: Path) -> None:
    """Remove half-written files of a killed run. Raises OSError."""
    remove_partial(out)
    (out / PARTIAL).mkdir(exist_ok=True)


def remove_partial(out: Path) -> None:
    for folder in (out, out / IMAGES):
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def prepare(out: Path) -> None:
    """Make the folders of a run, durably. `images` may be a link or a mount on another disk.

    Raises:
        OSError, DiskError.
    """
    for name in (IMAGES, LOGS):
        (out / name).mkdir(exist_ok=True)
    probe = out / PARTIAL / "probe"
    probe.touch()
    try:
        os.rename(probe, out / IMAGES / PARTIAL)
        os.unlink(out / IMAGES / PARTIAL)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        probe.unlink()
        (out / IMAGES / PARTIAL).mkdir()
    sync_folder(out)


def is_elsewhere(folder: Path) -> bool:
    """Whether a folder is a link to another one, or a mount, even of its own disk."""
    if folder.is_symlink() or os.path.ismount(folder):
        return folder.is_dir()
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    name = os.fsencode(os.path.realpath(folder)).replace(b" ", b"\\040")
    return any(name == line.split()[4] for line in mounts.splitlines())


def stem(id: str, variant: str = "") -> str:
    """The prefix of the file names of a row: its id if that is a plain name, else a cleaned id plus a hash. Different
    ids never share a file, not even on file systems that ignore case. With a `variant` there is always a hash."""
    if id.isalnum() and id.isascii() and id.islower() and len(id) <= 80 and not variant:  # as most are
        return id
    cleaned = re.sub(r"[^a-z0-9._-]+", "_", id.lower()).strip("._-")[:80]
    if cleaned == id and not variant and not re.search(r"-[0-9a-f]{12}$", id):  # such an id could equal a cleaned one
        return id
    told = f"{id}\0{variant}" if variant else id
    hashed = blake2b(told.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{cleaned}-{hashed}".lstrip("-")


def file_name(id: str, number: int, suffix: str) -> str:
    """The name of file `number` of a row."""
    return f"{stem(id)}_{number}.{suffix}"


def picture(request: Request, number: int, suffix: str) -> str:
    """The path of image `number` of a request, relative to the run folder."""
    return f"{IMAGES}/{request.stem or stem(request.id)}_{number}.{suffix}"


@contextmanager
def atomic(out: Path, relative: str) -> Iterator[BinaryIO]:
    """A file to write into. It becomes `out/relative` if the block succeeds, and never exists otherwise.

    Raises:
        DiskError: the disk refuses writes.
    """
    beside = out / relative.partition("/")[0] / PARTIAL  # exists if the folder is on a disk of its own
    folder = beside if beside.is_dir() else out / PARTIAL
    temporary = folder / f"{os.getpid()}-{relative.replace('/', '-')}"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        try:
            os.rename(temporary, out / relative)
        except FileNotFoundError:  # the first image of its folder
            (out / relative).parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, out / relative)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise DiskError(f"cannot write {out / relative}: {error.strerror}") from error
        raise


def write(out: Path, relative: str, data: bytes) -> FileStamp:
    """Write `out/relative` completely or not at all. If the disk is full, it is tried once more with the reserved
    space.

    Returns:
        its entry for `Done.files`.

    Raises:
        DiskError: the disk refuses writes.
    """
    reserved = reserve.is_there(out)
    try:
        with atomic(out, relative) as file:
            file.write(data)
    except DiskError as error:
        if not (reserved and isinstance(error.__cause__, OSError) and error.__cause__.errno in reserve.FULL):
            raise
        reserve.give_back(out)  # perhaps another thread has done so in the meantime
        with atomic(out, relative) as file:
            file.write(data)
    return len(data), stamps.digest(data)


def sync_images(out: Path, paths: Iterable[str]) -> None:
    """Make images durable that were written. `paths`: theirs, relative to the run folder. Raises DiskError."""
    folders = {os.path.dirname(path) for path in paths}
    for folder in {*folders, IMAGES} if any("/" in folder for folder in folders) else folders:
        sync_folder(out / folder)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable. Raises DiskError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DiskError(f"cannot write {folder}: {error.strerror}") from None


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines()[-lines:] if line.strip())
