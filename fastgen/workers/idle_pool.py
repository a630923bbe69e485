"""Lanes that stay open from one run to the next, for as long as nothing runs on them. Knows no runs.

What is kept never stands in the way: a run that needs another engine on a device first ends the one that is idle there,
whosever it is.
"""

from __future__ import annotations

import os
import threading
import weakref

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.workers.base import Lane

_lock = threading.RLock()  # a session may be collected, and so closed, while this thread holds it
_all: weakref.WeakSet[Shelf] = weakref.WeakSet()


class Shelf:
    """The idle lanes of one session."""

    def __init__(self):
        self.lanes: list[Lane] = []
        self._closed = False
        with _lock:
            _all.add(self)

    def put(self, lane: Lane) -> None:
        """Keep a lane that its run is done with, or end it where it is of no more use."""
        with _lock:
            keep = lane.reusable and not self._closed
            gone = [lane]
            if keep:
                gone = _take_out(lambda other: other.name == lane.name, self if _is_endpoint(lane.device) else None)
                self.lanes.append(lane)
        for one in gone:
            one.stop()

    def close(self) -> None:
        """End what is idle; what comes later is not kept."""
        self._closed = True
        while self.lanes:
            lane = self.lanes[-1]
            lane.stop()
            with _lock:
                self.lanes = [other for other in self.lanes if other is not lane]


def take(settings: Settings, device: Device, slots: int) -> Lane | None:
    """An idle lane with the engine that these settings need on a device, whoever kept it; it is the caller's now."""
    found = _take_out(lambda lane: lane.fits(settings, device, slots))
    useful = next((lane for lane in found if lane.reusable), None)
    for lane in found:
        if lane is not useful:
            lane.stop()
    return useful


def make_room(device: Device) -> list[Lane]:
    """End the idle lanes that share a device; these are returned."""
    gone = [] if _is_endpoint(device) else _take_out(lambda lane: _share(lane.device, device))
    for lane in gone:
        lane.stop()
    return gone


def _take_out(wanted, whose: Shelf | None = None) -> list[Lane]:
    """Remove lanes from where they are kept, of all sessions or of one."""
    with _lock:
        found = []
        for shelf in [whose] if whose else list(_all):
            taken = [lane for lane in shelf.lanes if wanted(lane)]  # asked once: an answer may change
            shelf.lanes = [lane for lane in shelf.lanes if lane not in taken]
            found += taken
        return found


def _share(one: Device, other: Device) -> bool:
    if one.gpu and other.gpu:
        return one.gpu.visible_as == other.gpu.visible_as
    return one.kind == other.kind == "cpu"


def _is_endpoint(device: Device) -> bool:
    """Whether it is a service, which any number of lanes may ask."""
    return device.kind == "endpoint"


def _forget() -> None:
    """In a forked process: what is kept is the parent's."""
    global _lock
    _lock = threading.RLock()
    for shelf in list(_all):
        for lane in shelf.lanes:
            lane.forget()
        shelf.lanes = []


os.register_at_fork(after_in_child=_forget)
