"""What a worker offers: a place where one backend runs, with several batches in hand at once. One file for each kind of
place, and a line in registry.PLACES; process.py is a process for one GPU or some CPU threads.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.types import Batch


class WorkerDied(Exception):
    """The worker is gone, and the batch with it; the batch may or may not be the reason.

    Args:
        idle: it was gone before it got the batch, which therefore is not the reason.
        may_cost: something may have gone out for the batch that costs money.
    """

    def __init__(self, message: str, idle: bool = False, may_cost: bool = True):
        super().__init__(message)
        self.idle = idle
        self.may_cost = may_cost and not idle


class Worker(Protocol):
    """Made as `Class(settings, device, slots)`; nothing runs before `start`. A worker that has died may be started
    again."""

    name: str
    """For people, logs and events: the device's name."""
    device: Device
    slots: int
    """Batches that it holds at the same time."""

    @property
    def beats(self) -> int | None:
        """Signs of life so far: it rises about every second for as long as the place is sound, whatever a batch does
        there. None: this kind of place gives none."""

    @property
    def model(self) -> str:
        """The name of the model that it has loaded, for people."""

    @property
    def reusable(self) -> bool:
        """Whether it could go on with another run: alive, with nothing in hand, and not told to cancel anything."""

    def start(self) -> Future[dict]:
        """Begin to open the backend. The future gives the facts that it says of itself, or raises EngineError,
        ModelError or WorkerDied."""

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need on that device."""

    def reconfigure(self, settings: Settings) -> Future[dict]:
        """Continue with another run that it `fits`. The future is like that of `start`."""

    def submit(self, batch: Batch) -> Future:
        """list[Result], one per request in the same order; or raises WorkerDied or DiskError. Only once it is ready."""

    def cancel_pending(self) -> None:
        """Have what has not begun sent back as failed with 0 attempts; what is under way is finished. It takes nothing
        after that."""

    def kill(self, reason: str) -> None:
        """End it at once, whatever it holds, and do not wait. Its futures raise WorkerDied with this reason."""

    def stop(self, now: bool = False) -> None:
        """End it; `now` does not wait for batches that are under way. Does nothing where nothing runs."""

    def forget(self) -> None:
        """In a forked process: the engine is the parent's. Drop what ties this copy to it, and end nothing."""
