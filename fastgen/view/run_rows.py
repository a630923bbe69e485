"""The rows of one run folder, as the page lists them: read in a thread, and followed while the run goes on.

Every change has a number, so the page asks for what is new since the last one. When another run begins in the folder,
all is read again under another `generation`.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from fastgen.errors import FastgenError
from fastgen.output.run_dir import JOURNAL, LOCK, RESULTS, RUN
from fastgen.output.writers.tables import Shape
from fastgen.view import sources
from fastgen.view.listed import Listed, Reading

LOOK_EVERY_S = 1.0
"""At the journal of a run that is at work."""
SILENT_S = 60.0
"""After so long without a new result, a run whose lock is not held on this machine counts as stopped."""


class RunRows:
    """Args: path: a run folder. Raises RunFolderError, SettingsError."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self.generation = 0
        self.rows: list[Listed] = []
        self.log: list[int] = []
        """Positions of rows, each time that they were read or changed."""
        self.is_read = False
        """Whether all rows have been read once."""
        self.problem = ""
        """Why they cannot be read any more."""
        self._closed = threading.Event()
        self._open()

    def _open(self) -> None:
        self.about = sources.about(self.path)
        shape = Shape.of_run(self.path, self.about["settings"])
        self.reading = Reading(shape, self.about)
        self._source = sources.choose(self.path, shape, self.about)
        self._stamp = self._look()

    @property
    def task(self) -> str:
        return self.reading.shape.task

    def follow(self) -> None:
        """Read all rows, then what is new, until `close`; for a thread of its own."""
        while True:
            with suppress(FastgenError, OSError):  # the folder may be moved away and come back
                self.read() if not self.is_read else self.refresh()
            if self._closed.wait(LOOK_EVERY_S):
                return

    def read(self) -> None:
        """Read all rows. Raises FastgenError if INPUT cannot be read."""
        try:
            for line in self._source.read():
                self.rows.append(self.reading.listed(line))
                self.log.append(len(self.rows) - 1)
                if self._closed.is_set():
                    return
        except FastgenError as error:
            self.problem = str(error)
            raise
        finally:
            self.is_read = True

    def refresh(self) -> None:
        """Take in what changed since the last time. Raises FastgenError, OSError."""
        if (stamp := self._look()) != self._stamp:
            self._begin_anew(stamp)
            return
        with suppress(FastgenError):
            self.about = sources.about(self.path)
        for position in self._source.changed():
            self.rows[position] = self.reading.listed(self._source.line(position))
            self.log.append(position)

    def _begin_anew(self, stamp: tuple) -> None:
        before, self._stamp = self._source, stamp
        self._open()
        self.rows, self.log, self.is_read, self.problem = [], [], False, ""
        self.generation += 1
        before.close()
        self.read()

    def _look(self) -> tuple:
        """What differs when all must be read again: another run in the folder, another journal, another table."""
        is_live = isinstance(self._source, sources.Live)
        table = () if is_live else (_inode(self.path / RESULTS), _size(self.path / JOURNAL))
        return (sources.about(self.path).get("started"), _inode(self.path / JOURNAL), *table)

    def line(self, position: int) -> bytes:
        """A row's line of the table. Raises IndexError, OSError."""
        if not 0 <= position < len(self.rows):
            raise IndexError(position)
        return self._source.line(position)

    def since(self, number: int, most: int) -> tuple[int, list[tuple[int, Listed]]]:
        """What changed since a change: the number of the last one given here, and the rows with their positions."""
        end = min(len(self.log), number + most)
        return end, [(position, self.rows[position]) for position in dict.fromkeys(self.log[number:end])]

    @property
    def state(self) -> str:
        """running, finished, interrupted or stopped. A run that was killed has stopped, whatever run.json says."""
        said = str(self.about.get("state", ""))
        if said not in ("starting", "running"):
            return said or "stopped"
        return "running" if self._is_at_work() else "stopped"

    def _is_at_work(self) -> bool:
        """Without touching its lock, which a run that starts at this moment would find taken."""
        if _is_locked(self.path / LOCK):
            return True
        times = [path.stat().st_mtime for name in (JOURNAL, RUN) if (path := self.path / name).exists()]
        return time.time() - max(times, default=0.0) < SILENT_S

    def close(self) -> None:
        self._closed.set()
        self._source.close()


def _inode(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        about = path.stat()
        return about.st_ino, about.st_ctime_ns if path.name == RESULTS else 0
    return None


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _is_locked(path: Path) -> bool:
    """Whether a process of this machine has the lock."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(word.endswith(f":{inode}") for line in locks.splitlines() for word in line.split())
