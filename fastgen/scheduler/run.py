"""One run: its folder, its loop, its end. The loop keeps the workers busy and commits what comes back, once.

One thread. The loop alternates between reading rows into the windows (rows_in), starting workers and handing them
batches (here), and settling one message of a worker (results_back). Knows backends only through workers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from fastgen import providers
from fastgen.config.settings import Settings
from fastgen.errors import BudgetError, DiskError, FastgenError, SettingsError
from fastgen.output.journal import Journal
from fastgen.output.run_dir import JOURNAL, RunFolder
from fastgen.output.writers.tables import write_tables
from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.progress import Emit, Progress
from fastgen.scheduler.results_back import ResultsBack
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Group, Route
from fastgen.scheduler.rows_in import RowsIn
from fastgen.scheduler.triage import triage
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.types import Batch, Result
from fastgen.workers import registry
from fastgen.workers.idle_pool import IdlePool

__all__ = ["Emit", "Run"]


class Run:
    """One run of a task over its rows. Iterate `results()`; then `counts` and `state` say how it went.

    Args:
        settings: from `resolve`, with `input` set.
        emit: called as emit(event, **facts) for what happens besides results.
        rows: rows as dicts, where `settings` names no input file; kept in the run folder, so that they can be read
            twice.
        idle_pool: where engines of earlier runs are found, and those of this one are left; None: they end with it.
        place: where workers run, a name in workers.registry.PLACES.

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
        place: str = registry.DEFAULT,
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
        self._owner = os.getpid()
        self._inbox: SimpleQueue = SimpleQueue()
        self._journal = Journal(self.folder.path / JOURNAL)
        self._ledger = Ledger(self.folder.path, settings.max_cost)
        self._progress = Progress(settings, self._journal, emit)
        self._route = Route(settings)
        self._retries = Retries()
        self._pool = WorkerPool(self._inbox, emit, idle_pool, place)
        self._rows = RowsIn(triage(settings, self._journal), self._route, self._retries, self._progress)
        self._back = ResultsBack(self._rows, self._route, self._pool, self._retries, self._ledger, self._progress)

    @property
    def state(self) -> str:
        """running, interrupting, then interrupted, finished or stopped."""
        return self._progress.state

    @property
    def counts(self) -> Counter[str]:
        """rows; done, failed, kept (in all); new, images, captions (made in this run)."""
        return self._progress.counts

    def summary(self) -> dict:
        """Counts, rates and seconds by stage of this run, for run.json and the last event."""
        return self._progress.summary(self._pool.facts, self._ledger.spent)

    def results(self) -> Iterator[Result]:
        """Work through all rows; yields each result of this run once it is committed.

        Ends early, with `state` "interrupted", after `interrupt()`.

        Raises:
            EngineError: no engine can start or go on. DiskError: the disk is full. What is done is safe in both cases.
        """
        progress = self._progress
        try:
            self.folder.write_run(state="running")
            self._warn()
            yield from self._loop()
            self._rows.close()
            self._pool.release()
            self._journal.sync()
            if progress.ending is not None:
                raise progress.ending
            if progress.state == "interrupting":
                progress.state = "interrupted"
            else:
                write_tables(self.settings, self._journal)
                progress.state = "finished"
            self.folder.write_run(state=progress.state, **self.summary())
        except FastgenError as error:
            progress.state = "stopped"
            with suppress(DiskError, OSError):
                self.folder.write_run(state=progress.state, error=str(error), **self.summary())
            raise
        finally:
            if os.getpid() == self._owner:  # in a forked process nothing of this is ours to end
                self._pool.stop(now=True)
                self._journal.close()
                self._ledger.close()
                self.folder.close()

    def interrupt(self) -> None:
        """Take no more batches, finish those under way, keep their results. Safe to call from a signal handler."""
        self._progress.state = "interrupting"
        self._inbox.put(None)

    def abort(self) -> None:
        """End the engine processes at once. What the journal has is safe."""
        self._pool.stop(now=True)

    def _warn(self) -> None:
        """What the user should be told about what was found in the folder."""
        if self.folder.warning:
            self.emit("warning", message=self.folder.warning)
        if self._journal.damaged:
            message = f"{self._journal.damaged} damaged journal lines dropped; their rows run again"
            self.emit("warning", message=message)

    # The loop

    def _loop(self) -> Iterator[Result]:
        cancelled = False
        while True:
            yield from self._rows.read(time.monotonic(), wanted_elsewhere=lambda: not self._inbox.empty())
            if not self._progress.winding_down:
                for group in self._route.to_start:
                    self._pool.start(group)
                self._give_out()
            if self._progress.winding_down and not cancelled:
                cancelled = True
                self._pool.cancel_pending()
            if self._is_over:
                return
            yield from self._settle_next()

    @property
    def _is_over(self) -> bool:
        if self._progress.winding_down:
            return not self._pool.in_flight
        waiting = self._pool.in_flight or len(self._retries) or len(self._route)
        return not self._rows.left and not waiting

    def _settle_next(self) -> Iterator[Result]:
        """Wait for the next message, or for the next retry to be due, and settle it."""
        timeout, due = None, self._retries.next_due()
        if due is not None and not self._progress.winding_down:
            timeout = max(0.0, due - time.monotonic())
        try:
            message = self._inbox.get(timeout=timeout)
        except Empty:
            return
        if message is None:  # interrupt(), which may be in a signal handler and so says nothing itself
            self.emit("warning", message="finishing the batches under way; once more to stop at once")
            return
        yield from self._back.settle(*message)

    # Batches out

    def _give_out(self) -> None:
        """Give every worker with a free slot a batch, the least busy first, while there are any."""
        given = True
        over_budget: dict[Group, Batch] = {}
        """Groups whose next batch --max-cost does not allow, at least until more is settled."""
        while given:
            given = False
            for state in self._pool.free():
                group = state.group
                if group.closed or group in over_budget:
                    continue
                batch, suspect = group.next_batch(not state.in_flight, ended=not self._rows.left)
                if batch is None:
                    continue
                most = _most(group, batch)
                if most and not self._ledger.afford(most):
                    group.queue.appendleft(batch)
                    over_budget[group] = batch
                    continue
                state.exclusive = suspect
                self._pool.submit(state, batch)
                given = True
        if over_budget and not self._pool.in_flight and not self._may_go_on(over_budget):
            group, batch = next(iter(over_budget.items()))
            self._progress.end(self._over_budget(sum(_most(group, batch).values())))

    def _may_go_on(self, over_budget: dict[Group, Batch]) -> bool:
        """Whether rows wait for a backend that costs nothing more and is not ready yet, or for their next try."""
        loading = any(
            len(state.group) and not state.ready
            for state in self._pool.states
            if state.group not in over_budget and not state.group.closed
        )
        return loading or len(self._retries) > 0

    def _over_budget(self, most: float) -> BudgetError:
        return BudgetError(
            f"--max-cost {self.settings.max_cost:g} USD: {self._ledger.spent:.4f} USD are spent and the next row "
            f"could cost up to {most:.4f} USD"
        )


def _most(group: Group, batch: Batch) -> dict[str, float]:
    """USD that each row of a batch may cost at most, by id; those that cost nothing are left out."""
    if not group.settings.is_remote:
        return {}
    estimates = {request.id: providers.estimate(group.settings, group.view(request)) for request in batch.requests}
    return {id: usd for id, usd in estimates.items() if usd}
