"""A transformer whose weights are in one file of the user's. `fastgen.input.weights` knows what is in it and where it
belongs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import nn

from fastgen.input.weights import gguf_file
from fastgen.input.weights.transformer import Plan, Source


class Tensors(Protocol):
    """The tensors of a file, on the CPU."""

    def get_slice(self, name: str) -> Any:
        """What gives rows of a tensor when it is indexed."""

    def get_tensor(self, name: str) -> torch.Tensor: ...


def fill(module: nn.Module, path: str, plan: Plan, dtype: torch.dtype) -> None:
    """Put the weights of a file into a module without weights (on the meta device), on the CPU and in this type."""
    state = {}
    with _opened(path) as file:
        for name, sources in plan.parameters.items():
            rows = [_read(file, source, dtype) for source in sources]
            state[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
    module.load_state_dict(state, strict=True, assign=True)


@contextmanager
def _opened(path: str) -> Iterator[Tensors]:
    if gguf_file.is_gguf(Path(path)):
        yield _Gguf(path)
        return
    with safe_open(path, "pt") as file:
        yield file


class _Gguf:
    """A GGUF file. Its types have blocks of values within a row, so some rows can be multiplied out alone."""

    def __init__(self, path: str):
        self._tensors = {tensor.name: tensor for tensor in gguf_file.reader(Path(path)).tensors}

    def get_slice(self, name: str) -> _GgufRows:
        return _GgufRows(self._tensors[name])

    def get_tensor(self, name: str) -> torch.Tensor:
        return self.get_slice(name)[:]


class _GgufRows:
    def __init__(self, tensor: Any):
        self._tensor = tensor

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """In float32, or as they are."""
        from diffusers.quantizers.gguf.utils import dequantize_functions
        from gguf import GGML_QUANT_SIZES

        kind = self._tensor.tensor_type
        found = torch.from_numpy(self._tensor.data[rows].copy())
        if kind.name in ("F32", "F16"):
            return found
        per_block, size = GGML_QUANT_SIZES[kind]
        # Not by `dequantize_gguf_tensor`, which computes in float16.
        made: torch.Tensor = dequantize_functions[kind](found.reshape(-1, size), per_block, size, torch.float32)
        return made.reshape(*found.shape[:-1], -1)


def _read(file: Tensors, source: Source, dtype: torch.dtype) -> torch.Tensor:
    rows = file.get_slice(source.tensor)[source.start : source.stop]
    if not source.scale:
        return rows.to(dtype)
    scale = file.get_tensor(source.scale).float().reshape(-1, 1)
    return (rows.float() * (scale if len(scale) == 1 else scale[source.start : source.stop])).to(dtype)
