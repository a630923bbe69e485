"""A thread that follows the journal of a run, and brings to object storage what is committed there: first the files of
a result, then its line. Lines go there in numbered segments, in the order of the journal. A file whose line is there is
removed from this machine.

So a row of a segment has all its files, and a segment is never written twice. Does not know rows.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.errors import FastgenError, StorageError
from fastgen.output import previous
from fastgen.output.artifacts import IMAGES
from fastgen.output.journal import checked
from fastgen.output.mirror import lease, sent
from fastgen.output.mirror.lease import Lease
from fastgen.output.mirror.listing import Listing
from fastgen.output.mirror.place import Place
from fastgen.output.mirror.sent import Sent
from fastgen.types import FileStamp

AT_ONCE = 16
"""Results whose files are sent at the same time."""
POLL_S = 0.2
SEGMENT_EVERY_S = 5.0
MOST_LINES = 1000
"""Of a segment. Far fewer than may wait, or the run would pause for the next segment."""
MOST_WAITING = 4096
"""Results that wait; with more, the run pauses."""
MOST_WAITING_BYTES = 4 << 30


class _Head(msgspec.Struct):
    """What has to be known of a result."""

    paths: tuple[str, ...] = ()
    files: tuple[FileStamp, ...] = ()


class _Item(msgspec.Struct):
    line: bytes
    end: int
    """Where the line ends in the journal."""
    paths: tuple[str, ...]
    size: int
    """Bytes of its files."""
    job: Future[None] | None


_decode_head = msgspec.json.Decoder(_Head).decode


class Uploads:
    """Args:
    out: the state folder, whose journal is followed.
    state: how far it has come; changed.
    keeps: whether files stay on this machine.
    added: called with the path of each file that was sent.
    """

    def __init__(self, place: Place, out: Path, state: Sent, lease: Lease, keeps: bool, added: Callable[[str], None]):
        self.error: FastgenError | None = None
        """Why it ended early."""
        self.waiting = 0
        """Results that were found in the journal and are in no segment yet."""
        self.waiting_bytes = 0
        self.lost: list[str] = []
        """Files that were gone before they could be sent."""
        self._place, self._out, self._state, self._lease = place, out, state, lease
        self._keeps, self._added = keeps, added
        self._read_to = state.offset
        self._queue: deque[_Item] = deque()
        self._ready: list[_Item] = []
        self._segment_due = time.monotonic() + SEGMENT_EVERY_S
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE, "upload")
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether the run should pause until more has been sent."""
        return self.waiting >= MOST_WAITING or self.waiting_bytes >= MOST_WAITING_BYTES

    def finish(self, timeout_s: float) -> bool:
        """Nothing more will be committed. Returns whether all is sent, or sending has failed, within the time."""
        self._ending.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End at once. What is not sent yet is sent by the next run."""
        self._place.patience.given_up.set()
        self.finish(0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self) -> None:
        try:
            if not self._keeps:
                self._remove(list(self._sent_before()))
            while True:
                ending = self._ending.is_set()
                unread = self._follow()
                self._collect()
                if self._ready and self._is_due(ending):
                    self._write_segment()
                if ending and not (unread or self._queue or self._ready):
                    self._pool.shutdown()  # once all files are removed
                    return
                self._lease.renew()
                self._pause(ending)
        except FastgenError as error:
            self.error = error
        except Exception as error:  # a fault of ours must end the run, too
            self.error = StorageError(f"{self._place.url}: {type(error).__name__}: {error}")

    def _sent_before(self) -> Iterator[str]:
        """Images that a run sent and was killed before it could remove them."""
        with (self._out / previous.JOURNAL).open("rb") as journal:
            journal.seek(self._state.offset)
            bodies = (checked(line) for line in journal)
            unsent = {path for body in bodies if body is not None for path in _decode_head(body).paths}
        there = Listing(self._place)
        for folder, _, names in os.walk(self._out / IMAGES):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self._out)
                if path not in unsent and there.has(path, os.path.getsize(self._out / path)):
                    yield path

    def _pause(self, ending: bool) -> None:
        """Until the next look."""
        if self._queue and (job := self._queue[0].job) is not None:
            with suppress(Exception):  # `_collect` raises it
                job.result(POLL_S)
        elif not ending:
            self._ending.wait(POLL_S)

    def _follow(self) -> bool:
        """Take new lines of the journal, as many as may wait. Returns whether some are left."""
        with (self._out / previous.JOURNAL).open("rb") as file:
            file.seek(self._read_to)
            while not self.is_full:
                line = file.readline()
                if not line.endswith(b"\n"):  # the end, or a line that is being written
                    break
                self._read_to += len(line)
                if (body := checked(line)) is not None:
                    self._take(line, _decode_head(body))
            return self._read_to < os.fstat(file.fileno()).st_size

    def _take(self, line: bytes, head: _Head) -> None:
        size = sum(size for size, _ in head.files)
        job = self._pool.submit(self._send, head) if head.paths else None
        self._queue.append(_Item(line, self._read_to, head.paths, size, job))
        self.waiting += 1
        self.waiting_bytes += size

    def _send(self, head: _Head) -> None:
        """Bring the files of a result there."""
        for path in head.paths:
            try:
                self._place.put_file(path, self._out / path)
            except FileNotFoundError:
                self.lost.append(path)
            else:
                self._added(path)

    def _remove(self, paths: list[str]) -> None:
        """Remove files from this machine."""
        for path in paths:
            with suppress(OSError):
                os.unlink(self._out / path)

    def _collect(self) -> None:
        """Results from the front of the queue whose files are there are ready for a segment. Raises StorageError."""
        while self._queue and len(self._ready) < MOST_LINES:
            job = self._queue[0].job
            if job is not None:
                if not job.done():
                    return
                job.result()
            self._ready.append(self._queue.popleft())

    def _is_due(self, ending: bool) -> bool:
        """Whether a segment is to be written now."""
        if len(self._ready) >= MOST_LINES or time.monotonic() >= self._segment_due:
            return True
        return ending and not self._queue

    def _write_segment(self) -> None:
        """Raises StorageError, DiskError."""
        state, number = self._state, self._state.segments + 1
        try:
            self._place.put_new(sent.segment(number), b"".join(item.line for item in self._ready))
        except FileExistsError:
            raise lease.taken(self._place, "another machine") from None
        state.segments, state.offset = number, self._ready[-1].end
        sent.write(self._out, state)
        if not self._keeps:
            self._pool.submit(self._remove, [path for item in self._ready for path in item.paths])
        self.waiting -= len(self._ready)
        self.waiting_bytes -= sum(item.size for item in self._ready)
        self._ready = []
        self._segment_due = time.monotonic() + SEGMENT_EVERY_S
