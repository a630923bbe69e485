"""The lanes of a run: which are ready, who holds which batch, and what the death of one means. Knows no rows, no files.

Lanes answer through futures; their callbacks put (seat, number, future) into the inbox, number 0 for a start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

from fastgen.backends.registry import slots
from fastgen.errors import EngineError, ModelError
from fastgen.scheduler import failure_policy
from fastgen.scheduler.batching import halves
from fastgen.scheduler.routing import Group
from fastgen.types import Batch, Failed
from fastgen.workers.base import Lane, LaneDied
from fastgen.workers.idle_pool import Shelf, make_room, take
from fastgen.workers.process import ProcessLane

MAX_STARTS = 3
"""Times in a row that a lane may die while it starts."""
MAX_POISON_STREAK = 16
"""Rows in a row that kill their lane, with none done in between: then it is not the rows."""

Emit = Callable[..., None]


@dataclass(eq=False)
class Seat:
    """A lane and what it is doing."""

    lane: Lane
    group: Group
    ready: bool = False
    was_ready: bool = False
    failed_starts: int = 0
    exclusive: bool = False
    """It runs a suspect and takes nothing beside it."""
    kept: bool = False
    """It is of an earlier run and has not been started for this one."""
    flying: dict[int, Batch] = field(default_factory=dict)


@dataclass
class Casualties:
    """What a lane held when it died."""

    innocent: list[Batch] = field(default_factory=list)
    """It was gone before it got these."""
    suspects: list[Batch] = field(default_factory=list)
    """Each to run with nothing beside it."""
    poisoned: list[Failed] = field(default_factory=list)


class Crew:
    """Args: inbox: where answers go; emit: called as emit(event, **facts); shelf: where lanes come from and go to, if anywhere."""

    def __init__(self, inbox: SimpleQueue, emit: Emit, shelf: Shelf | None = None):
        self.inbox = inbox
        self.emit = emit
        self._shelf = shelf
        self.seats: list[Seat] = []
        self.facts: dict[str, dict] = {}
        """What each backend said of itself when it was open."""
        self._kills: Counter[str] = Counter()
        self._poison_streak = 0
        self._number = 0

    def start(self, group: Group) -> None:
        """Start a lane per device of a group, all at once; one that was kept goes on."""
        settings, devices = group.settings, group.settings.devices
        for device in devices:
            most = slots(settings, device)
            lane = take(settings, device, most) if self._shelf else None
            self.seats.append(Seat(lane or ProcessLane(settings, device, most), group, kept=lane is not None))
        for seat in self.seats[-len(devices) :]:
            for gone in () if seat.kept else make_room(seat.lane.device):
                self.emit(
                    "warning", message=f"{gone.name}: the engine with {gone.model} was ended for one with {settings.model.name}"
                )
            self._start(seat)

    def let_go(self, group: Group | None = None) -> None:
        """Have lanes, of one group or all, send back what they have not begun. They take nothing after that."""
        for seat in self.seats:
            if group in (None, seat.group):
                seat.lane.let_go()

    def free(self) -> list[Seat]:
        """Seats that can take a batch, the least busy first."""
        seats = [s for s in self.seats if s.ready and not s.exclusive and len(s.flying) < s.lane.slots]
        return sorted(seats, key=lambda seat: len(seat.flying))

    def submit(self, seat: Seat, batch: Batch) -> None:
        self._number += 1
        number = self._number
        seat.flying[number] = batch
        seen = Batch(batch.bucket, tuple(map(seat.group.view, batch.requests)))
        seat.lane.submit(seen).add_done_callback(lambda future: self.inbox.put((seat, number, future)))

    @property
    def flying(self) -> bool:
        return any(seat.flying for seat in self.seats)

    def landed(self, seat: Seat, number: int) -> Batch:
        """The lane has answered for a batch: it is no longer held."""
        seat.exclusive = False
        seat.failed_starts = 0
        return seat.flying.pop(number)

    def row_done(self) -> None:
        """A row came out well, so the lanes as such are sound."""
        self._poison_streak = 0

    def settle_start(self, seat: Seat, future: Future) -> None:
        """A lane is ready, or did not start.

        Raises:
            ModelError, EngineError: it says that it cannot start, or no lane is left.
        """
        try:
            facts = future.result()
        except (LaneDied, EngineError, ModelError) as error:
            # Something from outside may kill a lane while it loads; its own word that it cannot start is final,
            # unless it worked before: a lane that is lost must not take the others with it.
            seat.failed_starts += 1
            seat.kept = False
            if not isinstance(error, LaneDied) and not seat.was_ready:
                raise
            seat.lane.stop(now=True)  # one that says that it cannot start is still there
            if seat.failed_starts < MAX_STARTS:
                self.emit("lane_restarted", lane=seat.lane.name, reason=str(error))
                self._start(seat)
                return
            self.seats.remove(seat)
            if not any(other.group is seat.group for other in self.seats):
                raise EngineError(f"the engine on {seat.lane.name} did not start {MAX_STARTS} times: {error}") from None
            self.emit("warning", message=f"{seat.lane.name} is given up after {MAX_STARTS} failed starts: {error}")
            return
        seat.ready = seat.was_ready = True
        if seat.kept:
            facts = {**facts, "kept": True}
            seat.kept = False
        self.facts[seat.lane.name] = facts
        self.emit("lane_ready", lane=seat.lane.name, **facts)

    def settle_death(self, seat: Seat, death: LaneDied) -> Casualties:
        """A lane died with batches in hand: start it again and sort what it held.

        Raises:
            EngineError: so many rows in a row killed their lane that it is not the rows.
        """
        held = list(seat.flying.values())
        seat.flying.clear()
        seat.exclusive = False
        self.emit("lane_died", lane=seat.lane.name, reason=str(death))
        lost = Casualties()
        if death.idle:
            lost.innocent = held
        elif len(held) == 1 and len(held[0].requests) == 1:
            request = held[0].requests[0]
            self._kills[request.id] += 1
            if self._kills[request.id] < failure_policy.MAX_KILLS:
                lost.suspects = held
            else:
                message = f"it ended its engine process {failure_policy.MAX_KILLS} times while it ran there alone: {death}"
                settings = seat.group.settings
                poisoned = Failed(
                    request.id, "poison", message, "", settings.backend, settings.model.name, request.content, failure_policy.MAX_KILLS
                )
                lost.poisoned = [poisoned]
                self._poison_streak += 1
        else:
            lost.suspects = [half for batch in held for half in halves(batch)]
        if self._poison_streak >= MAX_POISON_STREAK:
            raise EngineError(
                f"{self._poison_streak} rows in a row ended their engine process and none was done in between, so it "
                f"is not the rows: {death}"
            )
        self._start(seat)
        return lost

    def dismiss(self) -> None:
        """The run is over: lanes are kept for the next one, or end."""
        while self.seats:
            seat = self.seats[-1]
            if self._shelf and not seat.flying:
                self._shelf.put(seat.lane)
            else:
                seat.lane.stop()
            self.seats.pop()  # not before: what breaks this off must find the lane still here

    def stop(self, now: bool = False) -> None:
        """End all lanes; `now` does not let them finish."""
        for seat in self.seats:
            seat.lane.stop(now)

    def _start(self, seat: Seat) -> None:
        seat.ready = False
        ready = seat.lane.turn_to(seat.group.settings) if seat.kept else seat.lane.start()
        ready.add_done_callback(lambda future: self.inbox.put((seat, 0, future)))
