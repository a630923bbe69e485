"""One run: its folder, its loop, its end. The loop keeps the workers busy and commits each result once.

One thread. The loop alternates between reading rows into the windows (rows_in), sending batches to workers
(batches_out), and settling one message of a worker (results_back). Knows backends only through workers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import cast

from msgspec.structs import replace

from fastgen.backends.registry import slots
from fastgen.config import torch_build
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, FastgenError, SettingsError
from fastgen.input.embedded_pictures import Store
from fastgen.input.picked import Picked
from fastgen.input.readers.rows import RowReader, estimate, is_on_hub
from fastgen.input.requests import Prefilled
from fastgen.input.unread_fields import UnreadFields, more_read
from fastgen.output import shards
from fastgen.output.journal import SYNC_EVERY_S, Journal
from fastgen.output.reserve import PICTURE_BYTES, TEXT_BYTES, Reserve
from fastgen.output.row_spool import RowSpool
from fastgen.output.run_dir import JOURNAL, RunFolder
from fastgen.output.writers import standing, table_formats, webdataset
from fastgen.output.writers.records import Records
from fastgen.output.writers.tables import Shape, write_partial_tables, write_tables
from fastgen.resolver.fitting import settle_compile
from fastgen.scheduler import at_service, share
from fastgen.scheduler.all_rows import AllRows
from fastgen.scheduler.at_service import AtService
from fastgen.scheduler.batches_out import BatchesOut
from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.overview import overview
from fastgen.scheduler.progress import Emit, Progress
from fastgen.scheduler.results_back import ResultsBack
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Route
from fastgen.scheduler.rows_in import RowsIn
from fastgen.scheduler.sending import Sending
from fastgen.scheduler.share import Share
from fastgen.scheduler.status import facts
from fastgen.scheduler.triage import Skipped, triage
from fastgen.scheduler.watchdog import TICK_S
from fastgen.scheduler.wind_down import GRACE_S, WindDown
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.types import Failed, Request, Result
from fastgen.workers import registry
from fastgen.workers.idle_pool import IdlePool

__all__ = ["GRACE_S", "Emit", "Run"]

WEBDATASET = "webdataset"
"""In the run folder: the shards of --webdataset."""
OTHER_MERGE_S = 120.0
"""Two parts that finish at the same moment both merge, one after the other."""
MOST_MESSAGES = 64
"""Answers of workers that are settled together, if so many wait: one write to the journal, one look for free
workers."""
MOST_ROWS_AT_ONCE = 200_000
"""Of a run that ends early: so many rows are read and written in some seconds."""


class Run:
    """One run of a task over its rows. Iterate over `results()`; then `counts` and `state` say how it went.

    Args:
        settings: from `resolve`, with `input` set.
        emit: called as emit(event, **facts) for events other than results.
        rows: rows as dicts, if `settings` has no input file; written to the run folder, so that they can be read
            twice.
        idle_pool: engines of earlier runs come from here, and those of this run go back here; None: they end with the
            run.
        place: where workers run, a name in workers.registry.PLACES; "": where the settings say.
        tells_all: whether `results` also yields the rows that need nothing done, and each result with its row.

    Raises:
        RunFolderError: the run folder cannot be used.
        SettingsError: no rows, or both a file and rows; or PyTorch cannot use the GPUs.
    """

    def __init__(
        self,
        settings: Settings,
        emit: Emit = lambda event, **facts: None,
        rows: Iterable[dict] | None = None,
        idle_pool: IdlePool | None = None,
        place: str = "",
        tells_all: bool = False,
    ):
        _check(settings, rows)
        durable = any(link.durable for link in settings.route)
        at_service.refuse(Path(settings.run.out), durable, settings.run.fresh)
        self.folder = RunFolder(settings, partial(share.refuse_others, settings))
        if rows is not None:
            settings = replace(settings, run=replace(settings.run, input=self.folder.spool(rows)))
            settings = _compile_if_it_pays(settings)
        self.settings = settings
        self.emit = emit
        self._owner = os.getpid()
        self._inbox: SimpleQueue = SimpleQueue()
        self._journal = Journal(self.folder.path / JOURNAL)
        self._ledger = Ledger(
            self.folder.path,
            settings.run.max_cost,
            max(self._journal.cost, self.folder.cost_before),
            self._journal.dearest,
            all(registry.records_sent(place or link.placement.place) for link in settings.route),
        )
        self._progress = Progress(settings, self._journal, emit, len(self._journal.index))
        self._route = Route(settings)
        self._retries = Retries()
        self._pool = WorkerPool(self._inbox, emit, idle_pool, place)
        self._reader = RowReader(settings.run.input, settings.run.limit, Store(settings.run.out), self._say)
        self._spool = RowSpool(self.folder.path, finds=tells_all)
        self._all = AllRows(settings, self._spool) if tells_all else None
        self._share = Share(settings, self._journal) if settings.run.shard else None
        self._picked = Picked.of(settings)
        self._rows = RowsIn(self._triage(), self._route, self._retries, self._progress, tells_all)
        self._reserve = _reserve(settings)
        self._out = BatchesOut(self._route, self._pool, self._retries, self._ledger, self._reserve, self._progress)
        self._back = ResultsBack(
            self._rows,
            self._route,
            self._pool,
            self._retries,
            self._ledger,
            self._reserve,
            self._progress,
            self.folder.check_served,
        )
        self._sending = Sending(self.folder.mirror, self._progress)
        self._tells_all = tells_all
        self._at_service = AtService(self.folder.path, self._journal, emit) if durable else None
        self._wind_down = WindDown(self._pool, self._progress)
        self._ticked = self._told_progress = time.monotonic()

    def _say(self, message: str) -> None:
        self.emit("warning", message=message)

    def _triage(self) -> Iterator[Request | Failed | Prefilled | Skipped | None]:
        settings = self.settings
        unread = UnreadFields(settings.task, self._say, settings.rows.strict, more_read(settings))
        self.folder.notes = unread.notes
        return triage(
            *(settings, self._reader, self._journal, self._spool, self._say, unread),
            layout=self.folder.layout,
            stored=self.folder.mirror.listing if self.folder.mirror else None,
            fetches=settings.task != "t2i",
            share=self._share,
            picked=self._picked,
            brief=self._all is None,
        )

    @property
    def state(self) -> str:
        """running, interrupting, then interrupted, finished or stopped."""
        return self._progress.state

    @property
    def counts(self) -> Counter[str]:
        """rows; done, failed, kept (in all); new, images, captions (made in this run)."""
        return self._progress.counts

    @property
    def expected_rows(self) -> int:
        """Roughly how many rows INPUT has; 0 if not yet known."""
        most = len(self._picked) if self._picked else self._reader.expected
        return min(most, self._reader.expected) // (self.settings.run.shard or (1, 1))[1]

    @property
    def asks_services(self) -> bool:
        """Whether answers of services are awaited that somebody may be paying for."""
        return os.getpid() == self._owner and self._pool.asked_of_others

    def summary(self) -> dict:
        """Counts, rates and seconds by stage of this run, for run.json and the last event."""
        now = self._pool.clock()
        workers = {name: account.summary(now) for name, account in self._pool.accounts.items()}
        summary = self._progress.summary(self._pool.facts, self._ledger.spent, self._ledger.unknown)
        return summary | ({"workers": workers} if workers else {})

    def overview(self) -> dict:
        """What the run is doing now, for whoever watches it; see `scheduler/overview`. Another thread may call it."""
        return overview(self._progress, self._route, self._retries, self._pool, self._ledger, self.expected_rows)

    def progress(self, now: float | None = None) -> dict:
        """The facts of the event "progress". `now`: by time.monotonic()."""
        ledger, expected, all_read = self._ledger, self.expected_rows, not self._rows.left
        return facts(self._progress, self._pool, ledger, expected, all_read, now or time.monotonic())

    def results(self) -> Generator[Result, None, None]:
        """Work through all rows; yields each result of this run once it is committed.

        Ends early, with `state` "interrupted", after `interrupt()`: at most `GRACE_S` later, plus the time that its
        engines need to stop.

        Raises:
            EngineError: no engine can start or continue. DiskError: the disk is full; batches in flight are waited for.
                In both cases what is done is safe.
        """
        progress = self._progress
        try:
            self.folder.write_run(state="running")
            self._sending.begin(keeps=self._tells_all)
            self._warn()
            if self._at_service is not None:
                self._at_service.begin()
            yield from self._told(self._loop())
            self._say_what_is_lost()
            if self._reserve is not None:
                self._reserve.release()
            self._rows.close()
            self._pool.release()
            self._sync()
            self._sending.finish()
            if self._at_service is not None:
                self._at_service.end()
            if progress.ending is not None:
                raise progress.ending
            if progress.state == "interrupting":
                progress.state = "interrupted"
                tables = {}
                self._write_partial_tables()
            else:
                tables = self._write_tables()
                progress.state = "finished"
            self.folder.write_run(state=progress.state, **self.summary(), **tables)
            if progress.state == "finished":
                self._sending.publish()
            else:
                self._sending.publish_if_possible()
            self._merge()
        except FastgenError as error:
            progress.state = "stopped"
            if not isinstance(error, DiskError):
                self._write_partial_tables()
            with suppress(DiskError, OSError):
                self.folder.write_run(state=progress.state, error=str(error), **self.summary())
            self._sending.publish_if_possible()
            raise
        finally:
            if os.getpid() == self._owner:  # in a forked process these belong to the parent
                self._pool.stop(now=True)
                self._journal.close()
                if self._share is not None:
                    self._share.close()
                self._spool.close()
                self._ledger.close()
                self.folder.close()

    def _told(self, items: Iterator[Result | Skipped | Prefilled]) -> Iterator[Result]:
        """The results as the caller gets them."""
        for item in items:
            yield self._all.told(item) if self._all else cast(Result, item)

    def interrupt(self) -> None:
        """Send no more batches, wait up to `GRACE_S` for those in flight, and keep their results. Safe to call from a
        signal handler."""
        self._progress.state = "interrupting"
        self._inbox.put(None)

    def abort(self) -> None:
        """End the engine processes at once. What is in the journal is safe."""
        self._pool.stop(now=True)

    def _warn(self) -> None:
        """Notes for the user about what was found in the folder."""
        damaged = self._journal.damaged
        for message in (
            self.folder.warning,
            f"{damaged} damaged journal line{'s' * (damaged > 1)} dropped; the rows run again" if damaged else "",
            *self._ledger.warnings,
        ):
            if message:
                self.emit("warning", message=message)

    def _say_what_is_lost(self) -> None:
        rows, usd, unwritten = self._back.given_up, self._back.perhaps_paid_usd, self._progress.uncommitted
        if unwritten:
            self.emit("warning", message=f"{unwritten} results could not be written; their rows run again")
        if rows:
            paid = f"; their requests may have been billed and count for {usd:.4f} USD" if usd else ""
            self.emit("warning", message=f"{rows} rows were still in progress and are left for the next run{paid}")

    def _write_partial_tables(self) -> None:
        """The tables of a run that ends early, so that what is done can be used. `fastgen table` makes those that would
        take too long here: whoever ends a run may not wait."""
        settings = self.settings
        if self._share is not None:  # `fastgen merge` writes that of all parts
            return
        if not self._journal.index or is_on_hub(settings.run.input):
            return
        if self._reader.expected > MOST_ROWS_AT_ONCE or not self._reader.expected:
            self.emit("warning", message=f"fastgen table {self.folder.path} writes the table of what is done")
            return
        with suppress(FastgenError, OSError):
            only = self._picked.ids if self._picked else None
            write_partial_tables(Shape.of(settings), self._reader.again(), self._journal, only)
            table_formats.write(self.folder.path, settings.run.table)

    def _write_tables(self) -> dict:
        """The tables, unless they are there and would be the same. Returns what run.json keeps about them. Raises
        DiskError."""
        shape, format = Shape.of(self.settings), self.settings.run.table if self._share is None else table_formats.JSONL
        made_from = standing.source(shape, self._spool, self._journal, format)
        if not standing.stand(shape, made_from, format, self.folder.tables_before):
            write_tables(self.settings, self._spool, self._journal)
            table_formats.write(self.folder.path, format)
        self._write_webdataset()
        return {"tables": standing.stamp(shape, made_from, format)}

    def _write_webdataset(self) -> None:
        if self.settings.run.webdataset and self._share is None:
            webdataset.write(Records(self.folder.path), self.folder.path / WEBDATASET)

    def _merge(self) -> None:
        """The last part to finish makes the table of all parts."""
        if self.settings.run.shard is None or self._progress.state != "finished":
            return
        run = self.folder.path.parent.parent
        if shards.all_finished(run, self.settings.run.shard[1]):
            try:
                shards.merge(run, OTHER_MERGE_S)
                table_formats.write(run, self.settings.run.table)
                if self.settings.run.webdataset:
                    webdataset.write(Records(run), run / WEBDATASET)
            except FastgenError as error:
                self._say(f"the table of all parts could not be written: {error}; fastgen merge {run} tries again")

    def _is_wanted(self) -> bool:
        """Whether there is something to do besides reading rows, which may take long if most of them are done."""
        self._tell_progress(time.monotonic())
        return not self._inbox.empty()

    def _tell_progress(self, now: float) -> None:
        if now - self._told_progress < TICK_S:
            return
        self._told_progress = now
        self.emit("progress", **self.progress(now))

    def _sync(self, at_most_every_s: float = 0.0) -> None:
        try:
            self._journal.sync(at_most_every_s)
            self._ledger.sync(at_most_every_s)
        except DiskError as error:
            self._progress.end(error)

    # The loop

    def _loop(self) -> Iterator[Result | Skipped | Prefilled]:
        progress = self._progress
        while True:
            yield from self._rows.read(time.monotonic(), wanted_elsewhere=self._is_wanted)
            if not (progress.winding_down or self._sending.is_behind):
                self._out.give(ended=not self._rows.left)
            if self._wind_down.is_over(time.monotonic()) if progress.winding_down else self._nothing_left:
                break
            yield from self._settle_next()
        if not progress.winding_down:
            yield from self._back.finish()
        yield from progress.commit([])  # what could not be written to a full disk before

    @property
    def _nothing_left(self) -> bool:
        return not (self._rows.left or self._pool.in_flight or len(self._retries) or len(self._route))

    def _settle_next(self) -> Iterator[Result]:
        """Wait for the next message, the next retry, or the next check of the workers."""
        now, due = time.monotonic(), self._retries.next_due()
        timeout = TICK_S if due is None or self._progress.winding_down else min(TICK_S, max(0.0, due - now))
        messages = []
        with suppress(Empty):
            messages.append(self._inbox.get(timeout=timeout))
            while len(messages) < MOST_MESSAGES:
                messages.append(self._inbox.get_nowait())
        yield from self._settle(messages)
        if ticked := (now := time.monotonic()) - self._ticked >= TICK_S:
            self._ticked = now
            self._pool.watch(now)
            self._tell_progress(now)
            self._sync(SYNC_EVERY_S)
            self._sending.look()
            if self._at_service is not None:
                self._at_service.look(now)
        reserve = self._reserve
        if reserve is not None and (ticked or reserve.with_files) and not reserve.intact:
            message = f"cannot write to {self.folder.path}: No space left on device; free some space and run again"
            self._progress.end(DiskError(message))

    def _settle(self, messages: list) -> Iterator[Result]:
        """Handle messages of the worker pool, and write their results together. A message is None after
        `interrupt()`."""
        self._progress.hold()
        try:
            for message in filter(None, messages):
                for _ in self._back.settle(*message):  # gives nothing now
                    pass
        except FastgenError:
            for _ in self._progress.write_held():
                pass
            raise
        yield from self._progress.write_held()


def _check(settings: Settings, rows: Iterable[dict] | None) -> None:
    """Raise SettingsError if there is nothing to run, or nothing to run it with."""
    if not isinstance(settings, Settings):
        raise SettingsError(f"settings: must be what resolve() returns, not {type(settings).__name__}")
    if not settings.run.input and rows is None:
        raise SettingsError("no rows: give an input file to resolve(), or rows")
    if settings.run.input and rows is not None:
        raise SettingsError("both an input file and rows: give one of them")
    if reason := torch_build.refuse_run(settings):
        raise SettingsError(reason)
    share.refuse(settings)


def _reserve(settings: Settings) -> Reserve | None:
    """Disk space for the answers of services; None if the run uses none."""
    services = [link for link in settings.route if link.backend.is_remote and not link.durable]
    if not services:
        return None
    at_once = sum(slots(link, device) for link in services for device in link.placement.devices)
    with_files = settings.task != "caption"
    each = PICTURE_BYTES * settings.image.n if with_files else TEXT_BYTES
    return Reserve(Path(settings.run.out), at_once, each, with_files)


def _compile_if_it_pays(settings: Settings) -> Settings:
    """Rows from Python can only be counted now, so `resolve` left this open."""
    rows = estimate(settings.run.input, settings.run.limit)
    chosen, note = settle_compile(settings.optimizations, rows, settings.image, settings.model, settings.placement)
    notes = (*settings.run.notes, note) if note else settings.run.notes
    return replace(settings, optimizations=chosen, run=replace(settings.run, notes=notes))
