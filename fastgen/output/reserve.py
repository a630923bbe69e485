"""Disk space set aside for answers that are on their way: given back when the disk is full, so that what is paid for
can be kept. Knows no requests; whoever sends them asks how many answers there is room for.

It is a folder of as many files as answers may be on their way, each as large as one may be: a disk may run out of space
or of files. Any process of the run may give it back; then the run ends. It lies among the temporary files of the run
folder, so what a killed run leaves is removed by the next.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = ".partial/reserve"
PLACES = (FOLDER, f"images/{FOLDER}")
"""The latter where pictures go to a disk of their own (see artifacts.prepare)."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""A write that fails for these may succeed once the reserve is given back."""
SHARE = 0.5
"""Of the free space and files at most: the run itself must have room."""
MARGIN, FIRST_MARGIN, FIRST = 1.25, 2.0, 8
"""An answer may be larger than the largest so far, the more so while fewer than eight have come."""
PICTURE_BYTES, TEXT_BYTES = 2 << 20, 16 << 10
"""What an answer may take before any is known: a PNG of a megapixel, and a caption."""
LINE_BYTES = BLOCK = 4096


class Reserve:
    """Args:
    out: the run folder.
    answers: that may be on their way at once.
    each: bytes that an answer may take, before any is known.
    with_files: whether an answer is kept as a file of its own, besides its line in the journal.
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
        """Bytes. 0: none could be set aside, so there is nothing to go by."""
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
        """How many answers may be on their way at once, at least one."""
        if not self._set_aside:
            return self.answers
        files = self._files if self._most_files > 1 else self.answers
        return max(1, min(self.answers, files, self._set_aside // self._each))

    @property
    def intact(self) -> bool:
        """Whether nobody has given it back."""
        return not self._set_aside or self._folder.exists()

    def release(self) -> None:
        """Nothing is on its way any more."""
        give_back(self._out)

    def learn(self, paths: Sequence[str], characters: int) -> None:
        """An answer took these files and a text. The reserve follows."""
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
        """Set aside what all answers may need, or what the disk allows. Makes no folder: it may be given back."""
        folder = self._folder
        try:
            disk = os.statvfs(folder)
            block = disk.f_frsize or 4096
            most = self._set_aside // block + int(disk.f_bavail * SHARE)
            # A file system without a limit on files says that it has none free.
            most_files = self._files + int(disk.f_favail * SHARE) if disk.f_files else self._most_files
            files = max(1, min(self._most_files, most, most_files))
            blocks = max(1, min(-(-self._each * self.answers // (files * block)), most // files))
            for number in range(files):
                self._allocate(folder / str(number), blocks * block)
            self._files, self._set_aside = files, files * blocks * block
        except OSError:  # a disk that cannot set space aside, or is full as it is
            if not self._set_aside:
                shutil.rmtree(folder, ignore_errors=True)

    def _allocate(self, path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)


def is_there(out: Path) -> bool:
    """Whether space is set aside in a run folder."""
    return any((out / place).exists() for place in PLACES)


def give_back(out: Path) -> bool:
    """Free what is set aside in a run folder. False if nothing was."""
    found = False
    for place in PLACES:
        folder = out / place
        with suppress(OSError):
            # Renamed first: who looks for it afterwards knows that it is given back.
            os.rename(folder, gone := folder.with_name("given-back"))
            found = True
            shutil.rmtree(gone, ignore_errors=True)
    return found
