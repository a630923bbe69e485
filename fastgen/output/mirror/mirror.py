"""What a run has to do with object storage, as far as the run knows: begin, look at it now and then, finish.

The run itself writes to its folder on this machine as ever, and never waits for the storage, unless too much is waiting
to be sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fastgen.config.stamps import digest
from fastgen.errors import FastgenError
from fastgen.input import storage
from fastgen.input.storage import Patience
from fastgen.output import previous
from fastgen.output.mirror import sent
from fastgen.output.mirror.join import join
from fastgen.output.mirror.lease import Lease
from fastgen.output.mirror.listing import Listing
from fastgen.output.mirror.place import Place
from fastgen.output.mirror.uploads import Uploads

LAST_S = 5.0
"""Of a run that ends early: so long it goes on sending."""


class Mirror:
    """Takes the lease, and brings the state folder up to date.

    Args:
        url: where the results go.
        out: the state folder, which is locked.
        fresh: whether the run starts over.
        remembers: whether files of one run may get equal names (--name).

    Raises:
        RunFolderError: another machine is at work there, or what is there is of no use. StorageError, OSError.
    """

    def __init__(self, url: str, out: Path, fresh: bool, remembers: bool):
        self.url, self.out = url, out
        self._uploads: Uploads | None = None
        self._said = self._said_full = False
        self._patience = Patience(storage.FIRST_DEADLINE_S)
        self._place = Place(url, self._patience)
        self._state = sent.read(out, url)
        self._lease = Lease(self._place, self._state.writer)
        self._lease.take()
        try:
            join(self._place, out, self._state, fresh)
            sent.write(out, self._state)
        except BaseException:
            self._release()
            raise
        self.listing = Listing(self._place, remembers)
        """Files of earlier results."""

    def begin(self, keeps: bool) -> None:
        """Begin to send what is committed. `keeps`: whether images stay in the state folder. Raises StorageError."""
        self._place.put_file(previous.RUN, self.out / previous.RUN)
        self._patience.deadline_s = storage.DEADLINE_S
        self._uploads = Uploads(self._place, self.out, self._state, self._lease, keeps, self.listing.add)

    @property
    def is_full(self) -> bool:
        """Whether so much is waiting to be sent that the run should pause."""
        return self._uploads is not None and self._uploads.is_full

    @property
    def is_away(self) -> bool:
        """Whether the storage does not answer now."""
        return bool(self._patience.waiting)

    @property
    def error(self) -> FastgenError | None:
        """Why nothing more can be sent."""
        return self._uploads.error if self._uploads else None

    def news(self) -> Iterator[str]:
        """What to tell the user about the storage that was not told yet."""
        waiting = self._patience.waiting
        if waiting and not self._said:
            yield f"{self.url} does not answer: {waiting}. The run goes on, and results wait in {self.out}"
        elif self._said and not waiting:
            yield f"{self.url} answers again"
        self._said = bool(waiting)
        if self.is_full and not self._said_full:
            self._said_full = True
            yield f"results are made faster than they can be sent to {self.url}; the run pauses whenever too many wait"

    def finish(self, timeout_s: float) -> bool:
        """Nothing more will be committed: returns whether all is sent, or sending has failed, within the time."""
        return self._uploads is None or self._uploads.finish(timeout_s)

    def left(self) -> Iterator[str]:
        """What to tell the user of a run that ends: what could not be sent."""
        uploads = self._uploads
        if uploads and uploads.lost:
            some = uploads.lost[0]
            yield f"{len(uploads.lost)} files were gone before they could be sent, such as {some}; run again"
        if uploads and uploads.waiting:
            yield (
                f"{uploads.waiting} results are not in {self.url} yet; the same command on this machine sends them "
                f"from {self.out}"
            )

    def publish(self, tables: list[str]) -> None:
        """Send tables, and run.json last. Those that were sent and have not changed since are left out.

        Args:
            tables: their names in the state folder.

        Raises:
            StorageError.
        """
        stamp = digest(repr([(name, _stamp(self.out / name)) for name in tables]).encode())
        if self._state.published != stamp:
            for name in tables:
                if (self.out / name).is_file():
                    self._place.put_file(name, self.out / name)
            self._state.published = stamp
            sent.write(self.out, self._state)
        self._place.put_file(previous.RUN, self.out / previous.RUN)

    def close(self) -> None:
        """Stop sending, and let other machines in."""
        is_away = self.is_away
        if self._uploads is not None:
            self._uploads.stop()
        if not (is_away or self.error):  # else it does not answer, or is no longer ours
            self._release()

    def hurry(self) -> None:
        """From now on wait for a server that is away only for some seconds: the run ends."""
        self._patience.deadline_s = LAST_S

    def _release(self) -> None:
        patience = self._place.patience = Patience(LAST_S)
        with suppress(FastgenError, OSError):
            self._lease.release()
        patience.given_up.set()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def tables_to_send(out: Path) -> list[str]:
    """The names of all tables in a state folder."""
    names = [path.name for path in previous.tables(out)]
    return names + [f"results.{kind}" for kind in ("parquet", "csv") if (out / f"results.{kind}").is_file()]
