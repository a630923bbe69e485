"""What is asked of a service by the file: written down before it is sent, so that no kill has it sent twice, and none
loses an answer. The files and states are those of output/parcels.py. Sends nothing, and does not know what a request or
an answer says.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
from filelock import FileLock, Timeout

from fastgen.errors import DiskError, EngineError
from fastgen.output.artifacts import sync_folder
from fastgen.output.parcels import ANSWERS, ASKS, FOLDER, REQUESTS, STATE, Answer, Ask, Parcel, asks_in, parcels_in
from fastgen.types import Kind

LOCK = "lock"
LOCK_S = 30.0
"""Time for a process whose run was killed to let go of the folder; it needs up to 6 s (worker_main.CLOSE_S)."""
_encode = msgspec.json.Encoder().encode
_answer = msgspec.json.Decoder(Answer).decode


class Outbox:
    """The parcels of one backend in a run folder. Thread-safe.

    Args:
        out: the run folder.
        backend: its name.
        where: its address; parcels of another one are left alone.
    Raises:
        EngineError: another process has not let go of it.
    """

    def __init__(self, out: Path, backend: str, where: str, lock_s: float = LOCK_S):
        self.folder, self.where = out / FOLDER / backend, where
        with _disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=lock_s)
        except Timeout:
            raise EngineError(f"{self.folder}: another process still uses it; wait for its end and run again") from None
        self.changed = threading.Condition()
        """Notified when a parcel ends."""
        self.parcels: dict[str, Parcel] = {}
        self._old: set[str] = set()
        """Parcels that had ended before this process began."""
        self._at: dict[str, tuple[str, int, int]] = {}
        """Key -> parcel, and offset and length of the answer; length 0: not there yet."""
        self._said: dict[str, str] = {}
        """Key -> hash of the request."""
        for parcel in parcels_in(self.folder):
            if parcel.where == where:
                self._take(parcel)
                if parcel.step == "ended":
                    self._old.add(parcel.name)
        for path in self.folder.iterdir():
            if path.is_dir() and not (path / STATE).exists():
                shutil.rmtree(path, ignore_errors=True)

    def find(self, key: str) -> Answer | Parcel | None:
        """The answer to a request, the parcel that it waits in, or None if it was not asked."""
        with self.changed:
            at = self._at.get(key)
            if at is None:
                return None
            name, offset, length = at
            if not length:
                return self.parcels[name]
        try:
            with (self.folder / name / ANSWERS).open("rb") as file:
                file.seek(offset)
                answer = _answer(file.read(length))
        except FileNotFoundError:  # all its rows are in the journal
            return None
        answer.said, answer.is_old = self._said.get(key, ""), name in self._old
        return answer

    def draft(self) -> Draft:
        """A new parcel, to be filled."""
        return Draft(self)

    def step(self, parcel: Parcel, **facts: object) -> None:
        """Change the state of a parcel, durably. Raises DiskError."""
        with self.changed:
            changed = msgspec.structs.replace(parcel, **facts)
            self._write(changed)
            for name in changed.__struct_fields__:
                setattr(parcel, name, getattr(changed, name))
            if parcel.step == "ended":
                self._index(parcel)
                self.changed.notify_all()

    def keep(self, parcel: Parcel, answers: Iterable[Answer], otherwise: tuple[Kind, str]) -> None:
        """Store the answers of a parcel, which then has ended. The first answer to a request counts.

        Args:
            otherwise: what is said of requests without an answer.
        Raises:
            DiskError: what was stored so far is as if it had not been.
        """
        folder = self.folder / parcel.name
        left = {ask.key: ask for ask in asks_in(folder)}
        with _disk(folder), (folder / f"{ANSWERS}.new").open("wb") as file:
            for answer in answers:
                if left.pop(answer.key, None) is not None:
                    file.write(_encode(answer) + b"\n")
            for key in left:
                file.write(_encode(Answer(key, kind=otherwise[0], why=otherwise[1])) + b"\n")
            _sync(file)
            os.rename(folder / f"{ANSWERS}.new", folder / ANSWERS)
        sync_folder(folder)
        self.step(parcel, step="ended", trouble="")
        with suppress(OSError):
            (folder / REQUESTS).unlink()

    def path(self, parcel: Parcel, name: str = REQUESTS) -> Path:
        return self.folder / parcel.name / name

    def close(self) -> None:
        self._lock.release()

    # Details

    def _take(self, parcel: Parcel) -> None:
        self.parcels[parcel.name] = parcel
        for ask in asks_in(self.folder / parcel.name):
            self._said[ask.key] = ask.said
            self._at[ask.key] = (parcel.name, 0, 0)
        if parcel.step == "ended":
            self._index(parcel)

    def _index(self, parcel: Parcel) -> None:
        offset = 0
        with suppress(FileNotFoundError), (self.folder / parcel.name / ANSWERS).open("rb") as file:
            for line in file:
                self._at[_answer(line).key] = (parcel.name, offset, len(line))
                offset += len(line)

    def _write(self, parcel: Parcel) -> None:
        folder = self.folder / parcel.name
        with _disk(folder), (folder / f"{STATE}.new").open("wb") as file:
            file.write(_encode(parcel))
            _sync(file)
            os.rename(folder / f"{STATE}.new", folder / STATE)
        sync_folder(folder)


class Draft:
    """A parcel that is being filled; it exists once it is closed, and was never there if it is not."""

    def __init__(self, outbox: Outbox):
        self._outbox, self.name = outbox, secrets.token_hex(16)
        self._folder = outbox.folder / self.name
        self._requests: BinaryIO | None = None
        self._asks: BinaryIO | None = None
        self.count = self.size = 0

    def add(self, ask: Ask, line: bytes) -> None:
        """Args: line: the request, as the service wants it, without a line break. Raises DiskError."""
        with _disk(self._folder):
            if self._requests is None:
                self._folder.mkdir()
                self._requests = (self._folder / REQUESTS).open("wb")
                self._asks = (self._folder / ASKS).open("wb")
            assert self._asks is not None
            self._requests.write(line + b"\n")
            self._asks.write(_encode(ask) + b"\n")
        self.count += 1
        self.size += len(line) + 1

    def close(self, endpoint: str) -> Parcel | None:
        """Make it durable. Returns the parcel, None if nothing is in it. Raises DiskError."""
        if self._requests is None or self._asks is None:
            return None
        with _disk(self._folder), self._requests, self._asks:
            _sync(self._requests)
            _sync(self._asks)
        parcel = Parcel(self.name, self._outbox.where, endpoint, self.count, made_at=time.time())
        with self._outbox.changed:
            self._outbox._write(parcel)
            sync_folder(self._outbox.folder)
            self._outbox._take(parcel)
        return parcel

    def drop(self) -> None:
        """It is not wanted any more."""
        for file in (self._requests, self._asks):
            if file is not None:
                with suppress(OSError):
                    file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


class _disk:
    """Turns OSError into DiskError."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise DiskError(f"cannot write {self._path}: {error.strerror}") from None
