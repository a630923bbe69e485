"""The places where workers run, by name. To add one, write a file here with a class that has everything of base.Worker,
and a line in PLACES.

Every worker is made here, so that a forked process can release all of them. A module is imported only when its first
worker is made.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from importlib import import_module
from typing import Any

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.workers.base import Worker

PLACES = {"process": "fastgen.workers.process:ProcessWorker", "ray": "fastgen.workers.ray:RayWorker"}

_made: weakref.WeakKeyDictionary[Worker, str] = weakref.WeakKeyDictionary()


def create(place: str, settings: Settings, device: Device, slots: int) -> Worker:
    """A worker for these settings on this device, not yet started.

    Args:
        place: a name in PLACES.
        slots: batches that it holds at once.
    Raises:
        SettingsError: there is no such place.
    """
    worker = _class(place)(settings, device, slots)
    _made[worker] = place
    return worker


def records_sent(place: str) -> bool:
    """Whether workers there record what they send; see output/sent.py. False for a place that does not exist."""
    return place in PLACES and getattr(_class(place), "records_sent", False)


def _class(place: str) -> Any:
    if place not in PLACES:
        raise SettingsError(f"place {place!r}: must be one of {', '.join(sorted(PLACES))}")
    module, _, name = PLACES[place].partition(":")
    return getattr(import_module(module), name)


def place_of(worker: Worker) -> str:
    """Where a worker runs; "" if it was not made here."""
    return _made.get(worker, "")


def _forget_all() -> None:
    for worker in list(_made):
        with suppress(Exception):  # one that cannot must not keep the others
            worker.forget()


os.register_at_fork(after_in_child=_forget_all)
