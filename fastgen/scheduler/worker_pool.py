"""The workers of a run: which are ready, which batches each one has, and what the death or silence of one means. Does
not know rows, files, or where workers run.

Workers answer through futures, whose callbacks put (state, number, future) into the inbox; number 0 is for a start.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread

from fastgen.backends.registry import slots
from fastgen.config.hardware import Device
from fastgen.errors import EngineError, ModelError
from fastgen.scheduler import failure_policy
from fastgen.scheduler.account import Account
from fastgen.scheduler.batching import halves
from fastgen.scheduler.blame import MAX_FAULTS, MAX_FAULTS_OF_LAST, Blame
from fastgen.scheduler.progress import Emit
from fastgen.scheduler.routing import Group
from fastgen.scheduler.watchdog import Watch
from fastgen.scheduler.worker_state import Held, LostBatches, WorkerState
from fastgen.types import Batch
from fastgen.workers import registry
from fastgen.workers.base import MachineRefused, WorkerDied
from fastgen.workers.idle_pool import IdlePool, make_room, take

MAX_STARTS = 3
"""How often in a row a worker may die while it starts."""
MAX_POISON_STREAK = 16
"""If this many rows in succession kill their worker, with none done in between, the rows are not the cause."""
ALL_TOLD_S = 60.0
"""A dead worker returns all its batches at once; this only limits the damage of an error in that."""


class WorkerPool:
    """Args:
    inbox: where answers go.
    emit: called as emit(event, **facts).
    idle_pool: where workers come from and go to, if anywhere.
    place: where new workers run, a name in workers.registry.PLACES; "" where the settings say.
    """

    def __init__(self, inbox: SimpleQueue, emit: Emit, idle_pool: IdlePool | None = None, place: str = ""):
        self.inbox = inbox
        self.emit = emit
        self.states: list[WorkerState] = []
        self.facts: dict[str, dict] = {}
        """What each engine reported when it was opened."""
        self.accounts: dict[str, Account] = {}
        """Of every worker that this run had, by its name."""
        self._idle_pool = idle_pool
        self._place = place
        self.blame = Blame()
        self._number = 0
        self._looked_at = time.monotonic()
        self.clock = time.monotonic
        """Tells when batches come and go."""

    # Life

    def start(self, group: Group) -> None:
        """Start one worker per device of a group, all at the same time; an idle one from an earlier run is reused."""
        group.started = True
        new = [self._find(group, device) for device in group.settings.placement.devices]
        self.states += new
        for state in new:
            for gone in () if state.reused else make_room(state.worker.device):
                message = f"{gone.name}: the engine with {gone.model} was stopped to make room for one with "
                message += state.worker.model
                self.emit("warning", message=message)
            self._start(state)

    def _find(self, group: Group, device: Device) -> WorkerState:
        settings, most = group.settings, slots(group.settings, device)
        place = self._place or settings.placement.place
        worker = take(place, settings, device, most) if self._idle_pool else None
        reused = worker is not None
        worker = worker or registry.create(place, settings, device, most)
        watch = Watch(may_end_unanswered=not settings.backend.is_remote, may_take_days=settings.durable)
        return WorkerState(worker, group, watch, reused=reused)

    def _start(self, state: WorkerState) -> None:
        state.ready = state.killed = False
        state.opening = True
        self.accounts[state.worker.name] = state.account
        state.account.started(self.clock())
        state.watch.started()
        state.answers.clear()
        ready = state.worker.reconfigure(state.group.settings) if state.reused else state.worker.start()
        ready.add_done_callback(lambda future: self.inbox.put((state, 0, future)))

    def handle_start(self, state: WorkerState, future: Future) -> None:
        """Handle a worker that is ready, or that did not start.

        Raises:
            ModelError, EngineError: the worker reports that it cannot start, or no worker is left.
        """
        state.opening = False
        state.account.opened(self.clock())
        try:
            facts = future.result()
        except (WorkerDied, EngineError, ModelError) as error:
            self._handle_failed_start(state, error)
            return
        state.ready = state.was_ready = True
        state.watch.answered()
        if state.reused:
            facts = {**facts, "kept": True}
            state.reused = False
        self.facts[state.worker.name] = facts
        self.emit("lane_ready", lane=state.worker.name, **facts)

    def _handle_failed_start(self, state: WorkerState, error: WorkerDied | EngineError | ModelError) -> None:
        # A worker that is killed from outside while it loads is tried again. If it reports that it cannot start, that
        # is final, unless it worked before: a worker that is lost must not stop the others.
        state.failed_starts += 1
        state.reused = False
        name = state.worker.name
        if isinstance(error, WorkerDied) and state.was_ready:
            self.blame.died_without_rows()
        if isinstance(error, MachineRefused) and len(self._names(state.group)) > 1:
            state.worker.stop(now=True)
            self.states.remove(state)
            self.emit("warning", message=f"{name} is not used, and the run goes on without it: {error}")
            return
        if not isinstance(error, WorkerDied) and not state.was_ready:
            raise error
        state.worker.stop(now=True)  # a worker that reports that it cannot start still exists
        if state.failed_starts < MAX_STARTS:
            self.emit("lane_restarted", lane=name, reason=str(error))
            self._start(state)
            return
        self.states.remove(state)
        if not any(other.group is state.group for other in self.states):
            raise EngineError(f"the engine on {name} failed to start {MAX_STARTS} times: {error}") from None
        self.emit("warning", message=f"{name} is no longer used after {MAX_STARTS} failed starts: {error}")

    def release(self) -> None:
        """The run is over: workers go to the idle pool, or end."""
        if self._idle_pool is not None:
            for state in [state for state in self.states if not state.in_flight]:
                self._idle_pool.put(state.worker)
                self.states.remove(state)  # not earlier: if this is interrupted, the worker must still be here
        self.stop()
        self.states.clear()

    def stop(self, now: bool = False) -> None:
        """End all workers at the same time; with `now` they do not finish their batches."""
        if now:
            for state in self.states:
                state.worker.kill("the run was stopped")
            for state in self.states:
                state.worker.stop(now=True)
            return
        ending = [Thread(target=state.worker.stop, daemon=True) for state in self.states]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()

    def kill_busy(self, reason: str) -> None:
        """End the workers that hold batches; these come back as lost."""
        for state in self.states:
            if state.in_flight:
                self._kill(state, reason)

    def watch(self, now: float) -> None:
        """Pass on what workers have to say, report which one has been silent for how long, and end those that hang;
        their batches come back as lost."""
        passed_s, self._looked_at = now - self._looked_at, now
        for state in self.states:
            warnings = getattr(state.worker, "warnings", ())
            while warnings:
                self.emit("warning", message=f"{state.worker.name}: {warnings.popleft()}")
            for batch, took_s in state.answers:
                state.watch.answered(batch, took_s)
            state.answers.clear()
            action = state.watch.look(passed_s, state.worker.beats, state.batches, state.opening)
            if not action or state.killed:
                continue
            why = state.watch.why(state.batches, state.opening)
            if action == "end":
                self._kill(state, f"{why}, so it was ended")
            else:
                self.emit("warning", message=f"{state.worker.name}: {why}")

    def _kill(self, state: WorkerState, reason: str) -> None:
        state.killed = True
        state.worker.kill(reason)

    # Batches

    def free(self) -> list[WorkerState]:
        """Workers that can take a batch, the least busy first."""
        states = [s for s in self.states if s.ready and not s.exclusive and len(s.in_flight) < s.worker.slots]
        return sorted(states, key=lambda state: len(state.in_flight)) if len(states) > 1 else states

    def may_try(self, state: WorkerState, suspect: Batch) -> bool:
        """Whether a worker may have a batch that was on a worker when it died."""
        return not self.blame.should_avoid(suspect.requests, state.worker.name, self._names(state.group))

    def _names(self, group: Group) -> list[str]:
        return [state.worker.name for state in self.states if state.group is group]

    def submit(self, state: WorkerState, batch: Batch) -> None:
        """Give a worker a batch."""
        self._number += 1
        number = self._number
        seen = Batch(batch.bucket, tuple(map(state.group.view, batch.requests)))
        future = state.worker.submit(seen)
        state.in_flight[number] = Held(batch, self.clock(), future)
        state.pace.got(batch.samples)
        future.add_done_callback(lambda future: self.inbox.put((state, number, future)))

    @property
    def in_flight(self) -> bool:
        return any(state.in_flight for state in self.states)

    @property
    def asked_of_services(self) -> int:
        """The number of batches, each a request, on the workers of services. Those of a Batch API do not count."""
        services = [s for s in self.states if s.group.settings.backend.is_remote and not s.group.settings.durable]
        return sum(len(state.in_flight) for state in services)

    @property
    def asked_of_others(self) -> bool:
        """Whether a service has a request that is not a server of our own, and whose answer is lost with this run."""
        backends = [state.group.settings for state in self.states if state.in_flight]
        return any(s.backend.is_remote and not s.endpoint.command and not s.durable for s in backends)

    def finish(self, state: WorkerState, number: int) -> Batch:
        """The worker has answered for a batch, so it no longer has it."""
        state.exclusive = False
        state.failed_starts = state.faults = 0
        held = state.in_flight.pop(number)
        now = self.clock()
        state.answers.append((held.batch, now - held.since))
        state.pace.answered(held.batch.samples, held.since, now)
        state.account.rows += len(held.batch.requests)
        return held.batch

    def cancel_pending(self, group: Group | None = None) -> None:
        """Ask the workers of one group, or all, to send back what they have not started. They take nothing after
        that."""
        for state in self.states:
            if group in (None, state.group):
                state.worker.cancel_pending()

    # Deaths

    def handle_death(self, state: WorkerState, death: WorkerDied, restart: bool) -> LostBatches:
        """A worker died with batches: sort the batches, and restart the worker if the run continues."""
        state.exclusive = state.ready = False
        state.pace.lost()
        lost = LostBatches()
        held: list[Batch] = []
        since = min((one.since for one in state.in_flight.values()), default=None)
        for number, one in list(state.in_flight.items()):
            how = one.future.exception(ALL_TOLD_S)
            if not isinstance(how, WorkerDied):
                continue  # answered just before, in a message that has not been read yet
            batch = state.in_flight.pop(number).batch
            (lost.perhaps_paid if how.may_cost else lost.unpaid).extend(batch.requests)
            (lost.innocent if how.idle else held).append(batch)
        if held:
            self.blame.died_with([request.id for batch in held for request in batch.requests])
        elif not state.killed:
            self.blame.died_without_rows()
        lost_rows = len(lost.perhaps_paid) + len(lost.unpaid)
        state.account.died(str(death), lost_rows, since, self.clock())
        if not restart:
            if not state.killed:
                self.emit("warning", message=f"{state.worker.name}: {death}")
            return lost
        if death.device_fault:
            state.faults += 1
            self.blame.fault([request for batch in held for request in batch.requests], state.worker.name)
        ends = {"restarting": False} if self._is_out(state) else {}
        self.emit("lane_died", lane=state.worker.name, reason=str(death), **ends)
        if len(held) == 1 and len(held[0].requests) == 1:
            self._blame(held[0], state, death, lost)
        else:
            lost.suspects = [half for batch in held for half in halves(batch)]
        lost.hopeless = self._go_on(state, death)
        return lost

    def _blame(self, alone: Batch, state: WorkerState, death: WorkerDied, lost: LostBatches) -> None:
        """A row was alone on its worker when it died: it is tried again, or found to be the cause."""
        (request,) = alone.requests
        verdict = self.blame.killed_alone(request, self._names(state.group), death.device_fault)
        if verdict == "suspect":
            lost.suspects = [alone]
            return
        times = self.blame.kills(request)
        message = f"it ended its engine process {times} times while it ran there alone: {death}"
        # Those more that only a killer outside made necessary are not in the table.
        failed = state.group.failed(request, "poison", message, failure_policy.MAX_KILLS)
        if verdict == "poison":
            lost.poisoned = [failed]
        else:
            self.blame.accuse(request, failed, state.group)

    def _is_out(self, state: WorkerState) -> bool:
        """Whether the device of a worker has failed too often."""
        last = len(self._names(state.group)) == 1
        return state.faults >= (MAX_FAULTS_OF_LAST if last else MAX_FAULTS)

    def _go_on(self, state: WorkerState, death: WorkerDied) -> str:
        """Restart a worker that died, or take it out. Returns why no worker can go on, or ""."""
        streak, name = self.blame.poison_streak, state.worker.name
        if streak >= MAX_POISON_STREAK:
            return (
                f"{streak} rows in succession ended their engine process and none was done in between, so "
                f"the rows are not the cause: {death}"
            )
        if not self._is_out(state):
            self._start(state)
            return ""
        self.states.remove(state)
        why = f"{name} failed {state.faults} times in a row and finished nothing in between: {death}"
        if not self._names(state.group):
            return why
        self.emit("warning", message=f"{name} is no longer used, and the run goes on without it: {why}")
        return ""
