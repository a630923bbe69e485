"""Which GPUs and layers can multiply in Blackwell's block formats, mxfp8 and nvfp4. Imports no torch.

PyTorch sends these products to cuBLAS, which has them from CUDA 12.8 on, for compute capability 10.x and 12.x. The
one layout that it has for 12.x, rows times columns, is the one used here (`block_scaled`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgen.config.hardware import Gpu
from fastgen.config.torch_build import cuda_version

if TYPE_CHECKING:
    import torch

BLOCK_SCALED = ("mxfp8", "nvfp4")
MAJORS = (10, 12)
"""Of the compute capability. Nothing is known of what came after, or of Thor (11.0)."""
FROM_CUDA = (12, 8)


def refuse(gpu: Gpu, kinds: set[str]) -> str:
    """Why a GPU cannot multiply in one of these kinds, and what it can; "" if it can, or none is a block format."""
    kind = next((kind for kind in BLOCK_SCALED if kind in kinds), "")
    if not kind:
        return ""
    capability = float(gpu.compute_capability or 0)
    other = "fp8" if capability >= 8.9 else {"mxfp8": "int8", "nvfp4": "4bit"}[kind]
    if int(capability) not in MAJORS:
        return (
            f"{kind} arithmetic needs a Blackwell GPU (compute capability 10.x or 12.x); {gpu.name} has "
            f"{gpu.compute_capability}; use {other}"
        )
    cuda = cuda_version()
    if cuda and tuple(map(int, cuda.split(".")[:2])) < FROM_CUDA:
        return f"{kind} arithmetic needs a PyTorch for CUDA 12.8 or newer, and this one is for {cuda}; use {other}"
    return ""


def multiplies(device: torch.device, few_rows: bool) -> bool:
    """Whether a layer multiplies in the format; else its weight is only stored in it. A CPU gains nothing, nor does a
    layer that sees one row per sample."""
    return device.type != "cpu" and not few_rows


def fits(layer: Any) -> bool:
    """Whether cuBLAS can multiply with the weight of a linear layer: a row has whole blocks, rows and columns are
    aligned."""
    return layer.in_features % 32 == 0 and layer.out_features % 16 == 0
