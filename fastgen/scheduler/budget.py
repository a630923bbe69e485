"""What a run folder has cost, and what may still be spent: reserved before a request goes out, settled when it is over.

Both are written down at once, so that a killed run's open reservations count as spent: nobody can tell whether those
requests were billed. The file is only there where something costs money.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from fastgen.errors import DiskError

SPENDING = "spending.jsonl"


class Entry(msgspec.Struct, omit_defaults=True):
    id: str
    reserved: float = 0.0
    """USD at most, before the request."""
    spent: float | None = None
    """USD after it; the reservation is over."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Ledger:
    """Args: limit: USD for this folder, over all its runs; 0 for no limit."""

    def __init__(self, folder: Path, limit: float):
        self.path = folder / SPENDING
        self.limit = limit
        self.spent = 0.0
        self._open: dict[str, float] = {}
        self._file = -1
        self._torn = False
        """The file ends within a line, to which nothing must be added."""
        if self.path.exists():
            self._replay()

    def _replay(self) -> None:
        data = self.path.read_bytes()
        self._torn = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            try:
                entry = _decode(line)
            except msgspec.DecodeError:  # the torn end of a power cut
                continue
            self._apply(entry)
        self.spent += sum(self._open.values())
        self._open.clear()

    def _apply(self, entry: Entry) -> None:
        if entry.spent is None:
            self._open[entry.id] = self._open.get(entry.id, 0.0) + entry.reserved
        else:
            self._open.pop(entry.id, None)
            self.spent += entry.spent

    @property
    def reserved(self) -> float:
        return sum(self._open.values())

    def afford(self, most: dict[str, float]) -> bool:
        """As `reserve`, for several requests by id: all or none."""
        reserved: list[str] = []
        for id, usd in most.items():
            if not self.reserve(id, usd):
                for before in reserved:
                    self.settle(before, 0.0)
                return False
            reserved.append(id)
        return True

    def reserve(self, id: str, most: float) -> bool:
        """Set aside what a request may cost at most. False, and nothing is set aside, if that could pass the limit."""
        if not most:
            return True
        if self.limit and self.spent + self.reserved + most > self.limit:
            return False
        self._write(Entry(id, reserved=most))
        return True

    def settle(self, id: str, cost: float | None) -> None:
        """A request is over. `cost` None: nobody knows, so all that was set aside counts."""
        held = self._open.get(id, 0.0)
        if held or cost:
            self._write(Entry(id, spent=held if cost is None else cost))

    def _write(self, entry: Entry) -> None:
        try:
            if self._file < 0:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            line = b"\n" * self._torn + _encode(entry) + b"\n"
            self._torn = os.write(self._file, line) < len(line)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
        self._apply(entry)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
