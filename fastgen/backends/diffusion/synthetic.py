"""The parts of a model without weights, filled with random ones, to measure speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SEED = 0


def part(folder: Path, cls: Any, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """A module built from its config, in main memory, the same each time.

    The numbers are drawn on `device`, where billions of them take seconds; the range is that of PyTorch's own layers.
    """
    torch.manual_seed(SEED)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            if hasattr(cls, "load_config"):  # diffusers
                model = cls.from_config(cls.load_config(folder))
            else:
                model = cls(cls.config_class.from_pretrained(folder))
    finally:
        torch.set_default_dtype(before)
    model = model.to(dtype).to("cpu")
    if device.type == "cuda":  # else parts that are offloaded or quantized later would seem to need all of the memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return model
