"""What fake tensors cannot pass through, and what takes its place. Each is named in the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchao.quantization import Float8Tensor

from fastgen.opt import compile as compiling
from fastgen.opt import layout, parked, quantize
from tests.rehearsal.meter import Meter

COMPILE = (
    "compile: the blocks run uncompiled, so launches and bytes are those of eager code; only the inputs of fp8 layers "
    "are quantized in one kernel, without the copies in float32 that eager code would make"
)
BITSANDBYTES = "bitsandbytes: a stand-in with its bytes and products; its own classes take no fake tensors"
CONTAINERS = {"8bit": (torch.int8, 1), "4bit": (torch.uint8, 2)}
"""Kind -> type of the stored weight, weights in one element."""


class Quantized(nn.Module):
    """A linear layer as bitsandbytes stores it: packed weights, scales, and a product with the unpacked weights."""

    def __init__(self, layer: nn.Linear, kind: str, device: torch.device, dtype: torch.dtype):
        super().__init__()
        stored, in_one = CONTAINERS[kind]
        self.size, self.kind, self.dtype = (layer.out_features, layer.in_features), kind, dtype
        self.in_features, self.out_features = layer.in_features, layer.out_features
        count = layer.out_features * layer.in_features
        scales = layer.out_features if kind == "8bit" else count // quantize.GROUP
        whole = layer.weight.data.to(device)  # bitsandbytes quantizes on the device
        self.register_buffer("packed", torch.empty(count // in_one, dtype=stored, device=whole.device))
        self.register_buffer("scales", torch.empty(scales, dtype=torch.float32, device=whole.device))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.data.to(device), requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        return self.packed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device != self.packed.device:
            raise RuntimeError(f"input on {x.device}, quantized weights on {self.packed.device}")
        if self.kind == "8bit":
            tokens = x.reshape(-1, x.shape[-1])
            product = torch._int_mm(tokens.to(torch.int8), self.packed.view(self.size).t())
            made = (product * self.scales).to(x.dtype).reshape(*x.shape[:-1], self.out_features)
            return made if self.bias is None else made + self.bias
        unpacked = torch.empty(self.size, dtype=self.dtype, device=x.device)
        return nn.functional.linear(x.to(self.dtype), unpacked, self.bias).to(x.dtype)


@contextmanager
def used(fake: FakeTensorMode) -> Iterator[None]:
    """Args: fake: the mode in which main memory without data is made."""
    flat, fuse = parked._flat, layout._fuse

    def fuse_without_data(attention: nn.Module) -> None:
        with fake if attention.to_q.weight.device.type == "cpu" else nullcontext():
            fuse(attention)

    def without_data(block: nn.Module, pinned: bool) -> torch.Tensor:
        """The copy of a block in main memory: all of them together are more than a machine of CI has."""

        def empty(*args: Any, **kwargs: Any) -> torch.Tensor:
            with fake:
                return made(*args, **kwargs)

        made = torch.empty
        with patch.object(torch, "empty", empty):
            return flat(block, pinned)

    with ExitStack() as stack:
        stack.enter_context(patch.object(parked, "_flat", without_data))
        stack.enter_context(patch.object(layout, "_fuse", fuse_without_data))
        stack.enter_context(patch.object(compiling, "apply", lambda *_: {"backend": "not rehearsed"}))
        stack.enter_context(patch.object(quantize, "_bitsandbytes", Quantized))
        stack.enter_context(patch.object(quantize, "settle", lambda *_: None))
        yield


@contextmanager
def compiled(meter: Meter) -> Iterator[None]:
    """Inputs of fp8 layers take the memory that they take in compiled blocks."""
    whole = Float8Tensor.from_hp

    def from_hp(*args: Any, **kwargs: Any) -> Float8Tensor:
        with meter.uncounted():
            made = whole(*args, **kwargs)
        for part in (made.qdata, made.scale):
            if part.device.type == "cuda":
                meter.born(part)
        return made

    with patch.object(Float8Tensor, "from_hp", from_hp):
        yield


def needed(optimizations: Any) -> list[str]:
    """The stand-ins that these choices need."""
    kinds = {optimizations.quantize.transformer, optimizations.quantize.text}
    return [COMPILE] * optimizations.compile.on + [BITSANDBYTES] * bool(kinds & set(CONTAINERS))
