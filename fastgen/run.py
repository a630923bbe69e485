"""The loop: keep the lanes busy, settle what comes back, commit it once. Knows backends only through lanes.

One thread. The loop alternates between reading rows into the window, handing batches to lanes with a free slot, and
settling one message from the crew.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from fastgen import policy
from fastgen.backends import streams
from fastgen.crew import Crew, Emit, Seat
from fastgen.data.journal import Journal
from fastgen.errors import DiskError, FastgenError, SettingsError
from fastgen.folder import JOURNAL, RunFolder
from fastgen.intake import Kept, Known, triage
from fastgen.lanes import LaneDied
from fastgen.plan import Window, halves
from fastgen.settings import Settings
from fastgen.tables import write_tables
from fastgen.types import Batch, Done, Failed, Request, Result

READ_AHEAD = 256
"""Rows read before the loop looks at its messages again."""


class Run:
    """One run of a task over its rows. Iterate `results()`; then `counts` and `state` say how it went.

    Args:
        settings: from `resolve`, with `input` set.
        emit: called as emit(event, **facts) for what happens besides results.
        rows: rows as dicts, where `settings` names no input file; kept in the run folder, so that they can be read twice.

    Raises:
        RunFolderError: the run folder cannot be used.
        SettingsError: no rows, or both a file and rows.
    """

    def __init__(
        self,
        settings: Settings,
        emit: Emit = lambda event, **facts: None,
        rows: Iterable[dict] | None = None,
    ):
        if not settings.input and rows is None:
            raise SettingsError("no rows: give an input file to resolve(), or rows")
        if settings.input and rows is not None:
            raise SettingsError("both an input file and rows: give one of them")
        self.folder = RunFolder(settings)
        if rows is not None:
            settings = replace(settings, input=self.folder.spool(rows))
        self.settings = settings
        self.emit = emit
        self.state = "running"
        self.counts: Counter[str] = Counter()
        """rows; done, failed, kept (in all); new (made in this run), images (made in this run)."""
        self.stages: Counter[str] = Counter()
        """Seconds by stage, summed over batches and lanes."""
        self.busy_since = 0.0
        self.busy_until = 0.0
        """From the first engine being ready to the last result, by time.monotonic()."""
        self._journal = Journal(self.folder.path / JOURNAL)
        self._window = Window(settings.batch_for, sum(map(streams, settings.devices)))
        self._inbox: SimpleQueue = SimpleQueue()
        self._crew = Crew(settings, self._inbox, emit)
        self._rows_left = True
        self._queue: deque[Batch] = deque()
        """Parts of batches that failed together."""
        self._suspects: deque[Batch] = deque()
        """Batches that were on a lane when it died: each runs with nothing beside it."""
        self._later: list[tuple[float, int, Request]] = []
        """Heap of (due, tie-breaker, request): retries."""
        self._attempts: dict[str, int] = {}

    # The run

    def results(self) -> Iterator[Result]:
        """Work through all rows; yields each result of this run once it is committed.

        Ends early, with `state` "interrupted", after `interrupt()`.

        Raises:
            EngineError: no engine can start or go on. DiskError: the disk is full. What is done is safe in both cases.
        """
        try:
            self.folder.write_run(state="running")
            if self.folder.warning:
                self.emit("warning", message=self.folder.warning)
            if self._journal.damaged:
                self.emit(
                    "warning", message=f"{self._journal.damaged} damaged journal lines dropped; their rows run again"
                )
            feed = triage(self.settings, self._journal)
            while True:
                yield from self._read_ahead(feed)
                self._dispatch()
                if self._interrupted and not self._crew.flying:
                    break
                if not self._rows_left and not self._pending():
                    break
                yield from self._settle_next()
            del feed  # and with it what it remembers of the rows
            self._crew.stop()
            self._journal.sync()
            if self._interrupted:
                self.state = "interrupted"
            else:
                write_tables(self.settings, self._journal)
                self.state = "finished"
            self.folder.write_run(state=self.state, **self.summary())
        except FastgenError as error:
            self.state = "stopped"
            with suppress(DiskError, OSError):
                self.folder.write_run(state=self.state, error=str(error), **self.summary())
            raise
        finally:
            self._crew.stop(now=True)
            self._journal.close()
            self.folder.close()

    def interrupt(self) -> None:
        """Take no more batches, finish those under way, keep their results. Safe to call from a signal handler."""
        self.state = "interrupting"
        self._inbox.put(None)

    def abort(self) -> None:
        """End the engine processes at once. What the journal has is safe."""
        self._crew.stop(now=True)

    @property
    def _interrupted(self) -> bool:
        return self.state == "interrupting"

    def summary(self) -> dict:
        """Counts, rates and seconds by stage of this run, for run.json and the last event."""
        busy = max(0.0, self.busy_until - self.busy_since)
        engines = sum(facts.get("streams", 1) for facts in self._crew.facts.values())
        model = sum(self.stages[stage] for stage in ("denoise", "decode", "reference")) / max(1, engines)
        return {
            "counts": dict(self.counts),
            "images_per_second": round(self.counts["images"] / busy, 3) if busy else None,
            "busy_seconds": round(busy, 3),
            "outside_model": round(1 - model / busy, 4) if busy and model else None,
            "stages_seconds": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "engines": self._crew.facts,
        }

    # Rows in

    def _read_ahead(self, feed: Iterator[Request | Failed | Kept | Known]) -> Iterator[Result]:
        """Fill the window from the rows, in steps while lanes have something to say."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._window.add(heapq.heappop(self._later)[2])
        failed: list[Result] = []
        read = 0
        while self._rows_left and not self._window.full and not self._interrupted:
            if read >= READ_AHEAD and not self._inbox.empty():
                break
            read += 1
            item = next(feed, None)
            if item is None:
                self._rows_left = False
                break
            self.counts["rows"] += 1
            match item:
                case Request():
                    self._window.add(item)
                    if not self._crew.seats:
                        self._crew.start()
                case Failed():
                    failed.append(item)
                case Kept():
                    self.counts["kept"] += 1
                case Known(Done()):
                    self.counts["done"] += 1
                case Known(result):
                    self.counts["failed"] += 1
                    self._say_failed(result)
        if not self._rows_left and not self.counts["rows"]:
            raise SettingsError(f"INPUT {self.settings.input}: holds no rows; it needs one JSON object a row")
        yield from self._commit(failed)

    # Batches out

    def _dispatch(self) -> None:
        """Give every lane with a free slot a batch, the least busy first, while there are any."""
        given = not self._interrupted
        while given:
            given = False
            for seat in self._crew.free():
                batch = self._next_batch(seat)
                if batch is not None:
                    self._crew.submit(seat, batch)
                    given = True

    def _next_batch(self, seat: Seat) -> Batch | None:
        if self._suspects:
            if seat.flying:
                return None
            seat.exclusive = True
            return self._suspects.popleft()
        return self._queue.popleft() if self._queue else self._window.draw(ended=not self._rows_left)

    def _pending(self) -> bool:
        return bool(self._crew.flying or len(self._window) or self._queue or self._suspects or self._later)

    # Results back

    def _settle_next(self) -> Iterator[Result]:
        """Wait for the next message, or for the next retry to be due, and settle it."""
        timeout = None
        if self._later:
            timeout = max(0.0, self._later[0][0] - time.monotonic())
        try:
            message = self._inbox.get(timeout=timeout)
        except Empty:
            return
        if message is None:  # interrupt(), which may be in a signal handler and so says nothing itself
            self.emit("warning", message="finishing the batches under way; once more to stop at once")
            return
        seat, number, future = message
        if number == 0:
            self._crew.settle_start(seat, future)
            if seat.ready:
                self.busy_since = self.busy_since or time.monotonic()
        elif number in seat.flying:
            yield from self._settle_batch(seat, number, future)

    def _settle_batch(self, seat: Seat, number: int, future: Future) -> Iterator[Result]:
        try:
            results = future.result()
        except LaneDied as death:
            lost = self._crew.settle_death(seat, death)
            self._queue.extend(lost.innocent)
            self._suspects.extend(lost.suspects)
            yield from self._commit(lost.poisoned)
            return
        batch = self._crew.landed(seat, number)
        self.busy_until = time.monotonic()
        final: list[Result] = []
        split: list[Request] = []
        for request, result in zip(batch.requests, results, strict=True):
            attempts = self._attempts.get(request.id, 0) + 1
            result = replace(result, content=request.content, attempts=attempts)
            if isinstance(result, Failed) and result.kind == "input":  # found by the backend, which knows no rows
                field = f", field {result.field}" if result.field else ""
                result = replace(result, message=f"row {request.row}{field}: {result.message}")
            if isinstance(result, Done):
                self._attempts.pop(request.id, None)
                final.append(result)
                continue
            match policy.decide(result, alone=len(batch.requests) == 1):
                case "retry":
                    self._attempts[request.id] = attempts
                    due = time.monotonic() + 0.25 * 2**attempts
                    heapq.heappush(self._later, (due, id(request), request))
                case "split":
                    split.append(request)
                case "stop":
                    raise DiskError(result.message)
                case "give up":
                    self._attempts.pop(request.id, None)
                    final.append(result)
        if split:
            self._queue.extend(halves(Batch(batch.bucket, tuple(split))))
        yield from self._commit(final)

    def _commit(self, results: list[Result]) -> Iterator[Result]:
        """Into the journal first; only then does anybody hear of it."""
        if not results:
            return
        self._journal.append(results)
        for result in results:
            if isinstance(result, Done):
                self._crew.row_done()
                self.counts["done"] += 1
                self.counts["new"] += 1
                self.counts["images"] += len(result.paths)
                self.stages.update(result.stages)
            else:
                self.counts["failed"] += 1
                self._say_failed(result)
            yield result

    def _say_failed(self, failed: Failed) -> None:
        self.emit("row_failed", id=failed.id, kind=failed.kind, field=failed.field, message=failed.message)
