"""What optimizations share: the model that they change. Does not know single optimizations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fastgen.config.families import Parts
from fastgen.config.optimizations import Progressive, StepCache

if TYPE_CHECKING:
    import torch

    from fastgen.opt.parked import BlockStream, Parked
    from fastgen.opt.ulysses import Ranks


class QuantizedWeights(Protocol):
    """Stores the quantized weights of one part of a model between starts."""

    seconds: float
    """Seconds that reading them took."""
    notes: list[str]
    """For the user: what became of them."""

    @property
    def is_there(self) -> bool: ...

    def fill(self, module: torch.nn.Module, device: torch.device) -> None:
        """Put them into a module without weights. Call it once."""

    def keep(self, module: torch.nn.Module) -> None:
        """Store those of a module that was just quantized, for the next start."""


@dataclass(frozen=True)
class Stage:
    """The blocks start:stop of the transformer, which are on one device."""

    device: torch.device
    start: int
    stop: int


class Modules(Protocol):
    """A model that will run on `device`. It is in main memory until an optimization moves it. Optimizations change it
    in place."""

    transformer: Any
    vae: Any
    text_encoder: Any
    parts: Parts
    """What its parts are called."""
    device: torch.device
    """The first of `devices`: here samples begin and end."""
    devices: tuple[torch.device, ...]
    """Those of the replica, as far as this process works on them."""
    ranks: Ranks
    """The processes that compute each image together; one, unless --parallel context."""
    stages: tuple[Stage, ...]
    """Where the transformer's blocks are; () if everything is on `device`."""
    text_device: torch.device
    """Where the text encoders are."""
    end_device: torch.device
    """Where the layers after the transformer's blocks are."""
    dtype: torch.dtype
    step_cache: StepCache | None
    """How the step loop may leave out steps; None: all steps are computed in full."""
    progressive: Progressive | None
    """Which first steps are taken at a smaller size; None: none of them."""
    quantized_cache: Mapping[str, QuantizedWeights]
    """Part -> where its quantized weights are stored. A part whose stored weights exist is created without weights."""
    away: tuple[str, ...]
    """Parts that are on the device only while they are needed."""
    parked: dict[str, Parked]
    """Each of them: how it comes and leaves."""
    engines: int
    """How many engines of this run share the main memory."""
    block_stream: BlockStream | None
    """With --offload group: how the transformer's blocks come."""
    cuda_graphs: bool
    """Whether a step of the loop is recorded and repeated."""


def blocks_of(modules: Modules) -> list[tuple[str, torch.nn.Module]]:
    """Name and module of every block of the transformer, in the order in which they run."""
    lists = modules.parts.blocks
    return [(f"{name}.{at}", block) for name in lists for at, block in enumerate(getattr(modules.transformer, name))]
