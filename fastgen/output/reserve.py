"""Disk space reserved for answers in flight. It is released when the disk is full, so that paid answers can be stored.
Does not know requests; whoever sends them asks for how many answers there is room.

It is a folder with one file per answer that may be in flight, each as large as an answer may be, because a disk can run
out of space or of files. Any process of the run may release it; then the run ends. It is among the temporary files of
the run folder, so the next run removes what a killed run leaves.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = ".partial/reserve"
PLACES = (FOLDER, f"images/{FOLDER}")
"""The latter where pictures go to a disk of their own (see artifacts.prepare)."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""A write that fails with these errors may succeed after the reserve is released."""
SHARE = 0.5
"""Maximum share of the free space and files, because the run itself needs room."""
MARGIN, FIRST_MARGIN, FIRST = 1.25, 2.0, 8
"""An answer may be larger than the largest so far, especially while fewer than eight have come."""
PICTURE_BYTES, TEXT_BYTES = 2 << 20, 16 << 10
"""The assumed size before any answer has come: a PNG of one megapixel, and a caption."""
LINE_BYTES = BLOCK = 4096
RELEASED_S = 2.0
"""Time for another thread or process to remove the files of the reserve."""


class Reserve:
    """Args:
    out: the run folder.
    answers: maximum number of answers in flight.
    each: assumed bytes per answer before any has come.
    with_files: whether an answer is stored as a file, besides its line in the journal.
    """

    def __init__(self, out: Path, answers: int, each: int, with_files: bool):
        self.answers = answers
        self.with_files = with_files
        self._most_files = answers if with_files else 1
        self._out = out
        self._each = each
        self._seen = 0
        self._largest = 0
        self._set_aside = 0
        """Reserved bytes. 0: nothing could be reserved, so there is no limit."""
        self._files = 0
        elsewhere = with_files and (out / PLACES[1]).parent.is_dir()
        self._folder = out / PLACES[elsewhere]
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            if elsewhere:
                (out / FOLDER).mkdir(parents=True, exist_ok=True)
                self._allocate(out / FOLDER / "lines", answers * LINE_BYTES)
        self._grow()

    @property
    def capacity(self) -> int:
        """How many answers may be in flight, at least one."""
        if not self._set_aside:
            return self.answers
        files = self._files if self._most_files > 1 else self.answers
        return max(1, min(self.answers, files, self._set_aside // self._each))

    @property
    def intact(self) -> bool:
        """Whether it has not been released."""
        return not self._set_aside or self._folder.exists()

    def release(self) -> None:
        """Nothing is in flight any more."""
        give_back(self._out)

    def learn(self, paths: Sequence[str], characters: int) -> None:
        """Record the size of an answer: its files and its text. The reserve adapts."""
        size = LINE_BYTES + 4 * characters
        for path in paths:
            with suppress(OSError):
                size += -(-os.path.getsize(self._out / path) // BLOCK) * BLOCK
        self._seen += 1
        self._largest = max(self._largest, size)
        needed = int(self._largest * (MARGIN if self._seen >= FIRST else FIRST_MARGIN))
        grown, self._each = needed > self._each, needed
        if grown and self._set_aside:
            self._grow()

    def _grow(self) -> None:
        """Reserve what all answers may need, or what the disk allows. Makes no folder, since it may have been
        released."""
        folder = self._folder
        try:
            disk = os.statvfs(folder)
            block = disk.f_frsize or 4096
            most = self._set_aside // block + int(disk.f_bavail * SHARE)
            # A file system without a limit on files reports that none are free.
            most_files = self._files + int(disk.f_favail * SHARE) if disk.f_files else self._most_files
            files = max(1, min(self._most_files, most, most_files))
            blocks = max(1, min(-(-self._each * self.answers // (files * block)), most // files))
            for number in range(files):
                self._allocate(folder / str(number), blocks * block)
            self._files, self._set_aside = files, files * blocks * block
        except OSError:  # a disk that cannot reserve space, or is already full
            if not self._set_aside:
                shutil.rmtree(folder, ignore_errors=True)

    def _allocate(self, path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)


def is_there(out: Path) -> bool:
    """Whether space is reserved in a run folder, or is being released at this moment."""
    return any(path.exists() for place in PLACES for path in (out / place, _released(out / place)))


def give_back(out: Path) -> bool:
    """Release the reserve of a run folder. If somebody else is doing that, wait until the space is free. Returns False
    if there was none."""
    found = False
    for place in PLACES:
        folder, gone = out / place, _released(out / place)
        with suppress(OSError):
            # Rename it first, so that others see that it was released.
            os.rename(folder, gone)
            found = True
            shutil.rmtree(gone, ignore_errors=True)
            continue
        found = gone.exists() or found
        limit = time.monotonic() + RELEASED_S
        while gone.exists() and time.monotonic() < limit:
            time.sleep(0.001)
    return found


def _released(folder: Path) -> Path:
    return folder.with_name("given-back")
