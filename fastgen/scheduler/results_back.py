"""The last part of a run: what workers answer becomes results, next tries, or rows for the next backend. Does not know
processes or files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from msgspec.structs import replace

from fastgen import providers
from fastgen.errors import DiskError, EngineError, FastgenError, ModelError, RunFolderError
from fastgen.output.reserve import Reserve
from fastgen.scheduler import failure_policy
from fastgen.scheduler.alike import Alike
from fastgen.scheduler.batching import halves
from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Group, Route
from fastgen.scheduler.rows_in import RowsIn
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.scheduler.worker_state import WorkerState
from fastgen.types import Batch, Done, Failed, Request, Result
from fastgen.workers.base import WorkerDied


class ResultsBack:
    """Args: rows: passes a row that one backend gave up on to the next; reserve: see BatchesOut;
    check_served: called with a backend and the model that its server chose."""

    def __init__(
        self,
        rows: RowsIn,
        route: Route,
        pool: WorkerPool,
        retries: Retries,
        ledger: Ledger,
        reserve: Reserve | None,
        progress: Progress,
        check_served: Callable[[str, str], None],
    ):
        self._rows = rows
        self._route = route
        self._pool = pool
        self._retries = retries
        self._ledger = ledger
        self._reserve = reserve
        self._progress = progress
        self._check_served = check_served
        self._alike = Alike()
        self._told: set[str] = set()
        """Warnings about a service as a whole that were said."""
        self.given_up = 0
        """Rows that were on a worker that ended while the run was ending."""
        self.perhaps_paid_usd = 0.0
        """USD that their requests may have cost."""

    def settle(self, state: WorkerState, number: int, future: Future) -> Iterator[Result]:
        """Handle one message of the worker pool. Yields the results that are now final, after committing them."""
        if number == 0:
            yield from self._started(state, future)
        elif number in state.in_flight:  # else the death of its worker has already handled it
            try:
                results = future.result()
            except WorkerDied as death:
                yield from self._died(state, death)
            except DiskError as error:
                self._lost(state, number, error)
            else:
                yield from self._answered(state, number, results)

    def _started(self, state: WorkerState, future: Future) -> Iterator[Result]:
        try:
            self._pool.handle_start(state, future)
            model = self._pool.facts.get(state.worker.name, {}).get("model")
            if state.ready and model and state.group.settings.model.name == "auto":
                self._check_served(state.group.settings.backend.name, str(model))
        except (EngineError, ModelError, RunFolderError, DiskError) as error:
            yield from self._close(state.group, error)
            return
        if state.ready:
            now = time.monotonic()
            self._progress.busy_since = self._progress.busy_since or now
            self._progress.estimate.ready(state.worker.name, now)

    def _died(self, state: WorkerState, death: WorkerDied) -> Iterator[Result]:
        group, goes_on = state.group, not self._progress.winding_down
        lost = self._pool.handle_death(state, death, restart=goes_on)
        if group.settings.durable:  # what was reserved is still to be paid, for answers that are still to come
            lost.unpaid, lost.perhaps_paid = [], []
        for request in lost.unpaid:
            self._ledger.settle(request.id, 0.0)
        usd = sum(self._ledger.settle(request.id, None) for request in lost.perhaps_paid)
        if not goes_on:
            self.given_up += len(lost.unpaid) + len(lost.perhaps_paid)
            self.perhaps_paid_usd += usd
        group.queue.extend(lost.innocent)
        group.suspects.extend(lost.suspects)
        yield from self._commit(lost.poisoned)
        if lost.hopeless:
            yield from self._close(group, EngineError(lost.hopeless))

    def finish(self) -> Iterator[Result]:
        """Nothing else is left to run: settle the rows that may have ended their workers."""
        try:
            yield from self._progress.commit(self._pool.blame.close())
            yield from self._commit([self._refused(*held) for held in self._alike.close()])
        except EngineError as error:
            self._progress.end(error)

    def _lost(self, state: WorkerState, number: int, error: DiskError) -> None:
        """The disk could not store what a batch made. What was paid is paid, and the run ends."""
        for request in self._pool.finish(state, number).requests:
            if not state.group.settings.durable:
                self._ledger.settle(request.id, None)
        self._progress.end(error)

    def _answered(self, state: WorkerState, number: int, results: list[Result]) -> Iterator[Result]:
        group, batch = state.group, self._pool.finish(state, number)
        self._progress.busy_until = now = time.monotonic()
        made = [request for request, result in zip(batch.requests, results, strict=True) if isinstance(result, Done)]
        units, count = sum(request.work for request in made), sum(request.samples for request in made)
        self._progress.estimate.answered(state.worker.name, units, count, now)
        told = (result.work.get("gpu_peak_mib", 0) for result in results if isinstance(result, Done))
        state.peak_mib = max(state.peak_mib, *told, 0)
        final: list[Result] = []
        split: list[Request] = []
        later: list[Request] = []
        closing = ""
        alone = len(batch.requests) == 1
        is_remote, last = group.settings.backend.is_remote, not self._route.after(group)
        durable = group.settings.durable
        for request, result in zip(batch.requests, results, strict=True):
            if durable and not result.attempts:
                later.append(request)
                continue
            if is_remote:
                self._ledger.settle(request.id, result.cost, result.receipt)
                result = replace(result, receipt="") if result.receipt else result
                self._learn(group, request, result)
            if result.attempts and not group.closed:
                closing = closing or group.learn(result, now, last)
            noted = self._retries.note(request, result, now)
            if isinstance(noted, Done):
                final.append(noted)
                if is_remote:
                    final += self._worked(group, noted)
                    if self._reserve is not None:
                        self._reserve.learn(noted.paths, len(noted.text))
                continue
            if is_remote and result.attempts and self._alike.hold(request, noted, group):
                if group.closed:
                    others = self._route.after(group)
                    freed = self._alike.take_back(group) if others else []
                    final += [failed for one in freed for failed in self._rows.assign(one, group.position + 1)]
                    continue
                closing = closing or self._alike.verdict(group)
                if self._alike.overflow(group):
                    final += [self._refused(*held) for held in self._alike.done(group)]
                continue
            match self._judge(noted, alone, bool(result.attempts), now, group):
                case "retry" if not group.closed:
                    self._retries.later(request, group, noted, now)
                case "split":
                    split.append(request)
                case "stop":
                    self._progress.end(DiskError(noted.message))
                case "retry" | "give up":
                    final += self._move_on(request, self._named(request, noted), group)
        if later:
            final += self._wait_on(group, Batch(batch.bucket, tuple(later)))
        if split:
            group.queue.extend(halves(Batch(batch.bucket, tuple(split))))
        yield from self._commit(final)
        if closing:
            yield from self._close(group, EngineError(f"{group.settings.backend}: {closing}"))

    def _wait_on(self, group: Group, later: Batch) -> list[Result]:
        """Rows whose answers a durable backend does not have yet go back to it; if the run ends, they are left to the
        next one. If no more rows go there, they go to the next backend. Returns those that none takes."""
        if self._progress.winding_down:
            return []
        if not group.closed:
            group.queue.append(later)
            return []
        failed: list[Result] = []
        for request in later.requests:
            self._ledger.settle(request.id, None)
            failed += self._rows.assign(request, group.position + 1)
        return failed

    def _worked(self, group: Group, done: Done) -> list[Result]:
        """A service has done a row: say what it does not take, once. Returns the rows whose refusal is now final."""
        for warning in done.warnings:
            if warning.startswith(f"{done.model} ") and warning not in self._told:
                self._told.add(warning)
                self._progress.emit("warning", message=f"{group.settings.backend}: {warning}")
        return [self._refused(*held) for held in self._alike.done(group)]

    def _refused(self, request: Request, failed: Failed) -> Failed:
        """A row that was held back has failed."""
        self._retries.forget(request.id)
        return self._named(request, failed)

    def _learn(self, group: Group, request: Request, result: Result) -> None:
        """What an answer cost tells what a lost request for the same row cost."""
        if isinstance(result, Done) and self._ledger.has_lost(request.id):
            seen = group.view(request)
            usd = providers.cost_of_another(group.settings, seen, result)
            self._ledger.learn(request.id, providers.ask_of(group.settings, seen), usd)

    def _judge(
        self, failed: Failed, alone: bool, began: bool, now: float, group: Group
    ) -> failure_policy.Action | None:
        """What happens to a failed row; None: it is left for the next run."""
        waited_s = self._retries.waited_s(failed.id, now)
        if group.settings.durable:  # a try may take a day, so tries count and not time
            waited_s = 0.0 if failed.attempts < failure_policy.MAX_ATTEMPTS else failure_policy.LONGEST_WAIT_S
            alone = True
        action = failure_policy.decide(self._retries.here(failed), alone, waited_s)
        not_its_fault = failed.kind in failure_policy.AGAIN - {"input"} or not began
        if self._progress.winding_down and (not_its_fault or action == "retry"):
            return None
        return action

    def _named(self, request: Request, failed: Failed) -> Failed:
        """Adds row and field to the message if a backend found the row bad, because backends do not know rows."""
        if failed.kind != "input":
            return failed
        field = f", field {failed.field}" if failed.field else ""
        return replace(failed, message=f"row {request.row}{field}: {failed.message}")

    def _move_on(self, request: Request, failed: Failed, group: Group) -> list[Result]:
        """A backend gave up on a row: it goes to the next backend, or it has failed."""
        if failure_policy.moves(failed, self._progress.settings.run.fallback_on_refusal):
            self._retries.elsewhere(request.id)
            return self._rows.assign(request, group.position + 1, failed)
        self._retries.forget(request.id)
        return [failed]

    def _close(self, group: Group, error: FastgenError) -> Iterator[Result]:
        """A backend gets no more rows: what waits for it goes to the next one. After the last one the run ends."""
        if group.closed:
            return
        group.closed = str(error)
        others = self._route.after(group)
        if not others:
            if group.position == 0 and not self._pool.in_flight:
                raise error
            self._progress.end(error)
            return
        names = ", ".join(other.settings.backend.name for other in others)
        message = f"{group.settings.backend} gets no more rows; they go to {names}: {error}"
        self._progress.emit("warning", message=message)
        failed: list[Result] = []
        accused = self._pool.blame.take_back(group)
        refused = self._alike.take_back(group)
        for request in [*group.take_back(), *self._retries.take_back(group), *accused, *refused]:
            failed += self._rows.assign(request, group.position + 1)
        self._pool.cancel_pending(group)
        yield from self._commit(failed)

    def _commit(self, results: list[Result]) -> Iterator[Result]:
        yield from self._progress.commit(results)
        if done := [result.id for result in results if isinstance(result, Done)]:
            yield from self._progress.commit(self._pool.blame.row_done(done))
