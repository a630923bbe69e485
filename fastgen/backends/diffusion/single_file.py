"""A transformer whose weights are in one file of the user's. `fastgen.input.weights` knows what is in it and where it
belongs."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from fastgen.input.weights.transformer import Plan, Source


def fill(module: nn.Module, path: str, plan: Plan, dtype: torch.dtype) -> None:
    """Put the weights of a file into a module without weights (on the meta device), on the CPU and in this type."""
    state = {}
    with safe_open(path, "pt") as file:
        for name, sources in plan.parameters.items():
            rows = [_read(file, source, dtype) for source in sources]
            state[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
    module.load_state_dict(state, strict=True, assign=True)


def _read(file: Any, source: Source, dtype: torch.dtype) -> torch.Tensor:
    rows = file.get_slice(source.tensor)[source.start : source.stop]
    if not source.scale:
        return rows.to(dtype)
    scale = file.get_tensor(source.scale).float().reshape(-1, 1)
    return (rows.float() * (scale if len(scale) == 1 else scale[source.start : source.stop])).to(dtype)
