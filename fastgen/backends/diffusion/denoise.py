"""The step loop: noise -> latents, for samples of one key. Does not know the architecture.

diffusers' pipelines step a whole batch in lockstep. Here every sample has its own schedule, guidance and step, so
samples of different step counts share a forward pass, one that is finished leaves and a waiting one takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch

from fastgen.backends.diffusion.family import Family, Sample
from fastgen.backends.diffusion.graphs import StepGraphs
from fastgen.backends.diffusion.group import Group, Member
from fastgen.opt.offload import onload


class Denoiser:
    def __init__(self, family: Family):
        self.family = family
        self.graphs = StepGraphs() if family.modules.cuda_graphs else None

    @torch.inference_mode()
    def run(self, samples: Iterable[Sample], most: int) -> None:
        """Give every sample its `latents`, `most` of them in a forward pass at a time. On a GPU the work is enqueued;
        only a step cache waits for it."""
        with onload(self.family.modules, "transformer"):
            self._run(deque(samples), most)

    def _run(self, waiting: deque[Sample], most: int) -> None:
        members: list[Member] = []
        while waiting or members:
            members += [Member(self.family, waiting.popleft()) for _ in range(min(len(waiting), most - len(members)))]
            group = Group(self.family, members, self.graphs)
            while not group.is_over:
                group.step()
            members = group.dissolve()
