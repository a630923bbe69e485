"""Records -> a WebDataset: tar shards of pictures with their texts. Each shard is written completely or not at all, and
one that is there as it should be is not written again, so a kill costs one shard."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from fastgen.errors import DiskError
from fastgen.output.writers.records import Record

SAMPLES = 10_000
"""Of one shard."""
DONE = ".shards"
"""For each shard a file with the digest of what it was made from."""


def write(records: Iterable[Record], folder: Path, samples: int = SAMPLES) -> int:
    """Write shard-000000.tar and so on. Shards that are there from a longer table are removed.

    Returns:
        the number of shards.

    Raises:
        DiskError: the disk refuses writes, or a picture cannot be read.
    """
    number = 0
    try:
        (folder / DONE).mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(_parts(records, samples), 1):
            _write_shard(folder, f"shard-{number - 1:06}", part)
        for stale in folder.glob("shard-*.tar"):
            if int(stale.stem.partition("-")[2] or 0) >= number:
                stale.unlink()
                (folder / DONE / stale.stem).unlink(missing_ok=True)
        _sync(folder)
    except OSError as error:
        raise DiskError(f"cannot write {folder}: {error.strerror}: {error.filename or ''}") from None
    return number


def _parts(records: Iterable[Record], samples: int) -> Iterator[list[Record]]:
    rest = iter(records)
    while part := list(islice(rest, samples)):
        yield part


def _write_shard(folder: Path, name: str, records: list[Record]) -> None:
    path, mark = folder / f"{name}.tar", folder / DONE / name
    digest = _digest(records)
    with suppress(OSError):
        if path.stat().st_size and mark.read_text() == digest:
            return
    mark.unlink(missing_ok=True)
    partial = folder / DONE / f"{name}.partial"
    with partial.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for record in records:
                _add(tar, record)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    mark.write_text(digest)


def _add(tar: tarfile.TarFile, record: Record) -> None:
    """One sample: its picture, its text and its fields."""
    text = record.fields.get("caption", record.fields.get("prompt", ""))
    parts = {"txt": text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)}
    if record.picture:
        _add_file(tar, f"{record.key}.{_suffix(record.picture)}", record.picture)
    for number, path in enumerate(record.inputs):
        _add_file(tar, f"{record.key}.input{number or ''}.{_suffix(path)}", path)
    for suffix, content in (*parts.items(), ("json", json.dumps(record.fields, ensure_ascii=False))):
        data = content.encode("utf-8", "replace")
        about = tarfile.TarInfo(f"{record.key}.{suffix}")
        about.size = len(data)
        tar.addfile(about, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: str) -> None:
    about = tarfile.TarInfo(name)
    with open(path, "rb") as file:
        about.size = os.fstat(file.fileno()).st_size
        tar.addfile(about, file)


def _suffix(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower().lstrip(".")
    return {"jpeg": "jpg", "": "img"}.get(suffix, suffix)


def _digest(records: list[Record]) -> str:
    """Of all that a shard is made from: fields, and size and time of each picture."""
    digest = blake2b(digest_size=16)
    for record in records:
        digest.update(json.dumps([record.key, record.fields], sort_keys=True).encode("utf-8", "replace"))
        for path in (record.picture, *record.inputs):
            if path:
                about = os.stat(path)
                digest.update(f"{about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
