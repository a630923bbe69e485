"""What optimizations share: the model as they find it. Knows none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fastgen.config.optimizations import StepCache

if TYPE_CHECKING:
    import torch


class QuantizedWeights(Protocol):
    """Where the quantized weights of one part of a model are kept from start to start."""

    seconds: float
    """That reading them took."""

    @property
    def is_there(self) -> bool: ...

    def fill(self, module: torch.nn.Module, device: torch.device) -> None:
        """Give them to a module without weights, once."""

    def keep(self, module: torch.nn.Module) -> None:
        """Those of a module that was just quantized, for the next start."""


class Modules(Protocol):
    """A model that is to run on `device`, in the CPU's memory until an optimization moves it. Optimizations change it
    in place."""

    transformer: Any
    vae: Any
    text_encoder: Any
    text_encoder_2: Any
    device: torch.device
    dtype: torch.dtype
    step_cache: StepCache | None
    """How the step loop may leave out steps; None: all are computed in full."""
    quantized_cache: Mapping[str, QuantizedWeights]
    """By part, where its quantized weights are kept. A part whose weights are there has none of its own yet."""
    away: tuple[str, ...]
    """Parts that are on the device only while they are needed."""
