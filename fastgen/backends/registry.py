"""Backends by name. Adding one: a file or folder here with a class that has open, run and close, and a line in TABLE.

A module is imported only when its backend is opened, in the process that runs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgen.backends.base import Backend
    from fastgen.config.hardware import Device
    from fastgen.config.settings import Settings

TABLE = {
    ("local", "flux"): "fastgen.backends.diffusion.backend:FluxBackend",
    ("fake", "fake"): "fastgen.backends.fake:FakeBackend",
    ("vllm", "vlm"): "fastgen.backends.remote.vllm:VllmBackend",
    ("openai", "api"): "fastgen.backends.remote.openai_api:OpenAIBackend",
    ("gemini", "api"): "fastgen.backends.remote.gemini_api:GeminiBackend",
}


def create(settings: Settings, device: Device) -> Backend:
    """The backend for these settings on this device, not yet opened."""
    module, _, name = TABLE[settings.backend, settings.model.family].partition(":")
    return getattr(import_module(module), name)(settings, device)


def streams(device: Device) -> int:
    """Batches that one engine computes side by side.

    A GPU is filled by one. Of CPU cores each works on a batch of its own, up to four: cores that share one small batch
    spend their time waiting for each other (bench/LOG.md).
    """
    return 1 if device.kind != "cpu" else min(4, device.threads)


def slots(settings: Settings, device: Device) -> int:
    """Batches that a worker holds at once: those in the engine or on their way to a service, and others that load or
    save their pictures."""
    if settings.is_remote:
        share = -(-settings.endpoint.max_inflight // len(settings.devices))
        return share + max(2, share // 4)
    return streams(device) + (2 if device.kind == "cuda" else 1)
