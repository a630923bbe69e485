"""The commit log: a result counts once its line is here.

Each line is a JSON object with a checksum and one result:

    {"crc":"1a2b3c4d","rec":{"status":"done","id":"row-7","paths":["images/row-7_0.png"],...}}

Lines go to the kernel at once, so killing this process loses none; fsync follows on a time budget, so a power cut
costs at most that much work, never a wrong line: a line that fails its checksum is dropped and its row made again.
In memory there is one pair of integers per row; everything else stays on disk. With what the intake remembers to tell
repeated rows apart, the main process takes about 300 bytes per row (bench/results/run_loop.json).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from zlib import crc32

import msgspec

from fastgen.errors import DiskError
from fastgen.output import reserve
from fastgen.types import Done, Failed, Result

SYNC_EVERY_S = 1.0
_PREFIX = len(b'{"crc":"')
_BODY = len(b'{"crc":"00000000","rec":')
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Done | Failed).decode


class _Head(msgspec.Struct):
    id: str
    cost: float = 0.0


_decode_head = msgspec.json.Decoder(_Head).decode


class Journal:
    """Open, and read what is there. Not safe for two processes: the run folder's lock sees to that."""

    def __init__(self, path: Path, read_only: bool = False):
        self.path = path
        self.index: dict[int, int] = {}
        """hash(id) -> offset of its newest line."""
        self.damaged = 0
        """Lines dropped for a wrong checksum."""
        self.cost = self.dearest = 0.0
        """USD of all results that it had when it was opened, and of the dearest."""
        self._file = os.open(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT, 0o644)
        self._end = self._replay()
        if not read_only:
            os.ftruncate(self._file, self._end)
        self._synced = time.monotonic()
        self._dirty = False

    def _replay(self) -> int:
        """Fill the index. Returns the length of the journal up to its last whole line."""
        offset = whole = 0
        with self.path.open("rb") as file:
            for line in file:
                body = checked(line)
                if body is None:
                    self.damaged += 1
                else:
                    head = _decode_head(body)
                    self.cost += head.cost
                    self.dearest = max(self.dearest, head.cost)
                    self.index[hash(head.id)] = offset
                    whole = offset + len(line)
                offset += len(line)
        # A torn last line is the ordinary trace of a power cut: it is cut off and not worth a warning.
        if offset > whole:
            self.damaged -= 1
        return whole

    def get(self, id: str, content: str) -> Result | None:
        """The newest result for a row, unless the row said something else then."""
        entry = self.index.get(hash(id))
        if entry is None:
            return None
        line, offset = b"", entry
        while b"\n" not in line:
            chunk = os.pread(self._file, 4096 if not line else 1 << 20, offset + len(line))
            if not chunk:
                return None
            line += chunk
        body = checked(line[: line.index(b"\n") + 1])
        try:
            result = None if body is None else _decode(body)
        except msgspec.ValidationError:  # of a version that wrote something else
            result = None
        return result if result is not None and (result.id, result.content) == (id, content) else None

    def append(self, results: list[Result]) -> None:
        """Commit results. Raises DiskError when the disk takes no more; the journal then stays whole."""
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
            # What was set aside for the answers that are under way takes their lines.
            if error.errno not in reserve.FULL or not reserve.give_back(self.path.parent):
                raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
            try:
                self._write(data)
            except OSError as again:
                raise DiskError(f"cannot write {self.path}: {again.strerror}") from None
        self._end = offset
        for key, entry, _ in lines:
            self.index[key] = entry
        self.sync(SYNC_EVERY_S)

    def _write(self, data: bytes) -> None:
        """At the end, whole or not at all. Raises OSError."""
        self._dirty = True
        written = os.pwrite(self._file, data, self._end)
        try:
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._end + written)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise

    def sync(self, at_most_every_s: float = 0.0) -> None:
        """Make all of it durable, unless that was done so few seconds ago. Raises DiskError."""
        if not self._dirty or time.monotonic() - self._synced < at_most_every_s:
            return
        try:
            os.fsync(self._file)
        except OSError as error:  # where a file system finds out late that it is full
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
    """A JSON object as a line that says whether it is whole."""
    return b'{"crc":"%08x","rec":%b}\n' % (crc32(body), body)


def checked(line: bytes) -> bytes | None:
    """The object's bytes if the line is whole and its checksum right."""
    body = line[_BODY:-2]
    if not line.endswith(b"}\n") or not line.startswith(b'{"crc":"'):
        return None
    try:
        wanted = int(line[_PREFIX : _PREFIX + 8], 16)
    except ValueError:
        return None
    return body if crc32(body) == wanted else None
