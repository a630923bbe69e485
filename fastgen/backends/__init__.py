"""Backends by name. Adding one: a file or folder here with a class that has open, run and close, and a line in TABLE.

A module is imported only when its backend is opened, in the process that runs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgen.hardware import Device
    from fastgen.settings import Settings
    from fastgen.types import Backend

TABLE = {
    ("local", "flux"): "fastgen.backends.flux.backend:FluxBackend",
    ("fake", "fake"): "fastgen.backends.fake:FakeBackend",
}


def create(settings: Settings, device: Device) -> Backend:
    """The backend for these settings on this device, not yet opened."""
    module, _, name = TABLE[settings.backend, settings.model.family].partition(":")
    return getattr(import_module(module), name)(settings, device)


def slots(device: Device) -> int:
    """Batches that a lane holds at once: one in the engine, the others loading or saving their pictures."""
    return 3 if device.kind == "cuda" else 2
