"""The commit log: a result counts once its line is here.

Each line is a JSON object with a checksum and one result:

    {"crc":"1a2b3c4d","rec":{"status":"done","id":"row-7","paths":["images/row-7_0.png"],...}}

Lines are handed to the kernel at once, so killing this process loses none. fsync follows within a time budget, so a
power cut loses at most that much work. It never leaves a wrong line: a line that fails its checksum is dropped, and its
row is made again. A row may have several lines; the newest one with the row's current content counts. Memory holds one
pair of integers per row; everything else stays on disk. Together with what intake remembers to tell repeated rows
apart, the main process takes less than 150 bytes per row (`python -m bench.run_loop`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from fastgen.errors import DiskError, RunFolderError
from fastgen.input.int_map import IntMap
from fastgen.output import reserve
from fastgen.types import Done, Failed, Result

SYNC_EVERY_S = 1.0
BLOCK, MOST_BLOCKS = 1 << 16, 32
"""Bytes that are read at once where lines are asked for in about their order, and how many such blocks are kept."""
_BODY = len(b'{"crc":"00000000","rec":')
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Done | Failed).decode


class _Head(msgspec.Struct):
    id: str
    cost: float = 0.0


_decode_head = msgspec.json.Decoder(_Head).decode


def has_results(path: Path) -> bool:
    """Whether a journal is there and has at least one line that is not damaged. Raises OSError."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return any(checked(line) is not None for line in file)


class Journal:
    """Opens the journal and reads what is there. Not safe for two processes; the lock of the run folder prevents
    that."""

    def __init__(self, path: Path, read_only: bool = False):
        self.path = path
        self.index = IntMap()
        """hash(id) -> offset of its newest line."""
        self._before: dict[int, int] = {}
        """Offset of a line -> offset of the previous line with the same id; few rows have several."""
        self.damaged = 0
        """Number of lines dropped because of a wrong checksum."""
        self.cost = self.dearest = 0.0
        """USD of all results when it was opened, and of the most expensive one."""
        if path.exists() and not path.is_file():  # opening a pipe may wait forever
            raise RunFolderError(f"{path}: is not a file; move it away")
        self._file = os.open(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT, 0o644)
        self._end = 0
        self.follow()
        if not read_only and os.fstat(self._file).st_size > self._end:  # else its time would change
            os.ftruncate(self._file, self._end)
        self._synced = time.monotonic()
        self._dirty = False
        self._got: tuple[Result | None, int] = None, sys.maxsize
        """The newest line that `get` returned, and where it begins."""
        self._blocks: dict[int, bytes] = {}
        """Parts of the file that were read last: position // BLOCK -> bytes."""

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return self._end

    def follow(self) -> list[int]:
        """Read the lines that were added since, by this process or another one, up to the last complete line.

        Returns:
            the hash of each line's id.
        """
        offset = whole = self._end
        added = []
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                body = checked(line)
                if body is None:
                    self.damaged += 1
                else:
                    head = _decode_head(body)
                    self.cost += head.cost
                    self.dearest = max(self.dearest, head.cost)
                    added.append(hash(head.id))
                    self._point(added[-1], offset)
                    whole = offset + len(line)
                offset += len(line)
        # A torn last line is the normal trace of a power cut: it is cut off without a warning.
        if offset > whole:
            self.damaged -= 1
        self._end = whole
        return added

    def _point(self, key: int, offset: int) -> None:
        """Make a line the newest one of an id."""
        if (before := self.index.get(key)) is not None:
            self._before[offset] = before
        self.index[key] = offset

    def get(self, id: str, content: str) -> Result | None:
        """The newest result for a row with this content.

        If the row had another content since, the earlier result still counts if its files cannot have been overwritten:
        version 0.1.0, which wrote no `Done.files`, used the same names for both.
        """
        offset = self.index.get(hash(id))
        if offset is None:
            return None
        newest = self._read(offset)
        if newest is not None and newest.id == id and newest.content == content:
            self._got = newest, offset
            return newest
        for position, result in enumerate(self.history(id)):
            if result is None or result.content != content:
                continue
            if not position or not isinstance(result, Done) or len(result.files) == len(result.paths):
                return result
        return None

    def newest_is(self, id: str, said: bytes, content: str) -> int | None:
        """Where the newest line of a row begins, if it begins with `said` and has this content, and neither input
        images nor anything that has to be decoded; else None. Far cheaper than `get`."""
        if (offset := self.index.get(hash(id))) is None:
            return None
        line = self._from_block(offset) or self._from_file(offset)
        if line.startswith(said, _BODY) and b'"content":"%b"' % content.encode() in line and b'"inputs":' not in line:
            return offset
        return None

    def position(self, result: Result) -> int:
        """Where the line of a result begins that `get` just returned, if it is the newest of its row; else far away."""
        got, offset = self._got
        return offset if got is result else sys.maxsize

    def history(self, id: str) -> Iterator[Result | None]:
        """All results of a row, for any content, the newest first; None for one that can no longer be read."""
        offset = self.index.get(hash(id))
        while offset is not None:
            result = self._read(offset)
            yield result if result is not None and result.id == id else None
            offset = self._before.get(offset)

    def results(self) -> Iterator[tuple[Result, bool]]:
        """The newest result of every row for each of its contents, and whether that is its current content as far as
        the journal knows, in the order of their first lines."""
        for offset in sorted(self.index.values(), key=self._oldest):
            said: set[str] = set()
            newest: int | None = offset
            while newest is not None:
                result = self._read(newest)
                if result is not None and result.content not in said:
                    yield result, newest == offset
                    said.add(result.content)
                newest = self._before.get(newest)

    def _oldest(self, offset: int) -> int:
        """The offset of the first line of a row."""
        while (before := self._before.get(offset)) is not None:
            offset = before
        return offset

    def _read(self, offset: int) -> Result | None:
        if (line := self._from_block(offset)) is None:
            line = self._from_file(offset)
        body = checked(line)
        try:
            return None if body is None else _decode(body)
        except msgspec.ValidationError:  # written by a version with another format
            return None

    def _from_block(self, offset: int) -> bytes | None:
        """The line, from a block that is complete; None if it is not whole in one."""
        number, start = divmod(offset, BLOCK)
        if (block := self._blocks.get(number)) is None:
            if (number + 1) * BLOCK > self._end:
                return None
            if len(self._blocks) >= MOST_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[number] = os.pread(self._file, BLOCK, number * BLOCK)
        end = block.find(b"\n", start) + 1
        return block[start:end] if end else None

    def _from_file(self, offset: int) -> bytes:
        line = b""
        while b"\n" not in line:
            chunk = os.pread(self._file, 4096 if not line else 1 << 20, offset + len(line))
            if not chunk:
                return b""
            line += chunk
        return line[: line.index(b"\n") + 1]

    def append(self, results: list[Result]) -> None:
        """Commit results. Raises DiskError if the disk refuses writes; the journal stays valid."""
        lines = []
        offset = self._end
        for result in results:
            line = with_checksum(_encode(result))
            lines.append((hash(result.id), offset, line))
            offset += len(line)
        data = b"".join(line for _, _, line in lines)
        try:
            self._write(data)
        except OSError as error:
            # The space that was reserved for answers in flight takes their lines.
            if error.errno not in reserve.FULL or not reserve.give_back(self.path.parent):
                raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
            try:
                self._write(data)
            except OSError as again:
                raise DiskError(f"cannot write {self.path}: {again.strerror}") from None
        self._end = offset
        for key, entry, _ in lines:
            self._point(key, entry)
        self.sync(SYNC_EVERY_S)

    def _write(self, data: bytes) -> None:
        """Append lines, completely or not at all. Raises OSError."""
        self._dirty = True
        written = os.pwrite(self._file, data, self._end)
        try:
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._end + written)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise

    def sync(self, at_most_every_s: float = 0.0) -> None:
        """Make everything durable, unless that was done within this many seconds. Raises DiskError."""
        if not self._dirty or time.monotonic() - self._synced < at_most_every_s:
            return
        try:
            os.fsync(self._file)
        except OSError as error:  # some file systems notice late that they are full
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
        self._synced, self._dirty = time.monotonic(), False

    def close(self) -> None:
        if self._file >= 0:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1


def with_checksum(body: bytes) -> bytes:
    """A JSON object as a line with a checksum."""
    return b'{"crc":"%08x","rec":%b}\n' % (crc32(body), body)


def checked(line: bytes) -> bytes | None:
    """The bytes of the object if the line is complete and its checksum is right."""
    body = line[_BODY:-2]
    if line[:_BODY] != b'{"crc":"%08x","rec":' % crc32(body) or line[-2:] != b"}\n":
        return None
    return body
