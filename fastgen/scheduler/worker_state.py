"""What the pool knows about one worker: its batches and its state. Nouns only."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from fastgen.scheduler.account import Account
from fastgen.scheduler.pace import Pace
from fastgen.scheduler.routing import Group
from fastgen.scheduler.watchdog import Watch
from fastgen.types import Batch, Request, Result
from fastgen.workers.base import Worker


@dataclass(frozen=True)
class Held:
    """A batch that is on a worker."""

    batch: Batch
    since: float
    """When the worker got it, by time.monotonic()."""
    future: Future


@dataclass(eq=False)
class WorkerState:
    """A worker and what it is doing."""

    worker: Worker
    group: Group
    watch: Watch
    opening: bool = False
    ready: bool = False
    was_ready: bool = False
    failed_starts: int = 0
    faults: int = 0
    """How often its device failed since it last finished a batch."""
    exclusive: bool = False
    """It runs a suspect and takes nothing else."""
    reused: bool = False
    """It comes from an earlier run and was not started for this one."""
    pace: Pace = field(default_factory=Pace)
    account: Account = field(init=False)
    killed: bool = False
    """We are ending it, and its batches will come back."""
    answers: list[tuple[Batch, float]] = field(default_factory=list)
    """Batches since the last look at it, and the seconds that each took."""
    in_flight: dict[int, Held] = field(default_factory=dict)
    peak_mib: int = 0
    """The most GPU memory that its engine has had, as far as it says."""

    @property
    def batches(self) -> list[Batch]:
        return [held.batch for held in self.in_flight.values()]

    def __post_init__(self) -> None:
        self.account = Account(self.pace)


@dataclass
class LostBatches:
    """The batches of a worker that died."""

    innocent: list[Batch] = field(default_factory=list)
    """The worker was gone before it got these."""
    suspects: list[Batch] = field(default_factory=list)
    """Each of these runs alone."""
    poisoned: list[Result] = field(default_factory=list)
    unpaid: list[Request] = field(default_factory=list)
    """Of all of these, the rows for which nothing that costs money had been sent."""
    perhaps_paid: list[Request] = field(default_factory=list)
    hopeless: str = ""
    """Why no worker is left that could go on."""
