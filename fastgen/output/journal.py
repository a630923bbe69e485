"""The commit log: a result counts once its line is here.

Each line is a JSON object with a checksum and one result:

    {"crc":"1a2b3c4d","rec":{"status":"done","id":"row-7","paths":["images/row-7_0.png"],...}}

Lines are handed to the kernel at once, so killing this process loses none. fsync follows within a time budget, so a
power cut loses at most that much work. It never leaves a wrong line: a line that fails its checksum is dropped, and its
row is made again. Memory holds one pair of integers per row; everything else stays on disk. Together with what intake
remembers to tell repeated rows apart, the main process takes about 300 bytes per row (bench/results/run_loop.json).
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from zlib import crc32

import msgspec

from fastgen.errors import DiskError
from fastgen.types import Done, Failed, Result

SYNC_EVERY_S = 1.0
_PREFIX = len(b'{"crc":"')
_BODY = len(b'{"crc":"00000000","rec":')
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Done | Failed).decode


class _Head(msgspec.Struct):
    id: str


_decode_head = msgspec.json.Decoder(_Head).decode


class Journal:
    """Opens the journal and reads what is there. Not safe for two processes; the lock of the run folder prevents
    that."""

    def __init__(self, path: Path, read_only: bool = False):
        self.path = path
        self.index: dict[int, int] = {}
        """hash(id) -> offset of its newest line."""
        self.damaged = 0
        """Number of lines dropped because of a wrong checksum."""
        self._file = os.open(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT, 0o644)
        self._end = self._replay()
        if not read_only:
            os.ftruncate(self._file, self._end)
        self._synced = time.monotonic()

    def _replay(self) -> int:
        """Fill the index. Returns the length of the journal up to its last complete line."""
        offset = whole = 0
        with self.path.open("rb") as file:
            for line in file:
                body = _checked(line)
                if body is None:
                    self.damaged += 1
                else:
                    head = _decode_head(body)
                    self.index[hash(head.id)] = offset
                    whole = offset + len(line)
                offset += len(line)
        # A torn last line is the normal trace of a power cut: it is cut off without a warning.
        if offset > whole:
            self.damaged -= 1
        return whole

    def get(self, id: str, content: str) -> Result | None:
        """The newest result for a row, unless the row had different content then."""
        entry = self.index.get(hash(id))
        if entry is None:
            return None
        line, offset = b"", entry
        while b"\n" not in line:
            chunk = os.pread(self._file, 4096 if not line else 1 << 20, offset + len(line))
            if not chunk:
                return None
            line += chunk
        body = _checked(line[: line.index(b"\n") + 1])
        try:
            result = None if body is None else _decode(body)
        except msgspec.ValidationError:  # written by a version with another format
            result = None
        return result if result is not None and (result.id, result.content) == (id, content) else None

    def append(self, results: list[Result]) -> None:
        """Commit results. Raises DiskError if the disk refuses writes; the journal stays valid."""
        lines = []
        offset = self._end
        for result in results:
            body = _encode(result)
            line = b'{"crc":"%08x","rec":%b}\n' % (crc32(body), body)
            lines.append((hash(result.id), offset, line))
            offset += len(line)
        data = b"".join(line for _, _, line in lines)
        try:
            written = os.pwrite(self._file, data, self._end)
            if written < len(data):
                written += os.pwrite(self._file, data[written:], self._end + written)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
        self._end = offset
        for key, entry, _ in lines:
            self.index[key] = entry
        if time.monotonic() - self._synced > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1


def _checked(line: bytes) -> bytes | None:
    """The bytes of the record if the line is complete and its checksum is right."""
    body = line[_BODY:-2]
    if not line.endswith(b"}\n") or not line.startswith(b'{"crc":"'):
        return None
    try:
        wanted = int(line[_PREFIX : _PREFIX + 8], 16)
    except ValueError:
        return None
    return body if crc32(body) == wanted else None
