"""Workers that stay open from one run to the next, for as long as nothing runs on them. Knows no runs.

What is kept never stands in the way: a run that needs another engine on a device first ends the one that is idle there,
whichever session it belongs to.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.workers import registry
from fastgen.workers.base import Worker

_lock = threading.RLock()  # a session may be garbage-collected, and so closed, while this thread holds the lock
_all: weakref.WeakSet[IdlePool] = weakref.WeakSet()


class IdlePool:
    """The idle workers of one session."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self._closed = False
        with _lock:
            _all.add(self)

    def put(self, worker: Worker) -> None:
        """Keep a worker after its run, or end it if it can no longer be used."""
        with _lock:
            keep = worker.reusable and not self._closed
            gone = [worker]
            if keep:
                gone = _take_out(lambda other: other.name == worker.name, self if _is_endpoint(worker.device) else None)
                self.workers.append(worker)
        for one in gone:
            one.stop()

    def close(self) -> None:
        """End the idle workers; workers that come later are not kept."""
        self._closed = True
        while self.workers:
            worker = self.workers[-1]
            worker.stop()
            with _lock:
                self.workers = [other for other in self.workers if other is not worker]


def take(place: str, settings: Settings, device: Device, slots: int) -> Worker | None:
    """An idle worker in a place with the engine that these settings need on a device, from any session. It now belongs
    to the caller."""
    found = _take_out(lambda worker: registry.place_of(worker) == place and worker.fits(settings, device, slots))
    useful = next((worker for worker in found if worker.reusable), None)
    for worker in found:
        if worker is not useful:
            worker.stop()
    return useful


def make_room(device: Device) -> list[Worker]:
    """End the idle workers that use a device, and return them."""
    gone = [] if _is_endpoint(device) else _take_out(lambda worker: _share(worker.device, device))
    for worker in gone:
        worker.stop()
    return gone


def _take_out(wanted: Callable[[Worker], bool], whose: IdlePool | None = None) -> list[Worker]:
    """Remove workers from the pools of all sessions, or of one."""
    with _lock:
        found = []
        for idle_pool in [whose] if whose else list(_all):
            taken = [
                worker for worker in idle_pool.workers if wanted(worker)
            ]  # asked once, because the answer may change
            idle_pool.workers = [worker for worker in idle_pool.workers if worker not in taken]
            found += taken
        return found


def _share(one: Device, other: Device) -> bool:
    if one.gpu and other.gpu:
        return bool({gpu.visible_as for gpu in one.gpus} & {gpu.visible_as for gpu in other.gpus})
    return one.kind == other.kind == "cpu"


def _is_endpoint(device: Device) -> bool:
    """Whether it is a service, which any number of workers may use."""
    return device.kind == "endpoint"


def _keep_nothing() -> None:
    """In a forked process: the idle workers belong to the parent. The registry has the workers themselves let go."""
    global _lock
    _lock = threading.RLock()
    for idle_pool in list(_all):
        idle_pool.workers = []


os.register_at_fork(after_in_child=_keep_nothing)
