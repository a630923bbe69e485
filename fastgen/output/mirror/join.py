"""Brings a state folder up to date with what is in object storage, before a run begins: the journal's segments that
other machines wrote become a part of its own journal.

Lines of this folder that had not been sent yet come last, unless another machine has made the same rows since: then its
results count. Whenever this is killed, the next start does it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.errors import RunFolderError
from fastgen.output import previous
from fastgen.output.journal import checked
from fastgen.output.mirror import lease, sent
from fastgen.output.mirror.place import Place
from fastgen.output.mirror.sent import Sent

AT_ONCE = 16


class _Head(msgspec.Struct):
    id: str


_decode_head = msgspec.json.Decoder(_Head).decode


def join(place: Place, out: Path, state: Sent, fresh: bool) -> None:
    """Raises RunFolderError, StorageError, DiskError, OSError."""
    there = place.sizes()
    numbers = segments(place)
    has_run = previous.RUN in there
    if fresh and numbers:
        raise RunFolderError(
            f"-o {place.url}: --fresh cannot move aside what is there; use another address, or delete it first"
        )
    if fresh:
        state.segments, state.offset, state.published = 0, 0, ""
    if not (has_run or numbers):
        others = [name for name in there if not name.startswith(lease.NAME)]
        if others:
            raise RunFolderError(
                f"-o {place.url}: contains {others[0]} but was not made by fastgen; choose another address"
            )
    if len(numbers) < state.segments:
        raise RunFolderError(
            f"-o {place.url}: {sent.segment(state.segments)} is no longer there, although the state folder {out} has "
            "sent it. Restore it, or begin anew with --fresh"
        )
    if has_run and not (out / previous.RUN).exists():
        place.get(previous.RUN, out / previous.RUN)
    journal = out / previous.JOURNAL
    if state.offset > (journal.stat().st_size if journal.exists() else 0):  # a power cut has taken its end
        state.offset = state.segments = 0
        with suppress(FileNotFoundError):
            journal.unlink()
    if len(numbers) > state.segments:
        _take(place, out, state, len(numbers))


def segments(place: Place) -> list[int]:
    """The numbers of the segments, from 1 without a gap. Raises RunFolderError, StorageError."""
    names = sorted(name for name in place.sizes(sent.FOLDER) if name.endswith(".jsonl"))
    for number, name in enumerate(names, 1):
        if f"{sent.FOLDER}/{name}" != sent.segment(number):
            raise RunFolderError(
                f"-o {place.url}: {sent.segment(number)} is missing; restore it, or use another address"
            )
    return list(range(1, len(names) + 1))


def read_segments(place: Place, numbers: Sequence[int]) -> Iterator[bytes]:
    """Segments in order, some of them read at the same time. Raises StorageError."""
    with ThreadPoolExecutor(AT_ONCE, "segments") as pool:
        for start in range(0, len(numbers), 4 * AT_ONCE):
            names = map(sent.segment, numbers[start : start + 4 * AT_ONCE])
            yield from (data or b"" for data in pool.map(place.read, names))


def _take(place: Place, out: Path, state: Sent, last: int) -> None:
    """Put the segments after `state.segments` where their lines belong in the journal."""
    journal, new = out / previous.JOURNAL, out / f".{previous.JOURNAL}"
    pending = list(_pending(journal, state.offset))
    lines, ids = set[bytes](), set[str]()
    with new.open("wb") as file:
        if state.offset:
            with journal.open("rb") as old:
                _copy(old, file, state.offset)
        for data in read_segments(place, range(state.segments + 1, last + 1)):
            for line in data.splitlines(keepends=True):
                if (body := checked(line)) is None:
                    continue
                file.write(line)
                if pending:
                    lines.add(line)
                    ids.add(_decode_head(body).id)
        offset = file.tell()
        for line in pending:
            if line not in lines and _decode_head(checked(line) or b"").id not in ids:
                file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, journal)
    state.segments, state.offset = last, offset
    sent.write(out, state)


def _pending(journal: Path, offset: int) -> Iterator[bytes]:
    """The lines of the journal that are in no segment yet."""
    if journal.exists():
        with journal.open("rb") as file:
            file.seek(offset)
            yield from (line for line in file if checked(line) is not None)


def _copy(old: object, new: object, size: int) -> None:
    """The first `size` bytes of a file."""
    while size:
        piece = old.read(min(size, 1 << 20))  # type: ignore[attr-defined]
        new.write(piece)  # type: ignore[attr-defined]
        size -= len(piece)
