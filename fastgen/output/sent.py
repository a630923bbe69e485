"""Which rows' requests have gone out, so that after a kill only those count as possibly paid, and not those that still
waited for their turn.

Workers append eight bytes per request to one file in the run folder just before they send it, so what is not there was
never sent. That holds after a kill, which the kernel survives, but not after a power cut, so the file names the boot in
which it was written. The file of a run that ends in good order is removed. Does not know costs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

FILE = ".sent"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MARK_BYTES = 8


class SentMarks:
    """The writing end, in a worker. Thread-safe. Args: out: the run folder, whose file is there before the first
    request."""

    def __init__(self, out: str):
        self._path = Path(out) / FILE
        self._file = -1

    def add(self, ids: Iterable[str]) -> None:
        """The requests of these rows are sent next. If that cannot be written, the file is removed, so that nobody
        relies on it."""
        marks = b"".join(map(_mark, ids))
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            whole = os.write(self._file, marks) == len(marks)
        except OSError:
            whole = False
        if not whole:
            with suppress(OSError):
                self._path.unlink()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def begin(out: Path) -> str:
    """Start a file for one run. Returns its name for `read`; "" if there is none."""
    boot = _boot()
    if not boot:
        return ""
    run = boot + secrets.token_hex(4)
    path = out / FILE
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.write_bytes(run.encode() + b"\n")
        return run
    return ""


def read(out: Path, run: str) -> Sent | None:
    """What was sent in the run that `begin` gave this name; None if that is not known."""
    try:
        head, _, marks = (out / FILE).read_bytes().partition(b"\n")
    except OSError:
        return None
    if not run or head != run.encode() or not run.startswith(_boot() or "?") or len(marks) % _MARK_BYTES:
        return None
    return Sent(marks)


def end(out: Path) -> None:
    """Nothing is in flight any more."""
    with suppress(OSError):
        (out / FILE).unlink(missing_ok=True)


class Sent:
    """Which rows' requests were sent: `id in sent`."""

    def __init__(self, marks: bytes):
        self._marks = {marks[at : at + _MARK_BYTES] for at in range(0, len(marks), _MARK_BYTES)}

    def __contains__(self, id: str) -> bool:
        return _mark(id) in self._marks


def _mark(id: str) -> bytes:
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=_MARK_BYTES).digest()


def _boot() -> str:
    """Names the time since this machine was started; "" where that is not known."""
    with suppress(OSError):
        return _BOOT.read_text().strip()[:8]
    return ""
