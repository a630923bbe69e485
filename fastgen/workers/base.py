"""Where a backend runs, and how many batches at once. One file per kind of place: process.py (a GPU or CPUs).

idle_pool.py has the workers that stay open between runs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.types import Batch


class WorkerDied(Exception):
    """The place where the batch ran is gone; the batch may or may not be the reason.

    Args:
        idle: it was gone before it got the batch, which therefore is not the reason.
    """

    def __init__(self, message: str, idle: bool = False):
        super().__init__(message)
        self.idle = idle


class Worker(Protocol):
    name: str
    device: Device
    slots: int
    """Batches it holds at once."""
    model: str
    """The name of the one that it has loaded, for people."""
    reusable: bool
    """Whether it could go on with another run."""

    def start(self) -> Future:
        """Begin to open the backend. The future gives its facts, or raises EngineError, ModelError or WorkerDied."""

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need there."""

    def reconfigure(self, settings: Settings) -> Future:
        """Go on with another run that it `fits`. The future is as of `start`."""

    def submit(self, batch: Batch) -> Future:
        """list[Result] of the batch, or WorkerDied or DiskError. Only once the worker is ready."""

    def cancel_pending(self) -> None:
        """Ask for what waits to be sent back; what is under way is finished. Only endpoints have anything that
        waits."""

    def stop(self, now: bool = False) -> None:
        """Let go of the backend; `now` does not wait for batches that are under way."""
