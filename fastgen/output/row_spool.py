"""The rows of a run as they were read, each with its identity, so that the tables no longer need INPUT.

A file in the run folder's place for temporary files, one record per row in input order. It lives as long as the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from fastgen.errors import DiskError
from fastgen.output.artifacts import PARTIAL


class SpooledRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of INPUT."""

    number: int
    raw: bytes
    """As the user wrote it."""
    id: str
    content: str
    prefilled: bool
    """Its output field was already filled."""
    readable: bool
    """It is a JSON object."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SpooledRow).decode


class RowSpool:
    """Args:
        out: the run folder, which is claimed.
        finds: whether rows are wanted by their ids, each once.

    Raises:
        DiskError: it cannot be written.
    """

    def __init__(self, out: Path, finds: bool = False):
        self._path = out / PARTIAL / "rows"
        self._places: dict[str, int] | None = {} if finds else None
        """Id -> where its record begins, of rows that were not taken yet."""
        self._end = 0
        try:
            self._file = self._path.open("w+b")
        except OSError as error:
            raise DiskError(f"cannot write {self._path}: {error.strerror}") from None
        self._hash = blake2b(digest_size=16)

    def add(self, row: SpooledRow) -> None:
        """Append a row. Raises DiskError."""
        record = _encode(row)
        self._hash.update(record)
        try:
            self._file.write(len(record).to_bytes(4, "little") + record)
        except OSError as error:
            raise DiskError(f"cannot write {self._path}: {error.strerror}") from None
        if self._places is not None:
            self._places[row.id] = self._end
        self._end += 4 + len(record)

    def take(self, id: str) -> SpooledRow | None:
        """The row of that id; None if it was taken before. Raises DiskError."""
        place = self._places.pop(id, None) if self._places else None
        if place is None:
            return None
        try:
            self._file.flush()
            length = int.from_bytes(os.pread(self._file.fileno(), 4, place), "little")
            return _decode(os.pread(self._file.fileno(), length, place + 4))
        except OSError as error:
            raise DiskError(f"cannot read {self._path}: {error.strerror}") from None

    @property
    def digest(self) -> str:
        """A hash of all rows so far, in their order."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[SpooledRow]:
        """All rows so far, in input order. Raises DiskError."""
        try:
            self._file.seek(0)
            while head := self._file.read(4):
                yield _decode(self._file.read(int.from_bytes(head, "little")))
        except OSError as error:
            raise DiskError(f"cannot read {self._path}: {error.strerror}") from None

    def close(self) -> None:
        with suppress(OSError):  # a full disk is reported elsewhere; this file is no longer needed
            self._file.close()
