"""Looks at the files of earlier results in a process of its own, ahead of the run that reads the rows. For a million
finished rows that is a good part of the work, nearly all of it in the kernel.

It only saves time: a file that was not looked at yet, or that does not look intact, is for the run to judge. Does not
know rows. The process reads the journal in the order of its lines. It reports some lines at a time, in numbers of 8
bytes: where the first begins, where the last ends, how many have files that are not intact, and where those begin. A
run that has caught up looks at the next files itself, and tells the process where to go on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.output import intact

LEAST_BYTES = 8 << 20
"""Of a journal that is worth a process: about 25,000 rows."""
AT_ONCE = 1 << 16
"""Bytes of lines between two reports."""
SKIPPED = 1 << 18
"""Bytes of lines that a run looks at itself when it has caught up."""
FAR = 1 << 22
"""A line so many bytes ahead is that of a row that was done out of turn."""
SLOW_S, THREADS = 0.0005, 32
"""Seconds per file from which on the folder is on another machine, where waiting is all the work; then threads share
it."""
_BODY = len(b'{"crc":"00000000","rec":')


class _Files(msgspec.Struct):
    paths: tuple[str, ...] = ()
    files: tuple[tuple[int, str], ...] = ()


_decode = msgspec.json.Decoder(_Files).decode


class Lookahead:
    """Args: out: the run folder; journal: its file; has_files: whether results have files at all."""

    def __init__(self, out: str, journal: Path, has_files: bool = True):
        self._starts: list[int] = []
        self._ends: list[int] = []
        """Parts of the journal that were looked at."""
        self._own_until = 0
        """The run looks at the files of lines before this one itself."""
        self._damaged: set[int] = set()
        self._said = b""
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            if has_files and journal.stat().st_size >= LEAST_BYTES and (os.cpu_count() or 1) > 1:
                self._process = _start(out, journal)

    @property
    def until(self) -> int:
        """Where the last line ends that was looked at."""
        return self._ends[-1] if self._ends else 0

    def found_intact(self, position: int) -> bool:
        """Whether the files of the line that begins there were looked at and are intact."""
        known = max(self.until, self._own_until)
        if self._process is not None and known <= position < known + FAR:
            self._read()
            if position >= self.until:
                self._go_on_at(position + SKIPPED)
        number = bisect_right(self._starts, position) - 1
        return number >= 0 and position < self._ends[number] and position not in self._damaged

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def _go_on_at(self, position: int) -> None:
        self._own_until = position
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has ended, or has so many of these that it need not have this one
                os.write(self._process.stdin.fileno(), position.to_bytes(8, "little"))

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        try:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if data:
            self._take(data)
        else:
            self.close()

    def _take(self, data: bytes) -> None:
        """Read reports, and keep the part of one that is not complete."""
        said, at = self._said + data, 0
        while len(said) >= at + 24:
            start, end, count = _numbers(said[at : at + 24])
            if len(said) < (after := at + 24 + 8 * count):
                break
            self._damaged.update(_numbers(said[at + 24 : after]))
            if self._ends and self._ends[-1] == start:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)
            at = after
        self._said = said[at:]


def _start(out: str, journal: Path) -> subprocess.Popen[bytes]:
    """Start the process. Raises OSError."""
    command = [sys.executable, "-m", "fastgen.output.lookahead", os.path.abspath(out), str(journal.absolute())]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=nothing)
    assert process.stdin is not None and process.stdout is not None
    for end in (process.stdin, process.stdout):
        os.set_blocking(end.fileno(), False)
    return process


def look(out: str, journal: str) -> None:
    """What the process does, until it is through or nobody listens."""
    slow = False
    with Path(journal).open("rb") as file, ThreadPoolExecutor(THREADS) as pool:
        os.chdir(out)  # short paths are found faster
        position = 0
        while lines := file.readlines(AT_ONCE):
            started = time.monotonic()
            position = _report(lines, position, pool if slow else None)
            slow = slow or time.monotonic() - started > len(lines) * SLOW_S
            if (told := _told()) > position:
                file.seek(told - 1)
                file.readline()
                position = file.tell()


def _told() -> int:
    """Where the run wants this to go on; 0 if it has not said so since the last time."""
    try:
        said = os.read(0, 1 << 16)
    except OSError:
        return 0
    return _numbers(said[-8:])[0] if len(said) >= 8 else 0


def _report(lines: list[bytes], start: int, pool: ThreadPoolExecutor | None) -> int:
    """Look at the files of some lines, and say what was found. Returns where the last one ends."""
    good, position, damaged = (pool.map if pool else map)(_is_good, lines), start, list[int]()
    for line, is_good in zip(lines, good, strict=True):
        if not is_good:
            damaged.append(position)
        position += len(line)
    numbers: Iterable[int] = (start, position, len(damaged), *damaged)
    sys.stdout.buffer.write(b"".join(number.to_bytes(8, "little") for number in numbers))
    sys.stdout.buffer.flush()
    return position


def _is_good(line: bytes) -> bool:
    try:
        done = _decode(line[_BODY:-2])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    if len(done.files) != len(done.paths):
        return False
    return all(intact.is_intact(path, stamp) for path, stamp in zip(done.paths, done.files, strict=True))


def _numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


if __name__ == "__main__":
    os.set_blocking(0, False)
    with suppress(OSError):
        look(sys.argv[1], sys.argv[2])
