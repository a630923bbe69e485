"""The modules of a model, as the engine and `opt` know them. Does not know how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fastgen.config.families import Parts
from fastgen.config.optimizations import Progressive, StepCache
from fastgen.opt.base import QuantizedWeights, Stage
from fastgen.opt.parked import BlockStream, Parked
from fastgen.opt.ulysses import Ranks


@dataclass
class Modules:
    """The modules of diffusers and transformers, in eval mode, to run on `device`. Only `opt` changes them."""

    transformer: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    device: torch.device
    """Here samples begin and end: the first of `devices`."""
    dtype: torch.dtype
    parts: Parts
    """What they are called."""
    text_encoder_2: Any = None
    tokenizer_2: Any = None
    processor: Any = None
    """Turns images and texts into what a text encoder that sees images reads."""
    step_cache: StepCache | None = None
    """None: every step is computed in full."""
    progressive: Progressive | None = None
    """None: every step is taken at the full size."""
    quantized_cache: Mapping[str, QuantizedWeights] = field(default_factory=dict)
    """Where the quantized weights of a part are stored. If they exist, that part is created without weights."""
    away: tuple[str, ...] = ()
    """Which modules stay in main memory and are on the device only while they are needed."""
    parked: dict[str, Parked] = field(default_factory=dict)
    """Each of them: how it comes and leaves."""
    engines: int = 1
    """How many engines of this run share the main memory."""
    block_stream: BlockStream | None = None
    """With --offload group: how the transformer's blocks come."""
    cuda_graphs: bool = False
    """Whether a step of the loop is recorded and repeated."""
    devices: tuple[torch.device, ...] = ()
    """Those of the replica, as far as this process works on them."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that compute each image together."""
    stages: tuple[Stage, ...] = ()
    """Where the transformer's blocks are; () if everything is on `device`."""
    text_device: torch.device = field(init=False)
    """Where the text encoders are."""
    end_device: torch.device = field(init=False)
    """Where the layers after the transformer's blocks are."""

    def __post_init__(self) -> None:
        self.devices = self.devices or (self.device,)
        self.text_device = self.end_device = self.device
