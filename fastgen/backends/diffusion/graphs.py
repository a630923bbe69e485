"""One step of a group as a CUDA graph. Does not know what a step computes.

A graph reads and writes at fixed places. So it has copies of the group's tensors: a group's own are copied into them
when it begins, and a step's noise levels before each step. A graph serves every later group of the same shapes.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

import torch

from fastgen.backends.diffusion.family import Forward

MOST = 8
"""Graphs that are kept, the latest ones: each holds the memory of a step."""
WARM_UP = 2
"""Steps before the recording, in which libraries choose their kernels."""


class Group(Protocol):
    """What a graph needs of a group: its tensors, and a step that reads nothing else."""

    device: torch.device
    taken: int
    """Steps so far."""
    timesteps: torch.Tensor
    deltas: torch.Tensor
    after: torch.Tensor
    """(steps, B) each: what `advanced` is given at every step."""
    x: torch.Tensor
    masks: dict[str, torch.Tensor]
    pairs: dict[str, torch.Tensor]
    forward: Forward

    def advanced(self, timestep: torch.Tensor, delta: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """`x` after a step."""


class StepGraphs:
    """The graphs of one engine thread."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple, StepGraph] = OrderedDict()

    def of(self, group: Group) -> StepGraph:
        """The graph for this group, with the group's tensors in it."""
        key = tuple((name, x.shape, x.dtype) for name, x in _tensors(group).items())
        graph = self._graphs.pop(key, None)
        if graph is None:
            while len(self._graphs) >= MOST:
                self._graphs.popitem(last=False)
            graph = StepGraph(group)
        self._graphs[key] = graph
        graph.fill(group)
        return graph


class StepGraph:
    """Args: group: one of the shapes that it is for."""

    def __init__(self, group: Group):
        self._own = copy.copy(group)  # the same step, over tensors of its own
        self._own.forward = copy.copy(group.forward)
        self._own.x, self._own.masks = group.x.clone(), _cloned(group.masks)
        self._own.pairs = _cloned(group.pairs)
        self._own.forward.constants = _cloned(group.forward.constants)
        self._levels = [tensor[0].clone() for tensor in (group.timesteps, group.deltas, group.after)]
        self._replay = record(self._step, group.device)

    def fill(self, group: Group) -> None:
        """Take over the group's tensors."""
        own = _tensors(self._own)
        for name, tensor in _tensors(group).items():
            own[name].copy_(tensor)

    def step(self, group: Group) -> torch.Tensor:
        """Enqueue the group's next step. Returns where its samples are now; the next step overwrites it."""
        for own, all_steps in zip(self._levels, (group.timesteps, group.deltas, group.after), strict=True):
            own.copy_(all_steps[group.taken])
        self._replay()
        return self._own.x

    def _step(self) -> None:
        self._own.x.copy_(self._own.advanced(*self._levels))


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A function that repeats the device's part of `step`."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _tensors(group: Group) -> dict[str, torch.Tensor]:
    """What a step reads, besides the model and the noise levels."""
    return {"x": group.x, **group.masks, **group.pairs, **group.forward.constants}


def _cloned(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
