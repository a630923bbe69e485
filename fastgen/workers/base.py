"""The protocol of a worker: where a backend runs, and how many batches it holds. One file per kind of place: process.py
(a GPU or CPUs).

idle_pool.py has the workers that stay open between runs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.types import Batch


class WorkerDied(Exception):
    """The worker on which the batch ran is gone. The batch may or may not be the reason.

    Args:
        idle: it was gone before it got the batch, so the batch is not the reason.
    """

    def __init__(self, message: str, idle: bool = False):
        super().__init__(message)
        self.idle = idle


class Worker(Protocol):
    name: str
    device: Device
    slots: int
    """Batches that it holds at the same time."""
    model: str
    """The name of the loaded model, for messages."""
    reusable: bool
    """Whether it can work for another run."""

    def start(self) -> Future:
        """Start to open the backend. The future returns its facts, or raises EngineError, ModelError or WorkerDied."""

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need on that device."""

    def reconfigure(self, settings: Settings) -> Future:
        """Continue with another run that it `fits`. The future is like that of `start`."""

    def submit(self, batch: Batch) -> Future:
        """A future with the batch's list[Result], or WorkerDied or DiskError. Call it only when the worker is ready."""

    def cancel_pending(self) -> None:
        """Ask it to send back what it has not started; what is in progress is finished. Only endpoints have batches
        that wait."""

    def stop(self, now: bool = False) -> None:
        """Close the backend; with `now` it does not wait for batches in progress."""
