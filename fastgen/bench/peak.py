"""Floating-point operations per image, counted from the model's config, and what the hardware could do per second."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from fastgen.config.hardware import child_environment
from fastgen.config.settings import Settings

# Dense bfloat16 with float32 sums, TFLOP/s, from NVIDIA's data sheets; the first entry whose whole words are in the
# name of the GPU.
DATA_SHEETS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200 NVL": 835.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10": 125.0,
    "A40": 149.7,
    "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
SMALLER = ("Laptop", "Max-Q", "Mobile")
"""GPUs with the same name and less power are measured instead."""
SIDE = 2048
"""Side of the square matrices whose product is used as a CPU's peak; for a GPU four times that."""


def flops_per_step(config: dict, size: tuple[int, int], text: int, reference: tuple[int, int] = (0, 0)) -> float:
    """Operations of the FLUX.1 transformer's blocks for one image and one step.

    A double block projects each stream to Q, K, V and back (4 d^2) and through an MLP of 4 d (8 d^2); a single block
    does the same with fewer, wider products (also 12 d^2). A multiply-add is two operations. Attention takes 4 L^2 d.
    For FLUX.1-dev at 1024x1024 with 512 text tokens: 74.4e12, which agrees with published figures.

    Args:
        config: of the transformer.
        size, reference: (width, height) in pixels; a token is 16x16 of them.
        text: tokens.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    tokens = text + sum((w // 16) * (h // 16) for w, h in (size, reference))
    blocks = config["num_layers"] + config["num_single_layers"]
    return blocks * (2 * 12 * tokens * width**2 + 4 * tokens**2 * width)


def flops_per_picture(settings: Settings, size: tuple[int, int], work: dict[str, int]) -> float:
    """Average operations per image in the blocks that were evaluated."""
    config = json.loads((Path(settings.model.path) / "transformer" / "config.json").read_text("utf-8"))
    reference = size if settings.task == "edit" else (0, 0)
    share = work["blocks"] / work["blocks_without_cache"] if work.get("blocks_without_cache") else 1.0
    return settings.image.steps * share * flops_per_step(config, size, settings.engine.max_sequence_length, reference)


def data_sheet(name: str) -> float:
    """FLOP/s in bfloat16 of a GPU, by its name; 0.0 if unknown."""
    if any(word in name for word in SMALLER):
        return 0.0
    return next((1e12 * value for part, value in DATA_SHEETS.items() if re.search(rf"\b{part}\b", name)), 0.0)


def of_hardware(settings: Settings) -> tuple[float, str]:
    """FLOP/s, and the source of the figure: the data sheet of a GPU, else a measurement in a process of its own."""
    device = settings.placement.devices[0]
    if device.gpu is not None and (known := data_sheet(device.gpu.name)):
        return known, "bfloat16, dense, from the data sheet"
    side = 4 * SIDE if device.gpu else SIDE
    command = [
        sys.executable,
        "-m",
        "fastgen.bench.peak",
        device.kind,
        settings.engine.dtype,
        str(device.threads),
        str(side),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=child_environment(device), timeout=300, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return 0.0, f"not measured: {error}"
    return float(done.stdout), f"{settings.engine.dtype}, measured: the product of two matrices of {side}x{side}"


def measure(kind: str, dtype: str, threads: int, side: int) -> float:
    """FLOP/s of the product of two square matrices: the best result within some seconds."""
    import torch

    device = torch.device(kind)
    torch.set_num_threads(threads)
    a = torch.randn(side, side, device=device, dtype=torch.float32).to(getattr(torch, dtype))
    best, until = float("inf"), time.monotonic() + 2
    while time.monotonic() < until:
        started = time.monotonic()
        a @ a
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
    return 2 * side**3 / best


if __name__ == "__main__":
    print(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
