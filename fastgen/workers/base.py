"""The protocol of a worker: where one backend runs, with several batches at the same time. There is one file for each
kind of place, and a line in registry.PLACES; process.py is a process for one GPU or some CPU threads.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import ModelError
from fastgen.types import Batch


class WorkerDied(Exception):
    """The worker is gone, and the batch with it. The batch may or may not be the reason.

    Args:
        idle: it was gone before it got the batch, which therefore is not the reason.
        may_cost: something that costs money may have been sent for the batch.
        device_fault: it ended because its device failed, such as after an error of CUDA.
    """

    def __init__(self, message: str, idle: bool = False, may_cost: bool = True, device_fault: bool = False):
        super().__init__(message)
        self.idle = idle
        self.device_fault = device_fault
        self.may_cost = may_cost and not idle


class MachineRefused(ModelError):
    """The machine that a worker got cannot take part in the run; others may."""


class Worker(Protocol):
    """Made as `Class(settings, device, slots)`; nothing runs before `start`. A worker that has died may be started
    again.

    A class whose backends run on the machine of the run folder, and that adds every request of a paid service to
    `output.sent.SentMarks` before it is sent, may say so with `records_sent = True`. Then only those count as possibly
    paid after a kill. One that knows how much main memory its backend has may say so with `memory_mib`, and one with
    something to tell the user may put it into `warnings`, a deque that the pool empties.
    """

    name: str
    """The name of the device, for messages, logs and events."""
    device: Device
    slots: int
    """Batches that it holds at the same time."""

    @property
    def beats(self) -> int | None:
        """Signs of life so far. The number rises about every second while the place is healthy, whatever its batches
        do.
        None: this kind of place gives no signs."""

    @property
    def model(self) -> str:
        """The name of the loaded model, for messages."""

    @property
    def reusable(self) -> bool:
        """Whether it can work for another run: alive, without batches, and not told to cancel anything."""

    def start(self) -> Future[dict]:
        """Start to open the backend. The future returns the facts that the backend reports, or raises EngineError,
        ModelError or WorkerDied."""

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need on that device."""

    def reconfigure(self, settings: Settings) -> Future[dict]:
        """Continue with another run that it `fits`. The future is like that of `start`."""

    def submit(self, batch: Batch) -> Future:
        """A future with list[Result], one per request in the same order; or it raises WorkerDied or DiskError. Call it
        only when the worker is ready."""

    def cancel_pending(self) -> None:
        """Ask it to send back what has not started, as failed with 0 attempts, and to finish what is in progress. It
        takes nothing after that."""

    def kill(self, reason: str) -> None:
        """End it at once, whatever it is doing, and do not wait. Its futures raise WorkerDied with this reason."""

    def stop(self, now: bool = False) -> None:
        """End it; with `now` it does not wait for batches in progress. Does nothing if nothing runs."""

    def forget(self) -> None:
        """In a forked process: the engine belongs to the parent. Release this copy's connection to it, and end
        nothing."""
