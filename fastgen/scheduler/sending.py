"""Results on their way to object storage, as far as the loop of a run is concerned: whether it should pause, what to
tell the user, and how long to wait at the end. Does nothing if the run folder is on a disk."""

from __future__ import annotations

import time
from contextlib import suppress

from fastgen.errors import FastgenError
from fastgen.output.mirror.mirror import LAST_S, Mirror, tables_to_send
from fastgen.scheduler.progress import Progress

LOOK_EVERY_S = 0.5


class Sending:
    """Args: mirror: None if results stay on a disk."""

    def __init__(self, mirror: Mirror | None, progress: Progress):
        self._mirror = mirror
        self._progress = progress

    def begin(self, keeps: bool) -> None:
        """`keeps`: whether images stay on this machine, too. Raises StorageError."""
        if self._mirror is not None:
            self._mirror.begin(keeps)

    @property
    def is_behind(self) -> bool:
        """Whether no more should be made until more has been sent."""
        return self._mirror is not None and self._mirror.is_full

    def look(self) -> None:
        """Tell the user what is new, and end the run if nothing more can be sent."""
        if self._mirror is None:
            return
        for message in self._mirror.news():
            self._progress.emit("warning", message=message)
        if self._mirror.error is not None:
            self._progress.end(self._mirror.error)

    def finish(self) -> None:
        """Wait until all results are sent; of a run that ends early, for `LAST_S` at most."""
        if self._mirror is None:
            return
        give_up_at = 0.0
        while not self._mirror.finish(LOOK_EVERY_S):
            self.look()
            if self._progress.winding_down:
                give_up_at = give_up_at or time.monotonic() + LAST_S
                if time.monotonic() >= give_up_at:
                    break
        self.look()
        for message in self._mirror.left():
            self._progress.emit("warning", message=message)

    def publish(self) -> None:
        """Send the tables of a finished run. Raises StorageError, DiskError."""
        if self._mirror is not None:
            self._mirror.publish(tables_to_send(self._mirror.out))

    def publish_if_possible(self) -> None:
        """Send the tables of a run that ended early, if the storage answers at once."""
        if self._mirror is not None and not (self._mirror.error or self._mirror.is_away):
            self._mirror.hurry()
            with suppress(FastgenError, OSError):
                self.publish()
