"""A transformer's blocks over the devices of a replica, each of which has some of the blocks. Knows no architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.opt.base import Stage, blocks_of


class Activations(Protocol):
    """Between two blocks."""

    @property
    def embedding(self) -> torch.Tensor:
        """(B, width): timestep."""

    def at(self, device: torch.device) -> Self:
        """The same on another device."""


A = TypeVar("A", bound=Activations)


class BlockForward(ABC, Generic[A]):
    """The part of `family.Forward` in which models do not differ, where one process has all tokens."""

    def __init__(self, m: Modules):
        self.transformer, self.dtype = m.transformer, m.dtype
        self.device, self.end_device = m.device, m.end_device
        self._blocks = [block for _, block in blocks_of(m)]
        self.stages = m.stages or (Stage(m.device, 0, len(self._blocks)),)

    def blocks(self, activations: A, start: int, stop: int | None = None) -> A:
        """After the blocks start:stop; on the device of the last of them."""
        stop = len(self._blocks) if stop is None else stop
        for number, stage in enumerate(self.stages):
            own = range(max(start, stage.start), min(stop, stage.stop))
            if own:
                activations = activations.at(stage.device)
                with working_on(stage.device):
                    for at in own:
                        activations = self._run(at, self._blocks[at], number, activations)
        return activations

    def back(self, image: torch.Tensor) -> torch.Tensor:
        return cross(image, self.device)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values  # one process has all tokens

    def end(self, image: torch.Tensor, activations: A) -> torch.Tensor:
        """The velocity (B, tokens, C)."""
        image, embedding = cross(image, self.end_device), cross(activations.embedding, self.end_device)
        with working_on(self.end_device):
            velocity = self._last(image, embedding)
        return cross(velocity, self.device)

    @abstractmethod
    def _run(self, at: int, block: Any, stage: int, now: A) -> A:
        """After one block, number `at`, on the device of stage `stage`."""

    def _last(self, image: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """The layers after the blocks."""
        velocity: torch.Tensor = self.transformer.proj_out(self.transformer.norm_out(image, embedding))
        return velocity
