"""How many batches a worker holds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastgen.backends.registry import slots
from fastgen.config import hardware
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Offload
from fastgen.resolver import resolve


@pytest.mark.parametrize(
    ("task", "kind", "gpus", "most"),
    [
        ("t2i", "none", 1, 3),  # one in the engine, the others load and save
        ("t2i", "model", 1, 128),  # each visit of the text encoders is for all of them
        ("t2i", "text", 4, 32),
        ("t2i", "group", 16, 16),
        ("edit", "model", 1, 32),  # they bring images along
    ],
)
def test_a_worker_that_offloads_holds_a_window(tmp_path, monkeypatch, task, kind, gpus, most):
    found = [Gpu(i, f"GPU-{i}", "NVIDIA H100 80GB HBM3", 79.6, "9.0") for i in range(gpus)]
    monkeypatch.setattr(hardware, "find_gpus", lambda: found)
    settings = resolve(task, out=tmp_path, model="tiny")
    settings = replace(settings, optimizations=replace(settings.optimizations, offload=Offload(kind)))
    assert slots(settings, settings.placement.devices[0]) == most
