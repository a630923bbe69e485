"""The middle of a run: sends waiting rows in batches to workers with a free slot, as far as money and disk space allow.
Does not know files or results."""

from __future__ import annotations

from functools import partial

from fastgen import providers
from fastgen.errors import BudgetError, DiskError
from fastgen.output.reserve import Reserve
from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.pace import LastBatches
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Group, Route
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.types import Batch


class BatchesOut:
    """Args: reserve: disk space for the answers of services; None if no service is used."""

    def __init__(
        self,
        route: Route,
        pool: WorkerPool,
        retries: Retries,
        ledger: Ledger,
        reserve: Reserve | None,
        progress: Progress,
    ):
        self._route = route
        self._pool = pool
        self._retries = retries
        self._ledger = ledger
        self._reserve = reserve
        self._progress = progress
        self._said_room = False

    def give(self, ended: bool) -> None:
        """Start the workers of backends that got their first rows. Then give a batch to every worker with a free slot,
        the least busy first, as long as there are batches.

        Args:
            ended: whether no more rows will come.
        """
        over_budget: dict[Group, Batch] = {}
        try:
            for group in self._route.to_start:
                self._pool.start(group)
            while self._give_once(ended, over_budget):
                pass
        except DiskError as error:
            self._progress.end(error)
        if over_budget and not self._pool.in_flight and not self._may_go_on(over_budget):
            group, batch = next(iter(over_budget.items()))
            self._progress.end(
                BudgetError(
                    f"--max-cost {self._ledger.limit:g} USD: {self._ledger.spent:.4f} USD are spent, and the next row "
                    f"could cost up to {next(iter(_most(group, batch).values())):.4f} USD"
                )
            )

    def _give_once(self, ended: bool, over_budget: dict[Group, Batch]) -> bool:
        """Give one batch to each free worker. Returns whether any was given.

        Args:
            over_budget: groups whose next batch --max-cost does not allow, at least until other reservations are
                settled; this method adds to it.
        """
        given = False
        empty: set[Group] = set()
        last: dict[Group, LastBatches] = {}
        for state in self._pool.free():
            group = state.group
            if group in empty or group.closed or group in over_budget or self._lacks_room(group):
                continue
            if ended and not group.settings.backend.is_remote:
                if group not in last:
                    last[group] = self._last_batches(group)
                if not last[group].should_have(state.pace):
                    continue
            may_try = partial(self._pool.may_try, state)
            busy = self._busy(group, last[group]) if group in last else ()
            batch, suspect = group.next_batch(not state.in_flight, ended, may_try, state.worker.name, busy)
            if batch is None:
                if not (group.suspects or busy):  # then it depends on the worker that asks
                    empty.add(group)
                continue
            if (batch := self._afforded(group, batch, over_budget)) is None:
                continue
            state.exclusive = suspect
            self._pool.submit(state, batch)
            given = True
        return given

    def _busy(self, group: Group, last: LastBatches) -> list[str]:
        """The workers that have batches and will get another one."""
        return [
            s.worker.name
            for s in self._pool.states
            if s.group is group
            and s.in_flight
            and s.ready
            and not (s.exclusive or s.killed)
            and last.should_have(s.pace)
        ]

    def _last_batches(self, group: Group) -> LastBatches:
        paces = [s.pace for s in self._pool.states if s.group is group and s.ready and not s.exclusive and not s.killed]
        return LastBatches(paces, group.samples, group.window.batch)

    def _afforded(self, group: Group, batch: Batch, over_budget: dict[Group, Batch]) -> Batch | None:
        """Reserve what a batch may cost. Returns the batch, or its beginning if --max-cost allows no more and
        nothing is in flight that could cost less than its reservation; None if it must wait."""
        most, durable = _most(group, batch), group.settings.durable
        if not most:
            return batch
        asks = _asks(group, batch)
        if self._ledger.afford(most, asks, durable):
            return batch
        if durable and not self._pool.in_flight:
            left, count = self._ledger.left, 0
            for request in batch.requests:
                if not self._ledger.holds(request.id, asks.get(request.id, "")):
                    left -= most.get(request.id, 0.0)
                if left < 0:
                    break
                count += 1
            if count:
                first = Batch(batch.bucket, batch.requests[:count])
                group.queue.appendleft(Batch(batch.bucket, batch.requests[count:]))
                if self._ledger.afford({r.id: most[r.id] for r in first.requests if r.id in most}, asks, durable):
                    return first
                group.queue.popleft()
        group.queue.appendleft(batch)
        over_budget[group] = batch
        return None

    def _lacks_room(self, group: Group) -> bool:
        """Whether there would be no room for one more answer of a service if the disk were full now."""
        if self._reserve is None or not group.settings.backend.is_remote or group.settings.durable:
            return False
        capacity = self._reserve.capacity
        if self._pool.asked_of_services < capacity:
            return False
        if capacity < self._reserve.answers and not self._said_room:
            self._said_room = True
            message = f"the disk of the run folder is nearly full, so at most {capacity} requests are in flight"
            self._progress.emit("warning", message=message)
        return True

    def _may_go_on(self, over_budget: dict[Group, Batch]) -> bool:
        """Whether rows wait for their next try, or for a backend that is free of charge and not ready yet."""
        loading = any(
            len(state.group) and not state.ready
            for state in self._pool.states
            if state.group not in over_budget and not state.group.closed
        )
        return loading or len(self._retries) > 0


def _most(group: Group, batch: Batch) -> dict[str, float]:
    """Id -> maximum USD for each row of a batch; rows that cost nothing are left out."""
    if not group.settings.backend.is_remote:
        return {}
    estimates = {request.id: providers.estimate(group.settings, group.view(request)) for request in batch.requests}
    return {id: usd for id, usd in estimates.items() if usd}


def _asks(group: Group, batch: Batch) -> dict[str, str]:
    """Id -> what is asked for, for each row of a batch."""
    return {request.id: providers.ask_of(group.settings, group.view(request)) for request in batch.requests}
