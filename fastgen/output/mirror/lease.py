"""Which machine writes to a place in object storage. It says so in an object, and writes that again and again. If it is
gone, another machine may take its place a while later.

This only keeps two machines from doing the same work. What keeps the journal whole is that each of its segments can be
written once.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import suppress

import msgspec

from fastgen.errors import RunFolderError, StorageError
from fastgen.output.mirror.place import Place

NAME = "lock.json"
RENEW_EVERY_S = 20.0
LASTS_S = 90.0
"""After so long without a renewal another machine may take over."""


class Holder(msgspec.Struct, frozen=True):
    """Who writes."""

    writer: str
    """Names the state folder."""
    host: str
    pid: int


_decode = msgspec.json.Decoder(Holder).decode


class Lease:
    """Args: writer: a name that no other state folder has."""

    def __init__(self, place: Place, writer: str):
        self._place = place
        self._mine = Holder(writer, socket.gethostname(), os.getpid())
        self._renewed = 0.0

    def take(self) -> None:
        """Raises RunFolderError if another machine is at work there; StorageError."""
        holder = self.holder()
        if holder is not None and holder.writer != self._mine.writer and (age_s := self._age_s()) < LASTS_S:
            raise RunFolderError(
                f"-o {self._place.url}: {holder.host} (process {holder.pid}) is using it; wait until it has finished "
                f"({LASTS_S - age_s:.0f} s if it was killed), or choose another address"
            )
        self._write()

    def renew(self) -> None:
        """Say again that this machine writes, if it is time. Raises StorageError if another one does."""
        if time.monotonic() - self._renewed < RENEW_EVERY_S:
            return
        holder = self.holder()
        if holder is not None and holder.writer != self._mine.writer:
            raise taken(self._place, f"{holder.host} (process {holder.pid})")
        self._write()

    def release(self) -> None:
        """Raises StorageError."""
        holder = self.holder()
        if holder is not None and holder.writer == self._mine.writer:
            with suppress(FileNotFoundError):
                self._place.delete(NAME)

    def holder(self) -> Holder | None:
        """Who writes there, or did when it was killed. Raises StorageError."""
        data = self._place.read(NAME)
        try:
            return None if data is None else _decode(data)
        except msgspec.MsgspecError:
            return None

    def _write(self) -> None:
        self._place.put(NAME, msgspec.json.encode(self._mine))
        self._renewed = time.monotonic()

    def _age_s(self) -> float:
        """How long ago the lease was renewed, by the clock of the server alone."""
        probe = f"{NAME}-{secrets.token_hex(4)}"
        self._place.put(probe, b"{}")
        try:
            return (self._place.changed(probe) - self._place.changed(NAME)).total_seconds()
        except FileNotFoundError:  # it was released just now
            return LASTS_S
        finally:
            with suppress(FileNotFoundError, StorageError):
                self._place.delete(probe)


def taken(place: Place, who: str) -> StorageError:
    """The error of a machine that finds another one in its place."""
    return StorageError(
        f"{place.url}: {who} has begun to write there, so this run ends. Its results are safe in the state folder"
    )
