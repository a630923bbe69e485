"""From settings to a backend that can be opened. Its code is imported only here, in the process that runs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgen.backends.base import Backend
    from fastgen.config.hardware import Device
    from fastgen.config.optimizations import Optimizations
    from fastgen.config.settings import Settings


def create(settings: Settings, device: Device) -> Backend:
    """The backend for these settings on this device, not yet opened."""
    module, _, name = settings.backend.engines[settings.model.family].partition(":")
    make = getattr(import_module(module), name)
    if settings.durable:
        return import_module("fastgen.backends.remote.batch_api.backend").BatchApi(settings, device, make)
    if settings.endpoint.more_urls:
        return import_module("fastgen.backends.remote.fleet").Fleet(settings, device, make)
    return make(settings, device)


def streams(device: Device, choices: Optimizations | None = None) -> int:
    """Batches that one engine computes side by side.

    One batch fills a GPU. On a CPU up to four cores work on a batch each, because cores that share one small batch
    spend their time waiting for each other (bench/LOG.md). Processes that compute each image together do one thing at a
    time.
    """
    if choices is not None and choices.shard.kind == "context":
        return 1
    return 1 if device.kind != "cpu" else min(4, device.threads)


WINDOW = {"t2i": 128, "edit": 32}
"""Batches that a worker holds if parts of the model take turns on the device, by task: each visit serves all of them.
An edit brings images along. Several workers share them, so that the first one to start does not take all rows."""
LEAST_WINDOW = 16


def slots(settings: Settings, device: Device) -> int:
    """Batches that a worker holds at once: those in the engine or on their way to a service, and others that load or
    save their images.

    For a service that may cost money there are no others, because what a worker holds at a kill is lost, and paid. For
    a Batch API it is the number of batches at the service.
    """
    if settings.backend.is_remote:
        share = -(-settings.endpoint.max_inflight // len(settings.placement.devices))
        return share if settings.backend.service else share + max(2, share // 4)
    if settings.optimizations.offload.kind != "none":
        return max(LEAST_WINDOW, WINDOW[settings.task] // len(settings.placement.devices))
    return streams(device, settings.optimizations) + 2
