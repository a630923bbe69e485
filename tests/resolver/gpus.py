"""Machines that are not there: settings as they would be resolved on a GPU, with full-size models without weights."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from fastgen.bench import synthetic
from fastgen.config.hardware import Gpu
from fastgen.config.settings import Settings
from fastgen.resolver import resolve

MODELS = {"FLUX.1-dev": ("flux-dev", "t2i"), "FLUX.1-Kontext-dev": ("flux-kontext", "edit")}
"""Name -> the folder without weights, and its task."""
HOST_GIB = 60.0
"""Free main memory of a machine with 64 GB."""


def gpu(name: str, memory_gib: float, compute_capability: str, index: int = 0) -> Gpu:
    return Gpu(index, f"GPU-{index}", f"NVIDIA {name}", memory_gib, compute_capability)


RTX_3060, RTX_3090 = gpu("RTX 3060", 12.0, "8.6"), gpu("RTX 3090", 24.0, "8.6")
RTX_4080, RTX_4090 = gpu("RTX 4080", 16.0, "8.9"), gpu("RTX 4090", 24.0, "8.9")
RTX_5090, L40S = gpu("RTX 5090", 31.8, "12.0"), gpu("L40S", 45.0, "8.9")
A100_40, A100_80 = gpu("A100-SXM4-40GB", 40.0, "8.0"), gpu("A100-SXM4-80GB", 80.0, "8.0")
H100, H200, B200 = gpu("H100 80GB HBM3", 79.6, "9.0"), gpu("H200", 140.4, "9.0"), gpu("B200", 179.0, "10.0")


def resolved(
    folder: Path, model: str, *gpus: Gpu, free_gib: float = 0.0, host_gib: float = HOST_GIB, task: str = "", **flags
) -> Settings:
    """Args:
    folder: for the model's configs.
    model: one of MODELS.
    free_gib: what the driver reports of each GPU; 0.0 for nothing, as if they were idle.
    """
    name, usual = MODELS[model]
    if not (folder / name).exists():
        synthetic.make(name, folder / name)
    with (
        patch("fastgen.config.hardware.find_gpus", lambda: list(gpus)),
        patch("fastgen.config.hardware.free_gpu_gib", lambda gpu: free_gib),
        patch("fastgen.config.fit.card.free_host_gib", lambda: host_gib),
        patch("fastgen.opt.quantize.unfit", lambda name: ""),
    ):
        return resolve(task or usual, model=str(folder / name), **{"out": folder / "out", **flags})
