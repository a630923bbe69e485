"""The loop: keep the workers busy, settle what comes back, commit it once. Knows backends only through workers.

One thread. The loop alternates between reading rows into the window, handing batches to workers with a free slot, and
settling one message from the worker pool.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from fastgen import providers
from fastgen.config.settings import Settings
from fastgen.errors import BudgetError, DiskError, EngineError, FastgenError, ModelError, SettingsError
from fastgen.input.readers.rows import RowReader
from fastgen.input.requests import Prefilled
from fastgen.input.unread_fields import UnreadFields
from fastgen.output.journal import Journal
from fastgen.output.row_spool import RowSpool
from fastgen.output.run_dir import JOURNAL, RunFolder
from fastgen.output.writers.tables import write_tables
from fastgen.scheduler import failure_policy
from fastgen.scheduler.batching import halves
from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Group, Route
from fastgen.scheduler.triage import Skipped, triage
from fastgen.scheduler.worker_pool import Emit, WorkerPool, WorkerState
from fastgen.types import Batch, Done, Failed, Request, Result
from fastgen.workers.base import WorkerDied
from fastgen.workers.idle_pool import IdlePool

READ_AHEAD = 256
"""Rows read before the loop looks at its messages again."""


class Run:
    """One run of a task over its rows. Iterate `results()`; then `counts` and `state` say how it went.

    Args:
        settings: from `resolve`, with `input` set.
        emit: called as emit(event, **facts) for what happens besides results.
        rows: rows as dicts, where `settings` names no input file; kept in the run folder, so that they can be read
            twice.
        idle pool: where engines of earlier runs are found, and those of this one are left; None: they end with it.

    Raises:
        RunFolderError: the run folder cannot be used.
        SettingsError: no rows, or both a file and rows.
    """

    def __init__(
        self,
        settings: Settings,
        emit: Emit = lambda event, **facts: None,
        rows: Iterable[dict] | None = None,
        idle_pool: IdlePool | None = None,
    ):
        if not settings.run.input and rows is None:
            raise SettingsError("no rows: give an input file to resolve(), or rows")
        if settings.run.input and rows is not None:
            raise SettingsError("both an input file and rows: give one of them")
        self.folder = RunFolder(settings, rows)
        settings = replace(settings, run=replace(settings.run, input=self.folder.input))
        self.settings = settings
        self.emit = emit
        self.state = "running"
        self.counts: Counter[str] = Counter()
        """rows; done, failed, kept (in all); new, images, captions (made in this run)."""
        self.served_by: Counter[str] = Counter()
        """Rows done in this run, by "backend model"."""
        self.stages: Counter[str] = Counter()
        """Seconds by stage, summed over batches and workers."""
        self.work: Counter[str] = Counter()
        """Blocks evaluated and graphs compiled, as the engines counted them; of what is a peak, the highest."""
        self.busy_since = 0.0
        self.busy_until = 0.0
        """From the first engine being ready to the last result, by time.monotonic()."""
        self._unread = UnreadFields(settings.task, lambda message: emit("warning", message=message))
        self.folder.notes = self._unread.notes
        self._journal = Journal(self.folder.path / JOURNAL)
        self._reader = RowReader(Path(settings.run.input), settings.run.limit)
        self._spool = RowSpool(self.folder.path)
        self._ledger = Ledger(self.folder.path, settings.run.max_cost)
        self._inbox: SimpleQueue = SimpleQueue()
        self._pool = WorkerPool(self._inbox, emit, idle_pool)
        self._route = Route(settings, self._pool.start)
        self._rows_left = True
        self._retries = Retries()
        self._ending: FastgenError | None = None
        """Why the run takes no more batches: what is under way is finished, then this is raised."""

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
            feed = triage(
                self.settings,
                self._reader,
                self._journal,
                self._spool,
                lambda text: self.emit("warning", message=text),
                self._unread,
            )
            while True:
                yield from self._read_ahead(feed)
                self._dispatch()
                if self._winding_down and not self._pool.in_flight:
                    break
                if not self._rows_left and not self._pending():
                    break
                yield from self._settle_next()
            del feed  # and with it what it remembers of the rows
            self._pool.release()
            self._journal.sync()
            if self._ending is not None:
                raise self._ending
            if self._interrupted:
                self.state = "interrupted"
            else:
                write_tables(self.settings, self._spool, self._journal)
                self.state = "finished"
            self.folder.write_run(state=self.state, **self.summary())
        except FastgenError as error:
            self.state = "stopped"
            with suppress(DiskError, OSError):
                self.folder.write_run(state=self.state, error=str(error), **self.summary())
            raise
        finally:
            self._pool.stop(now=True)
            self._journal.close()
            self._spool.close()
            self._ledger.close()
            self.folder.close()

    def interrupt(self) -> None:
        """Take no more batches, finish those under way, keep their results. Safe to call from a signal handler."""
        self.state = "interrupting"
        self._inbox.put(None)

    def abort(self) -> None:
        """End the engine processes at once. What the journal has is safe."""
        self._pool.stop(now=True)

    @property
    def expected_rows(self) -> int:
        """About how many rows INPUT has; 0: not known yet."""
        return self._reader.expected

    @property
    def _interrupted(self) -> bool:
        return self.state == "interrupting"

    @property
    def _winding_down(self) -> bool:
        return self._interrupted or self._ending is not None

    def summary(self) -> dict:
        """Counts, rates and seconds by stage of this run, for run.json and the last event."""
        busy = max(0.0, self.busy_until - self.busy_since)
        made = "captions" if self.settings.task == "caption" else "images"
        engines = sum(facts.get("streams", 1) for facts in self._pool.facts.values())
        model = sum(self.stages[stage] for stage in ("denoise", "decode", "reference")) / max(1, engines)
        return {
            "counts": dict(self.counts),
            f"{made}_per_second": round(self.counts[made] / busy, 3) if busy else None,
            "busy_seconds": round(busy, 3),
            "outside_model": round(1 - model / busy, 4) if busy and model else None,
            "stages_seconds": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "engines": self._pool.facts,
            **({"work": dict(self.work)} if self.work else {}),
            **({"served_by": dict(self.served_by)} if self.served_by else {}),
            **({"cost_usd": round(self._ledger.spent, 6)} if self._ledger.spent else {}),
        }

    # Rows in

    def _read_ahead(self, feed: Iterator[Request | Failed | Prefilled | Skipped]) -> Iterator[Result]:
        """Fill the window from the rows, in steps while workers have something to say."""
        failed: list[Result] = []
        for request, group in self._retries.due(time.monotonic()):
            failed += self._assign(request, group.position)
        read = 0
        while self._rows_left and not self._route.full and not self._winding_down:
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
                    failed += self._assign(item)
                case Failed():
                    failed.append(item)
                case Prefilled():
                    self.counts["kept"] += 1
                case Skipped(Done()):
                    self.counts["done"] += 1
                case Skipped(result):
                    self.counts["failed"] += 1
                    self._say_failed(result)
        if not self._rows_left and not self.counts["rows"]:
            raise SettingsError(f"INPUT {self.settings.run.input}: holds no rows; it needs one JSON object a row")
        yield from self._commit(failed)

    def _assign(self, request: Request, position: int = 0, failure: Failed | None = None) -> list[Result]:
        """Hand a row to a backend; the failure of one that no backend takes."""
        try:
            failed = self._route.assign(request, position, failure)
        except EngineError as error:
            self._end(error)
            return []
        if failed is None:
            return []
        self._retries.forget(request.id)
        return [failed]

    # Batches out

    def _dispatch(self) -> None:
        """Give every worker with a free slot a batch, the least busy first, while there are any."""
        given = not self._winding_down
        over_budget: dict[Group, Batch] = {}
        """Groups whose next batch --max-cost does not allow, at least until more is settled."""
        while given:
            given = False
            for state in self._pool.free():
                if state.group.closed or state.group in over_budget:
                    continue
                batch, suspect = state.group.next_batch(not state.in_flight, ended=not self._rows_left)
                if batch is None:
                    continue
                if not self._afford(state.group, batch):
                    state.group.queue.appendleft(batch)
                    over_budget[state.group] = batch
                    continue
                state.exclusive = suspect
                self._pool.submit(state, batch)
                given = True
        if over_budget and not self._pool.in_flight and not self._may_go_on(over_budget):
            group, batch = next(iter(over_budget.items()))
            self._end(
                BudgetError(
                    f"--max-cost {self.settings.run.max_cost:g} USD: {self._ledger.spent:.4f} USD are spent and the "
                    "next row could cost "
                    f"up to {providers.estimate(group.settings, group.view(batch.requests[0])):.4f} USD"
                )
            )

    def _afford(self, group: Group, batch: Batch) -> bool:
        """Set aside what the batch may cost."""
        for index, request in enumerate(batch.requests):
            if not self._ledger.reserve(request.id, providers.estimate(group.settings, group.view(request))):
                for before in batch.requests[:index]:
                    self._ledger.settle(before.id, 0.0)
                return False
        return True

    def _may_go_on(self, over_budget: dict[Group, Batch]) -> bool:
        """Whether rows wait for a backend that costs nothing more and is not ready yet, or for their next try."""
        loading = any(
            len(state.group) and not state.ready
            for state in self._pool.states
            if state.group not in over_budget and not state.group.closed
        )
        return loading or len(self._retries) > 0

    def _pending(self) -> bool:
        return bool(self._pool.in_flight or len(self._retries) or len(self._route))

    # Results back

    def _settle_next(self) -> Iterator[Result]:
        """Wait for the next message, or for the next retry to be due, and settle it."""
        timeout, due = None, self._retries.next_due()
        if due is not None and not self._winding_down:
            timeout = max(0.0, due - time.monotonic())
        try:
            message = self._inbox.get(timeout=timeout)
        except Empty:
            return
        if message is None:  # interrupt(), which may be in a signal handler and so says nothing itself
            self._pool.cancel_pending()
            self.emit("warning", message="finishing the batches under way; once more to stop at once")
            return
        state, number, future = message
        if number == 0:
            yield from self._handle_start(state, future)
        elif number in state.in_flight:
            yield from self._settle_batch(state, number, future)

    def _handle_start(self, state: WorkerState, future: Future) -> Iterator[Result]:
        try:
            self._pool.handle_start(state, future)
        except (EngineError, ModelError) as error:
            yield from self._close(state.group, error)
            return
        if state.ready:
            self.busy_since = self.busy_since or time.monotonic()

    def _settle_batch(self, state: WorkerState, number: int, future: Future) -> Iterator[Result]:
        group = state.group
        try:
            results = future.result()
        except WorkerDied as death:
            for batch in state.in_flight.values():
                for request in batch.requests:
                    self._ledger.settle(request.id, None)
            try:
                lost = self._pool.handle_death(state, death)
            except EngineError as error:
                yield from self._close(group, error)
                return
            group.queue.extend(lost.innocent)
            group.suspects.extend(lost.suspects)
            yield from self._commit(lost.poisoned)
            return
        batch = self._pool.finish(state, number)
        self.busy_until = now = time.monotonic()
        final: list[Result] = []
        split: list[Request] = []
        closing = ""
        for request, result in zip(batch.requests, results, strict=True):
            self._ledger.settle(request.id, result.cost)
            began = bool(result.attempts)
            if began and not group.closed:
                closing = closing or group.learn(result, now, last=not self._route.after(group))
            result = self._retries.note(request, result)
            if isinstance(result, Done):
                final.append(result)
                continue
            if result.kind == "input":  # found by the backend, which knows no rows
                field = f", field {result.field}" if result.field else ""
                result = replace(result, message=f"row {request.row}{field}: {result.message}")
            action = failure_policy.decide(self._retries.here(result), alone=len(batch.requests) == 1)
            if self._winding_down and (
                result.kind in failure_policy.AGAIN - {"input"} or not began or action == "retry"
            ):
                continue  # not its fault, or not its last try: it stays for the next run
            match action:
                case "retry" if not group.closed:
                    self._retries.later(request, group, result, now)
                case "split":
                    split.append(request)
                case "stop":
                    raise DiskError(result.message)
                case "retry" | "give up":
                    final += self._move_on(request, result, group)
        if split:
            group.queue.extend(halves(Batch(batch.bucket, tuple(split))))
        yield from self._commit(final)
        if closing:
            yield from self._close(group, EngineError(f"{group.settings.backend}: {closing}"))

    def _move_on(self, request: Request, failed: Failed, group: Group) -> list[Result]:
        """A backend has given up on a row: to the next one, or it has failed."""
        if failure_policy.moves(failed, self.settings.run.fallback_on_refusal):
            self._retries.elsewhere(request.id)
            return self._assign(request, group.position + 1, failed)
        self._retries.forget(request.id)
        return [failed]

    def _close(self, group: Group, error: FastgenError) -> Iterator[Result]:
        """A backend gets no more rows: what waits for it goes to the next one, or, after the last, the run ends."""
        if group.closed:
            return
        group.closed = str(error)
        others = self._route.after(group)
        if not others:
            if group.position == 0 and not self._pool.in_flight:
                raise error
            self._end(error)
            return
        names = ", ".join(other.settings.backend.name for other in others)
        self.emit("warning", message=f"{group.settings.backend} gets no more rows, they go to {names}: {error}")
        failed: list[Result] = []
        for request in [*group.take_back(), *self._retries.take_back(group)]:
            failed += self._assign(request, group.position + 1)
        self._pool.cancel_pending(group)
        yield from self._commit(failed)

    def _end(self, error: FastgenError) -> None:
        if self._ending is None:
            self._ending = error
            self._pool.cancel_pending()

    def _commit(self, results: list[Result]) -> Iterator[Result]:
        """Into the journal first; only then does anybody hear of it."""
        if not results:
            return
        self._journal.append(results)
        for result in results:
            if isinstance(result, Done):
                self._pool.row_done()
                self.counts["done"] += 1
                self.counts["new"] += 1
                self.counts["images"] += len(result.paths)
                self.counts["captions"] += bool(result.text)
                self.stages.update(result.stages)
                for name, value in result.work.items():
                    self.work[name] = max(self.work[name], value) if "peak" in name else self.work[name] + value
                if self.settings.fallbacks:
                    self.served_by[f"{result.backend} {result.model}"] += 1
            else:
                self.counts["failed"] += 1
                self._say_failed(result)
            yield result

    def _say_failed(self, failed: Failed) -> None:
        self.emit("row_failed", id=failed.id, kind=failed.kind, field=failed.field, message=failed.message)
